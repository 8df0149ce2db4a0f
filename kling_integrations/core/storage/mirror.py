"""What this machine knows of a team's records: an SQLite file that can be thrown away."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ..submission import Entry, State
from . import sqlite_ledger, team_records
from .sqlite_file import SqliteFile
from .sqlite_ledger import SqliteLedger

_TABLE = """
CREATE TABLE IF NOT EXISTS mirrored (
    name              TEXT PRIMARY KEY,
    client_request_id TEXT NOT NULL UNIQUE,
    version           TEXT NOT NULL
)
"""

# A record names the path that was saved last, perhaps on another machine; this is where this one
# has the video.
_SAVED = """
CREATE TABLE IF NOT EXISTS saved_here (
    client_request_id TEXT PRIMARY KEY,
    path              TEXT NOT NULL
)
"""


class Mirror(SqliteLedger):
    """A ledger of copies; each has the name of its record and the version that was read."""

    def __init__(self, path: Callable[[], Path]) -> None:
        super().__init__()
        self._path = path
        self._file = SqliteFile(path, _prepare, synchronous="NORMAL")

    @property
    def path(self) -> Path:
        return self._path()

    def put(self, entries: Mapping[str, Entry], versions: Mapping[str, str] | None = None) -> None:
        """Takes over records by their names; without a version they are read again later."""
        by_time = sorted(entries.items(), key=lambda item: item[1].record.created_at)
        with self._file.transaction() as db:
            for name, entry in by_time:
                sqlite_ledger.insert(db, _found_here(db, entry))
                own = entry.record.client_request_id
                db.execute("DELETE FROM mirrored WHERE client_request_id = ?", (own,))
                db.execute(
                    "INSERT OR REPLACE INTO mirrored VALUES (?, ?, ?)",
                    (name, own, (versions or {}).get(name, "")),
                )

    def apply(self, listed: Mapping[str, str]) -> None:
        """Notes what follows from other records; ``listed`` are the names of all."""
        marked = [name for name in listed if team_records.is_mark(name)]
        query = "SELECT name, state FROM mirrored JOIN submissions USING (client_request_id) WHERE "
        with self._file.transaction() as db:
            # Only an intent, or what is marked, can be in another state than its record says.
            intents = [row["name"] for row in db.execute(f"{query} state = 'intent'")]
            states: dict[str, State] = {}
            for beginning in {name.rpartition("-")[0] for name in (*intents, *marked)}:
                between = (f"{beginning}-", f"{beginning}.")  # the sign after the dash
                rows = db.execute(f"{query} name > ? AND name < ?", between)
                states |= {row["name"]: State(row["state"]) for row in rows}
            for name, state in team_records.consequences(states, marked).items():
                db.execute(
                    "UPDATE submissions SET state = ? WHERE client_request_id = "
                    "(SELECT client_request_id FROM mirrored WHERE name = ?)",
                    (state.value, name),
                )

    def saved_here(self, client_request_id: str, path: Path) -> None:
        """Notes where this machine has a video, whatever other machines save it as."""
        with self._file.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO saved_here VALUES (?, ?)", (client_request_id, str(path))
            )

    def found_here(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """The same entries, each with the path of its video on this machine, where there is one."""
        if not entries:
            return {}
        with self._file.transaction() as db:
            return {name: _found_here(db, entry) for name, entry in entries.items()}

    def versions(self) -> dict[str, str]:
        with self._file.transaction() as db:
            rows = db.execute("SELECT name, version FROM mirrored").fetchall()
        return {row["name"]: row["version"] for row in rows}

    def name(self, client_request_id: str) -> str | None:
        """The name of a submission's record; None for one that is not the team's."""
        with self._file.transaction() as db:
            row = db.execute(
                "SELECT name FROM mirrored WHERE client_request_id = ?", (client_request_id,)
            ).fetchone()
        return row["name"] if row else None

    def named(self, client_request_id: str) -> tuple[str, Entry] | None:
        name = self.name(client_request_id)
        rows = self._rows("client_request_id = ?", (client_request_id,)) if name else []
        return (name, rows[0]) if name and rows else None


def _prepare(db: sqlite3.Connection) -> None:
    sqlite_ledger.prepare(db)
    db.execute(_TABLE)
    db.execute(_SAVED)


def _found_here(db: sqlite3.Connection, entry: Entry) -> Entry:
    row = db.execute(
        "SELECT path FROM saved_here WHERE client_request_id = ?",
        (entry.record.client_request_id,),
    ).fetchone()
    return replace(entry, path=Path(row["path"])) if row else entry
