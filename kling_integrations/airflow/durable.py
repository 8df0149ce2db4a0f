"""The record of a task's payment, written to several stores at once.

A clear may empty Airflow's task state store, a disk may be another machine's: what one store has
lost, another one still knows. What a record says to do is decided in ``core.submission``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import KlingError
from ..core.submission import Record, State
from . import version_compat
from .record_places import Places, RecordAt, open_shared, places
from .task_identity import TaskIdentity

if TYPE_CHECKING:
    from airflow.sdk import Context

KEY = "kling_submission"
"""The record's key in the task state store, since the first release."""

# Seconds before each further try to write what is already paid for.
_PAUSES = (0.2, 1.0)

# A state store is bounded; the ids of that many earlier POSTs are kept.
_MOST_POSTS = 100

_PAID = (State.SUBMITTED, State.COMPLETED)
_KNOWN = (State.INTENT, *_PAID)
_PROGRESS = {State.INTENT: 0, State.SUBMITTED: 1}


@dataclass(frozen=True, slots=True)
class StoredSubmission:
    """A record, and from when (Unix seconds) the timeout of the wait counts.

    ``revision`` counts the writes over all stores, so that no clock decides which of two is the
    later; earlier versions wrote none. ``attempt`` and ``try_number`` are those of the attempt
    that wrote it, ``earlier_posts`` the client request ids of what stood here before.
    ``given_up``: the task wants something else now, and another instance of it may have this.
    ``clears`` is the run's number of clears then, None where it is not known.
    """

    record: Record
    waiting_since: float
    revision: int | None = None
    attempt: str = ""
    try_number: int = 0
    earlier_posts: tuple[str, ...] = ()
    given_up: bool = False
    clears: int | None = None

    def is_cleared(self, task: TaskIdentity) -> bool:
        """Whether a user cleared the task since: what runs now is no retry.

        Airflow sets max_tries to the tries so far and the task's retries at a clear, and leaves it
        alone at a retry. With fewer retries than before that can be what it was: then the number
        of the run's clears tells, together with the tries that are left, because a clear of
        another task of the run counts there, too. A run that was deleted and made anew begins
        again with the first try. An attempt's id stays the same over a deferral.
        """
        if task.try_number <= self.try_number and self.attempt not in ("", task.attempt):
            return True
        if self.record.max_tries != task.max_tries:
            return True
        if self.attempt == task.attempt or self.clears is None or task.clears is None:
            return False
        return task.clears > self.clears and task.has_all_tries

    def to_json(self) -> dict[str, Any]:
        stored = {**self.record.to_json(), "since": self.waiting_since}
        if self.revision is not None:
            stored |= {"revision": self.revision}
        if self.attempt:
            stored |= {"attempt": self.attempt, "try_number": self.try_number}
        if self.earlier_posts:
            stored |= {"earlier_posts": list(self.earlier_posts)}
        if self.given_up:
            stored |= {"given_up": True}
        if self.clears is not None:
            stored |= {"clears": self.clears}
        return stored

    @classmethod
    def from_json(cls, stored: object) -> StoredSubmission:
        """Raises LedgerError for anything else."""
        record = Record.from_json(stored)
        more: Mapping[str, Any] = stored if isinstance(stored, Mapping) else {}
        since, posts = more.get("since"), more.get("earlier_posts")
        return cls(
            record,
            float(since) if isinstance(since, int | float) else record.created_at,
            _whole(more.get("revision")),
            str(more.get("attempt") or ""),
            _whole(more.get("try_number")) or 0,
            tuple(map(str, posts)) if isinstance(posts, list) else (),
            more.get("given_up") is True,
            _whole(more.get("clears")),
        )


def latest(found: Iterable[StoredSubmission]) -> StoredSubmission | None:
    """The one that was written last.

    An intent is in every store before its POST leaves. So a record without a revision, of another
    POST than those with one, is later than they: an earlier version wrote it after a downgrade.
    """
    found = list(found)
    counted = [one for one in found if one.revision is not None]
    posts = {one.record.client_request_id for one in counted}
    if others := [one for one in found if one.record.client_request_id not in posts]:
        return max(others, key=_order)
    if not counted:
        return None
    post = max(counted, key=lambda one: one.revision or 0).record.client_request_id
    return max((one for one in found if one.record.client_request_id == post), key=_order)


