"""Submission records in SQLite: the ledger of one machine.

A row stands before each POST, gets the id right after the reply, then the outcome and the file.
Within one machine a lock per request makes several processes that ask for the same thing at the
same moment send one POST: the lock is the operating system's, so it falls with its holder.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import identity, settings, submission
from ..errors import (
    GenerationFailedError,
    KlingWarning,
    LedgerError,
    LedgerUnreachableError,
    NextStep,
    Verb,
)
from ..submission import Action, Decision, Entry, Record, State
from . import saved_files
from .sqlite_file import SqliteFile, make_private
from .sqlite_rows import entry_of, insert, prepare

if TYPE_CHECKING:
    from ..generation import Generation, Saved, Usage
    from ..request import VideoRequest

_REMEMBERED = 2000  # submissions of this process that a replaced file gets anew


class RequestLock:
    """Held by one process while it decides about a request and posts it.

    The lock is the operating system's, so it falls with its holder.
    """

    def __init__(self, file: Path) -> None:
        from filelock import FileLock  # it loads asyncio, which a look at the history does not need

        self._lock = FileLock(file, thread_local=False, mode=0o600)

    def try_acquire(self) -> bool:
        """Raises LedgerError where the lock's file cannot be made, or its disk has no locks."""
        from filelock import Timeout

        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise LedgerUnreachableError(
                f"The lock {self._lock.lock_file} cannot be taken: {error}.",
                hint="It keeps two processes from paying for the same video, so nothing is "
                "submitted without it.",
                next_steps=[NextStep(Verb.SET_HOME)],
            ) from error
        return True

    def release(self) -> None:
        self._lock.release()


