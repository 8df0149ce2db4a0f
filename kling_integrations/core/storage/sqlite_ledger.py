"""Submission records in SQLite: the ledger of one machine.

A row stands before each POST, gets the id right after the reply, then the outcome and the file.
Within one machine a lock per request makes several processes that ask for the same thing at the
same moment send one POST: the lock is the operating system's, so it falls with its holder.
"""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import identity, settings, submission
from ..errors import GenerationFailedError, KlingWarning, LedgerError, NextStep, Verb
from ..submission import Action, Decision, Entry, Owner, Record, State
from . import saved_files
from .request_lock import RequestLock
from .sqlite_file import SqliteFile, make_private

if TYPE_CHECKING:
    from ..generation import Generation, Saved
    from ..request import VideoRequest

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


class SqliteLedger:
    """The records of one user, in ``KLING_HOME`` unless a path is given.

    Raises LedgerError when the file is corrupt, read-only or unreadable: without it, what was
    paid for is unknown, so nothing may be submitted in silence.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._given = Path(path) if path else None
        self._file = SqliteFile(lambda: self.path, prepare)

    @property
    def path(self) -> Path:
        return self._given or settings.home() / "ledger.sqlite3"

    # --- claiming --------------------------------------------------------------------------

    def preview(
        self, request: VideoRequest, base_url: str, *, new: bool = False, take: int = 1
    ) -> Decision:
        """What a submit of this request would do now; writes nothing.

        For every question before a payment: ``decision.pays`` says whether a POST
        would leave, ``decision.entry`` is the record that decides. ``new`` and ``take`` as for
        ``KlingClient.submit``. Another process may be quicker in between.
        """
        with self._file.transaction() as db:
            return _decide(db, request, base_url, new=new, take=take)

    def prefetch(self, base_url: str, requests: Iterable[tuple[str, int]]) -> SqliteLedger:
        """See ``Ledger.prefetch``: a file of this machine is quick enough."""
        return self

    def lock(self, request: VideoRequest | Record) -> RequestLock:
        """The lock under which this request, or that of this record, is decided and posted."""
        home = self.path.parent
        try:
            make_private(home)
            (home / "locks").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LedgerError(
                f"The ledger's folder cannot be written: {error}.",
                next_steps=[NextStep(Verb.SET_HOME)],
            ) from error
        # A file per request, so that unrelated ones never wait for each other. They are kept:
        # removing one races with a process that opens it at that moment.
        return RequestLock(home / "locks" / f"{request.fingerprint[:16]}.lock")

    def claim(
        self,
        request: VideoRequest,
        base_url: str,
        *,
        new: bool = False,
        take: int = 1,
        key_hash: str | None = None,
    ) -> tuple[Decision, Record]:
        """What the records say, and the intent that is written when that is to submit.

        Hold the request's lock from before this call until the POST has an outcome. Raises
        SubmissionUncertainError when an earlier POST has no known outcome (unless ``new``).
        """
        record = Record.intent(request)
        with self._file.transaction() as db:
            decision = _decide(db, request, base_url, new=new, take=take)
            entry = decision.entry
            if decision.action is Action.REFUSE:
                assert entry is not None
                raise submission.refusal(entry.record)
            if decision.action is Action.SUBMIT:
                intent = Entry.intent(request, record, base_url, take, key_hash)
                insert(db, intent)
        return decision, record

    # --- writing what became of it ---------------------------------------------------------

    def advance(self, record: Record) -> None:
        """Writes what became of a submission: its id, or its end."""
        submitted_at = record.created_at if record.state is State.SUBMITTED else None
        with self._file.transaction() as db:
            db.execute(
                "UPDATE submissions SET state = ?, generation_id = ?, "
                "submitted_at = coalesce(?, submitted_at) WHERE client_request_id = ?",
                (record.state.value, record.generation_id, submitted_at, record.client_request_id),
            )
            if record.state is State.SUBMITTED:
                # Only now that another one is taken is an older POST in doubt given up.
                db.execute(
                    # Found by what it asked for, which is indexed: a batch has thousands.
                    "UPDATE submissions SET state = 'abandoned' WHERE state = 'intent' "
                    "AND rowid < (SELECT rowid FROM submissions WHERE client_request_id = ?1) "
                    "AND (base_url, fingerprint, take) = (SELECT base_url, fingerprint, take "
                    "FROM submissions WHERE client_request_id = ?1)",
                    (record.client_request_id,),
                )

    def completed(self, base_url: str, generation: Generation, elapsed: float | None) -> None:
        """The generation is finished; ``elapsed`` seconds after its submit, where watched."""
        usage = generation.usage.to_json() if generation.usage else {}
        with self._file.transaction() as db:
            db.execute(
                "UPDATE submissions SET state = ?, usage = ?, elapsed = coalesce(elapsed, ?) "
                "WHERE base_url IN (?, ?) AND generation_id = ?",
                (
                    State.COMPLETED.value,
                    json.dumps(usage),
                    elapsed,
                    *_accounts(base_url),
                    generation.id,
                ),
            )

    def wait_failed(self, base_url: str, error: BaseException) -> None:
        """Marks the end of a failed generation; any other error leaves it running."""
        if isinstance(error, GenerationFailedError):
            with self._file.transaction() as db:
                db.execute(
                    "UPDATE submissions SET state = ?, error = ?, error_kind = ? "
                    "WHERE base_url IN (?, ?) AND generation_id = ?",
                    (
                        State.FAILED.value,
                        error.message,
                        error.kind,
                        *_accounts(base_url),
                        error.generation_id,
                    ),
                )

    def forget(self, entry: Entry) -> None:
        """Gives a record up, at the user's word: it is neither waited for nor looked up again.

        The row stays, for the history. The next submit of the same request pays.
        """
        self.advance(entry.record.ended(State.FORGOTTEN))

    def saved(self, base_url: str, generation_id: str, saved: Saved) -> None:
        with self._file.transaction() as db:
            db.execute(
                "UPDATE submissions SET path = ?, size = ?, sha256 = ? "
                "WHERE base_url IN (?, ?) AND generation_id = ?",
                (
                    str(saved.path.resolve()),
                    saved.size,
                    saved.sha256,
                    *_accounts(base_url),
                    generation_id,
                ),
            )

    # --- reading ---------------------------------------------------------------------------

    def entry(self, base_url: str, generation_id: str) -> Entry | None:
        rows = self._rows(
            "base_url IN (?, ?) AND generation_id = ?", (*_accounts(base_url), generation_id)
        )
        return rows[0] if rows else None

    def at(self, path: Path) -> list[Entry]:
        """The generations whose video was saved as this file, or is a copy of it by content."""
        names = (str(path.resolve()), str(path.absolute()))
        try:
            size = path.stat().st_size
        except OSError:
            size = -1
        return [
            entry
            for entry in self._rows("path IN (?, ?) OR size = ?", (*names, size))
            if str(entry.path) in names or saved_files.is_video_of(path, entry)
        ]

    def with_content(self, sha256: str) -> list[Entry]:
        """The generations whose video has this checksum."""
        return self._rows("sha256 = ?", (sha256,))

    def history(self, limit: int = 20, search: str = "", model: str = "") -> list[Entry]:
        """The newest first; ``search`` looks in prompts and ids, ``model`` in model ids."""
        return self._rows(
            "instr(lower(coalesce(prompt, '') || ' ' || coalesce(generation_id, '')), ?) > 0 "
            "AND instr(lower(model), ?) > 0",
            (search.lower(), model.lower()),
            limit,
            strict=False,
        )

    def running(self, base_url: str) -> list[Entry]:
        return self._rows("base_url IN (?, ?) AND state = 'submitted'", _accounts(base_url))

    def uncertain(self, base_url: str) -> list[Entry]:
        """Submissions without a known outcome, those that the user paid past included."""
        return self._rows(
            "base_url IN (?, ?) AND state IN ('intent', 'abandoned')", _accounts(base_url)
        )

    def finished(self, base_url: str, model: str, duration: int | None) -> list[float]:
        """Seconds, the queue apart, that the last 50 watched ones took; the newest last."""
        rows = self._rows(
            "base_url IN (?, ?) AND model = ? AND duration IS ? AND elapsed IS NOT NULL",
            (*_accounts(base_url), model, duration),
            50,
            strict=False,
        )
        return [entry.elapsed for entry in reversed(rows) if entry.elapsed]

    def _rows(
        self, where: str, values: tuple[Any, ...], limit: int = 1000, *, strict: bool = True
    ) -> list[Entry]:
        """``strict``: an unreadable record is an error; else it is left out, with a warning."""
        with self._file.transaction() as db:
            rows = db.execute(
                f"SELECT * FROM submissions WHERE {where} "  # noqa: S608 (fixed texts only)
                "ORDER BY rowid DESC LIMIT ?",  # not by time: clocks are set back
                (*values, limit),
            ).fetchall()
        entries = []
        for row in rows:
            try:
                entries.append(_entry(row))
            except LedgerError as error:
                if strict:
                    raise
                warnings.warn(error.message, KlingWarning, stacklevel=3)
        return entries


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


def _decide(
    db: sqlite3.Connection, request: VideoRequest, base_url: str, *, new: bool, take: int
) -> Decision:
    # The newest record decides; one that was refused or failed says nothing about those before it:
    # a video that is paid for stays the answer when another one was asked for and failed.
    forms = ", ".join("?" * len(request.fingerprints))
    row = db.execute(
        f"SELECT * FROM submissions WHERE fingerprint IN ({forms}) "  # noqa: S608 (marks only)
        "AND base_url IN (?, ?) AND take = ? "
        "AND state NOT IN ('refused', 'abandoned', 'forgotten') "
        "ORDER BY state = 'failed', rowid DESC",
        (*request.fingerprints, *_accounts(base_url), take),
    ).fetchone()
    entry = _entry(row) if row else None
    decision = submission.decide(
        entry.record if entry else None,
        request.fingerprints,
        new=new,
        saved=saved_files.saved_file(entry) is not None,
    )
    return replace(decision, entry=entry)


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


def _accounts(base_url: str) -> tuple[str, str]:
    """The gateway as records name it today, and as an older version wrote it."""
    return identity.account(base_url), base_url


def _entry(row: sqlite3.Row) -> Entry:
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
