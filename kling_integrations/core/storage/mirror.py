"""What this machine knows of a team's records: an SQLite file that can be thrown away."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ..submission import Entry, State
from . import sqlite_rows, team_records
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


# Records that are newer here than at the team's store, which could not be reached when they were
# written: ids of what is paid for, and what became of it.
_UNSENT = """
CREATE TABLE IF NOT EXISTS unsent (
    client_request_id TEXT PRIMARY KEY,
    name              TEXT NOT NULL
)
"""

# Intents that were written from here: whether one's process is alive is told by the request's lock.
_CLAIMED = "CREATE TABLE IF NOT EXISTS claimed_here (client_request_id TEXT PRIMARY KEY)"


class Mirror(SqliteLedger):
    """A ledger of copies; each has the name of its record and the version that was read.

    What is unsent, and where this machine has a video, is known nowhere else.
    """

    def __init__(self, path: Callable[[], Path]) -> None:
        super().__init__()
        self._path = path
        self._file = SqliteFile(path, _prepare)

    @property
    def path(self) -> Path:
        return self._path()

    def put(self, entries: Mapping[str, Entry], versions: Mapping[str, str] | None = None) -> None:
        """Takes over records by their names; without a version they are read again later."""
        by_time = sorted(entries.items(), key=lambda item: item[1].record.created_at)
        with self._file.transaction() as db:
            unsent = {row["name"] for row in db.execute("SELECT name FROM unsent")}
            for name, entry in by_time:
                if name in unsent:
                    continue
                sqlite_rows.insert(db, _found_here(db, entry))
                own = entry.record.client_request_id
                db.execute("DELETE FROM mirrored WHERE client_request_id = ?", (own,))
                db.execute(
                    "INSERT OR REPLACE INTO mirrored VALUES (?, ?, ?)",
                    (name, own, (versions or {}).get(name, "")),
                )

    def claimed(self, name: str, entry: Entry) -> None:
        """Takes over an intent that was written from here."""
        self.put({name: entry})
        with self._file.transaction() as db:
            own = entry.record.client_request_id
            db.execute("INSERT OR IGNORE INTO claimed_here VALUES (?)", (own,))

    def is_claimed(self, entry: Entry) -> bool:
        own = entry.record.client_request_id
        with self._file.reading() as db:
            found = db.execute("SELECT 1 FROM claimed_here WHERE client_request_id = ?", (own,))
            return found.fetchone() is not None

    def keep(self, name: str, entry: Entry, change: Callable[[Entry], Entry]) -> Entry:
        """Keeps a change that the store is to get: first here, so that it is never lost.

        ``entry`` is what is changed where no copy is here yet; one may be newer than it.
        """
        with self._file.transaction() as db:
            own = entry.record.client_request_id
            row = _row(db, own)
            entry = change(sqlite_rows.entry_of(row).filled(entry) if row else entry)
            sqlite_rows.insert(db, _found_here(db, entry))
            db.execute("DELETE FROM mirrored WHERE client_request_id = ?", (own,))
            db.execute("INSERT OR REPLACE INTO mirrored VALUES (?, ?, '')", (name, own))
            db.execute("INSERT OR REPLACE INTO unsent VALUES (?, ?)", (own, name))
        return entry

    def sent(self, entry: Entry) -> None:
        """The store has it, unless it went on here meanwhile."""
        own = entry.record.client_request_id
        with self._file.transaction() as db:
            row = _row(db, own)
            if row is None or _result(sqlite_rows.entry_of(row)) == _result(entry):
                db.execute("DELETE FROM unsent WHERE client_request_id = ?", (own,))

    def unsent(self, prefix: str = "") -> dict[str, Entry]:
        """What the store lacks, by name; of one request, or all."""
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT name, submissions.* FROM unsent JOIN submissions USING (client_request_id) "
                "WHERE substr(name, 1, ?) = ?",
                (len(prefix), prefix),
            ).fetchall()
        return {row["name"]: sqlite_rows.entry_of(row) for row in rows}

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
        with self._file.reading() as db:
            return {name: _found_here(db, entry) for name, entry in entries.items()}

    def versions(self) -> dict[str, str]:
        with self._file.reading() as db:
            rows = db.execute("SELECT name, version FROM mirrored").fetchall()
        return {row["name"]: row["version"] for row in rows}

    def name(self, client_request_id: str) -> str | None:
        """The name of a submission's record; None for one that is not the team's."""
        with self._file.reading() as db:
            row = db.execute(
                "SELECT name FROM mirrored WHERE client_request_id = ?", (client_request_id,)
            ).fetchone()
        return row["name"] if row else None

    def named(self, client_request_id: str) -> tuple[str, Entry] | None:
        name = self.name(client_request_id)
        entry = self.submission(client_request_id) if name else None
        return (name, entry) if name and entry else None


def _prepare(db: sqlite3.Connection) -> None:
    sqlite_rows.prepare(db)
    db.execute(_TABLE)
    db.execute(_SAVED)
    db.execute(_UNSENT)
    db.execute(_CLAIMED)


def _row(db: sqlite3.Connection, client_request_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM submissions WHERE client_request_id = ?", (client_request_id,)
    ).fetchone()
    return row


def _result(entry: Entry) -> tuple[object, ...]:
    """What can change of a record, but for its path, which is another one on each machine."""
    return entry.state, entry.generation_id, entry.usage, entry.error, entry.size, entry.sha256


def _found_here(db: sqlite3.Connection, entry: Entry) -> Entry:
    row = db.execute(
        "SELECT path FROM saved_here WHERE client_request_id = ?",
        (entry.record.client_request_id,),
    ).fetchone()
    return replace(entry, path=Path(row["path"])) if row else entry