class SqliteLedger:
    """The records of one user, in ``KLING_HOME`` unless a path is given.

    Raises LedgerError when the file is corrupt, read-only or unreadable: without it, what was
    paid for is unknown, so nothing may be submitted in silence.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._given = Path(path) if path else None
        self._file = SqliteFile(lambda: self.path, prepare)
        self._written: dict[str, Entry] = {}  # what this process wrote last, by request

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
        with self._file.reading() as db:
            row = _deciding(db, request, base_url, take)
        return _decision(row, request, new)

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
        resubmit: str | None = None,
    ) -> tuple[Decision, Record]:
        """What the records say, and the intent that is written when that is to submit.

        Hold the request's lock from before this call until the POST has an outcome. Raises
        SubmissionUncertainError when an earlier POST has no known outcome, unless ``new``, or where
        it is the one of the client request id ``resubmit``.
        """
        record = Record.intent(request)
        intent = Entry.intent(request, record, base_url, take, key_hash)
        while True:
            with self._file.reading() as db:
                row = _deciding(db, request, base_url, take)
            # Outside of any transaction: it may read a video on a slow disk.
            decision = _decision(row, request, new, resubmit)
            if decision.action is Action.REFUSE:
                assert decision.entry is not None
                raise submission.refusal(decision.entry.record)
            if decision.action is not Action.SUBMIT:
                return decision, record
            with self._file.transaction() as db:
                if _deciding(db, request, base_url, take) == row:
                    insert(db, intent)
                    self._remember(intent)
                    return decision, record

    def is_submitting(self, entry: Entry) -> bool:
        """Whether a living process is at this submission: it holds the request's lock."""
        if entry.state is not State.INTENT:
            return False
        lock = self.lock(entry.record)
        if not lock.try_acquire():
            return True
        lock.release()
        return False

    # --- writing what became of it ---------------------------------------------------------

    def advance(self, record: Record) -> None:
        """Writes what became of a submission: its id, or its end.

        Raises SubmissionUncertainError for an id that another submission has.
        """
        submitted_at = record.created_at if record.state is State.SUBMITTED else None
        own = record.client_request_id
        with self._file.transaction() as db:
            stored = self._stored(db, own)
            if stored is None:
                raise LedgerError(f"The ledger does not hold the submission {own}.")
            if _has_other(db, stored.base_url, record):
                raise submission.shared_id(record)
            entry = stored.updated(replace(stored, record=record, submitted_at=submitted_at))
            insert(db, entry)
            if record.state is State.SUBMITTED:
                # Only now that another one is taken is an older POST in doubt given up.
                db.execute(
                    # Found by what it asked for, which is indexed: a batch has thousands.
                    "UPDATE submissions SET state = 'abandoned' WHERE state = 'intent' "
                    "AND rowid < (SELECT rowid FROM submissions WHERE client_request_id = ?1) "
                    "AND (base_url, fingerprint, take) = (SELECT base_url, fingerprint, take "
                    "FROM submissions WHERE client_request_id = ?1)",
                    (own,),
                )
        self._remember(entry)

    def completed(self, base_url: str, generation: Generation, elapsed: float | None) -> None:
        """The generation is finished; ``elapsed`` seconds after its submit, where watched."""
        usage = known_usage(generation.usage)

        def change(entry: Entry) -> Entry:
            record = entry.record.ended(State.COMPLETED)
            return replace(entry, record=record, usage=usage, elapsed=elapsed)

        self._change(base_url, generation.id, change)

    def wait_failed(self, base_url: str, error: BaseException) -> None:
        """Marks the end of a failed generation; any other error leaves it running."""
        if isinstance(error, GenerationFailedError) and error.generation_id:
            self._change(base_url, error.generation_id, partial(failed, error=error))

    def forget(self, entry: Entry) -> None:
        """Gives a record up, at the user's word: it is neither waited for nor looked up again.

        The row stays, for the history. The next submit of the same request pays. Raises LedgerError
        where the record is another one by now than the user saw.
        """
        with self._file.transaction() as db:
            stored = self._stored(db, entry.record.client_request_id) or entry
            check_unchanged(stored, entry)
            insert(db, replace(stored, record=stored.record.ended(State.FORGOTTEN)))

    def saved(self, base_url: str, generation_id: str, saved: Saved) -> None:
        path = saved.path.resolve()

        def change(entry: Entry) -> Entry:
            return replace(entry, path=path, size=saved.size, sha256=saved.sha256)

        self._change(base_url, generation_id, change)

    def _change(self, base_url: str, generation_id: str, change: Callable[[Entry], Entry]) -> None:
        """Changes what is stored of a generation; one that the ledger never had is left alone."""
        with self._file.transaction() as db:
            stored = [entry_of(row) for row in _of_generation(db, base_url, generation_id)]
            if not stored:
                accounts = _accounts(base_url)
                lost = [
                    entry
                    for entry in list(self._written.values())  # other threads write into it
                    if entry.generation_id == generation_id and entry.base_url in accounts
                ]
                stored = [self._put_back(entry) for entry in lost]
            changed = [entry.updated(change(entry)) for entry in stored]
            for entry in changed:
                insert(db, entry)
        for entry in changed:
            if entry.record.client_request_id in self._written:
                self._remember(entry)

    def _stored(self, db: sqlite3.Connection, client_request_id: str) -> Entry | None:
        """A submission as the file has it, or as this process wrote it into one that is gone."""
        row = db.execute(
            "SELECT * FROM submissions WHERE client_request_id = ?", (client_request_id,)
        ).fetchone()
        if row is not None:
            return entry_of(row)
        written = self._written.get(client_request_id)
        return None if written is None else self._put_back(written)

    def _put_back(self, entry: Entry) -> Entry:
        """Says that a record is written anew: the file was replaced or restored meanwhile."""
        warnings.warn(
            f"The ledger {self.path} is another one than before: it did not hold what this process "
            f"wrote of {entry.generation_id or entry.record.client_request_id}, which is written "
            "into it anew. What other processes wrote may be missing.",
            KlingWarning,
            stacklevel=5,
        )
        return entry

    def _remember(self, entry: Entry) -> None:
        self._written[entry.record.client_request_id] = entry
        while len(self._written) > _REMEMBERED:
            with suppress(KeyError, RuntimeError):  # another thread was quicker
                del self._written[next(iter(self._written))]

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

    def submission(self, client_request_id: str) -> Entry | None:
        """The record of one submission."""
        found = self._rows("client_request_id = ?", (client_request_id,))
        return found[0] if found else None

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
        """Submissions without a known outcome, those that the user paid past included.

        What a living process is submitting at this moment is none of them.
        """
        found = self._rows(
            "base_url IN (?, ?) AND state IN ('intent', 'abandoned')", _accounts(base_url)
        )
        return [entry for entry in found if not self.is_submitting(entry)]

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
        self, where: str, values: tuple[Any, ...], limit: int | None = None, *, strict: bool = True
    ) -> list[Entry]:
        """``strict``: an unreadable record is an error; else it is left out, with a warning."""
        with self._file.reading() as db:
            rows = db.execute(
                f"SELECT * FROM submissions WHERE {where} "  # noqa: S608 (fixed texts only)
                "ORDER BY rowid DESC LIMIT ?",  # not by time: clocks are set back
                (*values, -1 if limit is None else limit),  # -1: all of them
            ).fetchall()
        entries = []
        for row in rows:
            try:
                entries.append(entry_of(row))
            except LedgerError as error:
                if strict:
                    raise
                warnings.warn(error.message, KlingWarning, stacklevel=3)
        return entries