class SubmissionStore:
    """``places`` are those of one record; none keeps it in memory, for this attempt only.

    ``current`` is what was last read, or what was to be written last.
    """

    def __init__(self, places: Places | None = None, log: Any = None) -> None:
        self.kept = places.kept if places else None
        self.shared = places.shared if places else None
        self._places = list(places.records) if places else []
        self._task = places.task if places else None
        self._log = log or logging.getLogger(__name__)
        self._unread: dict[RecordAt, KlingError] = {}
        self._revision = 0
        self.current: StoredSubmission | None = None

    @classmethod
    def of(
        cls, context: Context, record_path: str | None, output_path: str | None, log: Any
    ) -> SubmissionStore:
        """That of the task instance that runs in this context."""
        task, states = TaskIdentity.of(context), version_compat.task_state_store(context)
        shared = open_shared(record_path, output_path, log)
        return cls(places(task, states, KEY, shared), log)

    @property
    def is_durable(self) -> bool:
        return bool(self._places)

    @property
    def is_all_read(self) -> bool:
        """Whether each place could be read: only then is a record that is not found not there."""
        return not self._unread

    def load(self) -> StoredSubmission | None:
        """None where there is no record.

        Raises LedgerError where a place cannot be read and none of the others knows of something
        that is paid for: unreadable is not absent.
        """
        found: list[StoredSubmission] = []
        self._unread = {}
        for place in self._places:
            try:
                value = place.read()
                if value is not None:
                    found.append(StoredSubmission.from_json(value))
            except KlingError as error:
                self._unread[place] = error
        self._revision = max((one.revision or 0 for one in found), default=0)
        self.current = latest(found)
        if self.current is None or self.current.record.state not in _KNOWN:
            self.require_all()
        for place, trouble in self._unread.items():
            self._log.warning(
                "%s cannot be read: %s Going on with what is recorded elsewhere.",
                place,
                trouble.message,
            )
        return self.current

    def require_all(self) -> None:
        """Raises the error of a place that cannot be read: it may know of a payment."""
        for error in self._unread.values():
            raise error

    @property
    def paid_id(self) -> str | None:
        """The id of a generation that is paid for, or will be, by the current record."""
        record = self.current.record if self.current else None
        return record.generation_id if record and record.state in _PAID else None

    def record_of(self, generation_id: str) -> Record | None:
        """The record of what a trigger has waited for; None where there is none.

        It is paid for and is delivered without a record, too: a store that fails is a warning. An
        intent is completed: its id could not be written when it was known.
        """
        try:
            stored = self.load()
        except KlingError as error:
            self._log.warning("The task's record cannot be read: %s", error.message)
            return None
        if stored is None:
            return None
        if stored.record.state is State.INTENT:
            return self.note(stored.record.submitted(generation_id))
        return stored.record if stored.record.generation_id == generation_id else None

    def also_in(self, place: RecordAt) -> None:
        """From now on the record is written there, too."""
        self._places.append(place)

    def intend(self, record: Record, *more: RecordAt) -> None:
        """Writes the intent to each place, and to ``more``, before its POST may leave.

        Raises LedgerError where one of them cannot be read or written; then nothing is to be
        posted, and what was there before is put back.
        """
        self.require_all()
        for place in (*self._places, *more):
            place.probe()
        before = self.current
        self._places += more
        self.current = self._next(record, record.created_at)
        value = self.current.to_json()
        try:
            for place in self._places:
                place.write(value)
        except Exception:
            if before is None:
                self.note(record.ended(State.REFUSED))
            else:
                self.note(before.record, before.waiting_since)
            raise

    def note(self, record: Record, waiting_since: float | None = None) -> Record:
        """Writes what has happened already: a store that fails is a warning then.

        Without ``waiting_since`` the wait goes on counting as it did. The task goes on with the
        record in its memory, for the video is paid for.
        """
        if waiting_since is None:
            waiting_since = self.current.waiting_since if self.current else record.created_at
        self.current = self._next(record, waiting_since)
        # What could not be read is not overwritten: it may be all that is known of a payment.
        places = [place for place in self._places if place not in self._unread]
        failing = write_each(places, self.current.to_json(), pause=time.sleep)
        self._warn(record, failing)
        return record

    def give_up(self) -> None:
        """Lets other instances have what the current record names. Raises LedgerError."""
        if self.current is None:
            return
        stored = self._next(self.current.record, self.current.waiting_since)
        self.current = replace(stored, given_up=True)
        for place in self._places:
            place.write(self.current.to_json())

    def update(self, **fields: Any) -> None:
        """Notes fields of the current record, where there is one."""
        if self.current:
            self.note(replace(self.current.record, **fields))

    def _next(self, record: Record, waiting_since: float) -> StoredSubmission:
        self._revision += 1
        attempt = self._task.attempt if self._task else ""
        tried = self._task.try_number if self._task else 0
        earlier: tuple[str, ...] = ()
        if self.current is not None:
            before = self.current.record.client_request_id
            earlier = self.current.earlier_posts
            if before not in (record.client_request_id, *earlier):
                earlier = (*earlier, before)[-_MOST_POSTS:]
        clears = self._task.clears if self._task else None
        return StoredSubmission(
            record, waiting_since, self._revision, attempt, tried, earlier, clears=clears
        )

    def _warn(self, record: Record, failing: Mapping[RecordAt, Exception]) -> None:
        if not failing:
            return
        where = "; ".join(
            f"{place}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            for place, error in failing.items()
        )
        self._log.warning(
            "The record of this task cannot be written (%s). The task goes on. If it is tried "
            "again, it looks for the client request id %s in the gateway's log before anything is "
            "submitted.%s",
            where,
            record.client_request_id,
            f" Keep the id of the generation: {record.generation_id}."
            if record.generation_id
            else "",
        )


def write_each(
    places: Iterable[RecordAt], value: Mapping[str, Any], *, pause: Callable[[float], object]
) -> dict[RecordAt, Exception]:
    """Writes to each place by itself, again after a pause; the errors of those that failed."""
    left = list(places)
    failed: dict[RecordAt, Exception] = {}
    for seconds in (0.0, *_PAUSES):
        if not left:
            break
        pause(seconds)
        failed = {}
        for place in left:
            try:
                place.write(value)
            except Exception as error:  # noqa: BLE001 (a driver may raise anything)
                failed[place] = error
        left = list(failed)
    return failed


def _order(stored: StoredSubmission) -> tuple[int, int]:
    return (_PROGRESS.get(stored.record.state, 2), stored.revision or 0)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
