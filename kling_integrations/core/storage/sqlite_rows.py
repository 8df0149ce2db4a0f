"""The rows of the ledger in SQLite: their tables, and what a row says of a submission."""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..errors import LedgerError
from ..submission import Entry, Owner, Record, State

_SCHEMA = """
CREATE TABLE IF NOT EXISTS submissions (
    client_request_id TEXT PRIMARY KEY,
    base_url          TEXT NOT NULL,
    fingerprint       TEXT NOT NULL,
    take              INTEGER NOT NULL,
    state             TEXT NOT NULL,
    model             TEXT NOT NULL,
    duration          INTEGER,
    prompt            TEXT,
    request           TEXT NOT NULL,
    created_at        REAL NOT NULL,
    submitted_at      REAL,
    generation_id     TEXT,
    elapsed           REAL,
    usage             TEXT,
    error             TEXT,
    path              TEXT,
    size              INTEGER,
    sha256            TEXT,
    key_hash          TEXT,
    user              TEXT,
    host              TEXT,
    pid               TEXT,
    tag               TEXT,
    error_kind        TEXT
);
CREATE INDEX IF NOT EXISTS by_request ON submissions (base_url, fingerprint, take);
CREATE INDEX IF NOT EXISTS by_generation ON submissions (generation_id);
"""
_VERSION = 1
_ADDED = {"key_hash", "user", "host", "pid", "tag", "error_kind"}  # columns since version 0.1.0

T = TypeVar("T")


def prepare(db: sqlite3.Connection) -> None:
    """The tables of a new file, and what older versions lack."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > _VERSION:
        raise sqlite3.DatabaseError(f"it is of a newer version ({version})")
    if version < _VERSION:
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = 1; COMMIT;")
    # Version 0.1.0 allowed one POST in doubt per request.
    db.execute("DROP INDEX IF EXISTS one_intent")
    columns = {row["name"] for row in db.execute("PRAGMA table_info(submissions)")}
    for name in _ADDED - columns:
        with suppress(sqlite3.OperationalError):  # another process was quicker
            db.execute(f"ALTER TABLE submissions ADD COLUMN {name} TEXT")


def insert(db: sqlite3.Connection, entry: Entry) -> None:
    """A row for the entry; where its submission has one, that is changed and keeps its place."""
    row = _columns(entry)
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    changes = ", ".join(f"{name} = excluded.{name}" for name in row)
    db.execute(
        f"INSERT INTO submissions ({names}) VALUES ({marks}) "  # noqa: S608 (fixed names)
        f"ON CONFLICT (client_request_id) DO UPDATE SET {changes}",
        tuple(row.values()),
    )


def _columns(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "client_request_id": record.client_request_id,
        "base_url": entry.base_url,
        "fingerprint": record.fingerprint,
        "take": entry.take,
        "state": record.state.value,
        "model": record.model,
        "duration": entry.duration,
        "prompt": entry.prompt,
        "request": json.dumps(entry.request),
        "created_at": record.created_at,
        "submitted_at": entry.submitted_at,
        "generation_id": record.generation_id,
        "elapsed": entry.elapsed,
        "usage": json.dumps(entry.usage) if entry.usage else None,
        "error": entry.error,
        "path": str(entry.path) if entry.path else None,
        "size": entry.size,
        "sha256": entry.sha256,
        "key_hash": entry.key_hash,
        "user": entry.owner.user if entry.owner else None,
        "host": entry.owner.host if entry.owner else None,
        "pid": entry.owner.pid if entry.owner else None,
        "tag": entry.tag,
        "error_kind": entry.error_kind,
    }


def entry_of(row: sqlite3.Row) -> Entry:
    """Raises LedgerError for a row that is no record: unreadable is not absent."""
    try:
        return _read(row)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise LedgerError(
            f"A record of the ledger is unreadable ({type(error).__name__}: {error}).",
            hint="It may be of something paid for. Repair the ledger, or move it away knowing that "
            "what it held is forgotten.",
        ) from None


def _read(row: sqlite3.Row) -> Entry:
    record = Record(
        fingerprint=str(row["fingerprint"]),
        client_request_id=str(row["client_request_id"]),
        model=str(row["model"]),
        created_at=float(row["created_at"]),
        state=State(row["state"]),
        generation_id=_text(row["generation_id"]),
    )
    request, usage = json.loads(row["request"]), json.loads(row["usage"] or "{}")
    return Entry(
        record=record,
        base_url=str(row["base_url"]),
        take=int(row["take"]),
        duration=_optional(int, row["duration"]),
        prompt=_text(row["prompt"]),
        request=dict(request),
        submitted_at=_optional(float, row["submitted_at"]),
        elapsed=_optional(float, row["elapsed"]),
        usage={
            name: float(usage[name])
            for name in ("credits_used", "usd_spent", "tokens_used")
            if isinstance(usage.get(name), int | float)
        },
        error=_text(row["error"]),
        path=Path(row["path"]) if row["path"] else None,
        size=_optional(int, row["size"]),
        sha256=_text(row["sha256"]),
        key_hash=_text(row["key_hash"]),
        owner=_owner(row),
        tag=_text(row["tag"]),
        error_kind=_text(row["error_kind"]),
    )


def _owner(row: sqlite3.Row) -> Owner | None:
    return Owner(str(row["user"]), str(row["host"]), int(row["pid"])) if row["user"] else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _optional(kind: type[T], value: Any) -> T | None:
    return None if value is None else kind(value)  # type: ignore[call-arg]