def _deciding(
    db: sqlite3.Connection, request: VideoRequest, base_url: str, take: int
) -> sqlite3.Row | None:
    """The row that says what to do about a request."""
    # The newest record decides; one that was refused or failed says nothing about those before it:
    # a video that is paid for stays the answer when another one was asked for and failed.
    forms = ", ".join("?" * len(request.fingerprints))
    row: sqlite3.Row | None = db.execute(
        f"SELECT * FROM submissions WHERE fingerprint IN ({forms}) "  # noqa: S608 (marks only)
        "AND base_url IN (?, ?) AND take = ? "
        "AND state NOT IN ('refused', 'abandoned', 'forgotten') "
        "ORDER BY state = 'failed', rowid DESC",
        (*request.fingerprints, *_accounts(base_url), take),
    ).fetchone()
    return row


def _decision(
    row: sqlite3.Row | None, request: VideoRequest, new: bool, resubmit: str | None = None
) -> Decision:
    """What it says to do; reads the saved video, so never inside a transaction."""
    entry = entry_of(row) if row else None
    decision = submission.decide(
        entry.record if entry else None,
        request.fingerprints,
        new=new,
        saved=saved_files.saved_file(entry) is not None,
        resubmit_uncertain=entry is not None and entry.record.client_request_id == resubmit,
    )
    return replace(decision, entry=entry)


def _of_generation(db: sqlite3.Connection, base_url: str, generation_id: str) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT * FROM submissions WHERE base_url IN (?, ?) AND generation_id = ?",
        (*_accounts(base_url), generation_id),
    ).fetchall()


def _has_other(db: sqlite3.Connection, base_url: str, record: Record) -> bool:
    """Whether the generation of this record is another submission's."""
    own, generation_id = record.client_request_id, record.generation_id
    return generation_id is not None and any(
        row["client_request_id"] != own for row in _of_generation(db, base_url, generation_id)
    )


def known_usage(usage: Usage | None) -> dict[str, float]:
    return {name: float(value) for name, value in (usage.to_json() if usage else {}).items()}


def failed(entry: Entry, error: GenerationFailedError) -> Entry:
    """The entry of a generation that failed; one that is completed stays so."""
    record = entry.record.updated(entry.record.ended(State.FAILED))
    if record.state is not State.FAILED:
        return entry
    usage = known_usage(error.usage)
    return replace(entry, record=record, error=error.message, error_kind=error.kind, usage=usage)


def check_unchanged(stored: Entry, seen: Entry) -> None:
    """Raises LedgerError where a record went on since somebody looked at it."""
    open_ = (State.INTENT, State.ABANDONED)
    if stored.state is not seen.state and not (stored.state in open_ and seen.state in open_):
        raise LedgerError(
            f"The record went on meanwhile: it is {stored.state} now"
            + (f", generation {stored.generation_id}." if stored.generation_id else "."),
            hint="Look at it again first.",
        )


def _accounts(base_url: str) -> tuple[str, str]:
    """The gateway as records name it today, and as an older version wrote it."""
    return identity.account(base_url), base_url
