"""Records in the SQLite file of one machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import settings
from ..records import checked, dump, load
from .sqlite_file import SqliteFile

_TABLE = """
CREATE TABLE IF NOT EXISTS records (
    name    TEXT PRIMARY KEY,
    value   TEXT NOT NULL,
    version INTEGER NOT NULL
)
"""


class SqliteRecords:
    """A table beside the submissions of the ledger; in ``KLING_HOME`` unless a path is given."""

    def __init__(self, path: str | Path | None = None) -> None:
        self._given = Path(path) if path else None
        self._file = SqliteFile(lambda: self.path, _prepare)

    @property
    def path(self) -> Path:
        return self._given or settings.home() / "ledger.sqlite3"

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> dict[str, Any] | None:
        return self.read_many([name]).get(name)

    def read_many(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        values = {}
        with self._file.reading() as db:
            for name in names:
                query = "SELECT value FROM records WHERE name = ?"
                row = db.execute(query, (checked(name),)).fetchone()
                if row is not None:
                    values[name] = load(row["value"], f"{name} in {self.path}")
        return values

    def create(self, name: str, value: Mapping[str, Any]) -> bool:
        with self._file.transaction() as db:
            made = db.execute(
                "INSERT INTO records (name, value, version) VALUES (?, ?, 1) "
                "ON CONFLICT (name) DO NOTHING",
                (checked(name), dump(value).decode()),
            )
            return made.rowcount == 1

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        with self._file.transaction() as db:
            db.execute(
                "INSERT INTO records (name, value, version) VALUES (?, ?, 1) ON CONFLICT (name) "
                "DO UPDATE SET value = excluded.value, version = version + 1",
                (checked(name), dump(value).decode()),
            )

    def names(self, prefix: str = "") -> dict[str, str]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT name, version FROM records WHERE substr(name, 1, ?) = ? ORDER BY name",
                (len(prefix), prefix),
            ).fetchall()
        return {row["name"]: str(row["version"]) for row in rows}


def _prepare(db: sqlite3.Connection) -> None:
    db.execute(_TABLE)
