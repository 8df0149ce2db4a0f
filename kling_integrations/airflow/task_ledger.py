"""The ledger of a client in a task of one's own, kept where an operator keeps its record.

An operator makes one video and keeps one record. A ``@task`` may make several: here each request
has its own record, and all of them are one value in each store, as the first release wrote them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core import settings, submission
from ..core.errors import GenerationFailedError, LedgerError
from ..core.generation import Generation, Saved
from ..core.records import unreachable
from ..core.request import VideoRequest
from ..core.submission import Action, Decision, Entry, Record, State
from . import durable, earlier_tries, version_compat
from .durable import StoredSubmission
from .record_places import Places, RecordAt, open_shared, places
from .task_identity import TaskIdentity

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient

KEY = "kling_submissions"

_SANDBOX = "sandbox:"
_PAID = (State.INTENT, State.SUBMITTED, State.COMPLETED)

log = logging.getLogger(__name__)


class NoLock:
    """One process runs a task instance, and the ledger's own lock orders its threads."""

    def try_acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


class TaskLedger:
    """What ``core.flows`` needs of a ledger, for the requests of one task instance.

    The same request is the same payment over all attempts of the task; ``take=2`` or ``new=True``
    ask for another one. Every method raises LedgerError where the store fails.
    ``client`` is the one that uses this ledger: it can tell what earlier tries submitted.
    """

    def __init__(self, places: Places) -> None:
        self.client: KlingClient | None = None
        self._places = places
        self._records: dict[str, StoredSubmission] | None = None
        self._unread: dict[RecordAt, LedgerError] = {}
        self._used: set[str] = set()  # ids of POSTs of this process
        self._keys: dict[str, str] = {}  # of the records, by client request id
        self._lock = threading.RLock()

    @classmethod
    def of(cls, context: Context, record_path: str | None) -> TaskLedger:
        """That of the task instance that runs in this context."""
        task, states = TaskIdentity.of(context), version_compat.task_state_store(context)
        shared = open_shared(record_path, None, log)
        return cls(places(task, states, KEY, shared, ".submissions"))

    def lock(self, request: VideoRequest) -> NoLock:
        return NoLock()

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
        """See ``core.storage.ledger.Ledger.claim``; one task has one connection, so no key.

        Raises ServerError and RateLimitedError, too: a later try without a record of the request
        asks the gateway's log for the POSTs of those before it.
        """
        with self._lock:
            records = self._load()
            keys = [_key(fingerprint, base_url, take) for fingerprint in request.fingerprints]
            key = next((key for key in keys if key in records), keys[0])
            record = records[key].record if key in records else None
            if record is None and not new:
                record = self._of_earlier_tries(key, request, take)
            decision = submission.decide(
                record,
                request.fingerprints,
                new=new,
                resubmit_uncertain=record is not None and record.client_request_id == resubmit,
            )
            if record is not None and decision.action is Action.REFUSE:
                raise submission.refusal(record)
            if record is not None and decision.picks_up:
                return replace(decision, entry=_entry(record, base_url, take)), record
            intent = Record.intent(request, client_request_id=self._new_post(request, take))
            if record is not None and record.generation_id:
                intent = replace(intent, replaced=(*record.replaced, record.generation_id))
            self._intend(key, intent)
            return decision, intent

    def of_take(
        self, base_url: str, take: int, *, fingerprint: str | None, since: float
    ) -> Record | None:
        """What is paid for as this take, or may be; None where nothing is.

        It is found without its request, whose picture may be gone: by the request's fingerprint
        where one is known, else by the time (Unix seconds) before which it cannot have left.
        """
        with self._lock:
            found = [
                stored.record
                for key, stored in self._load().items()
                if key == _key(key.removeprefix(_SANDBOX).rpartition(":")[0], base_url, take)
                and stored.record.state in _PAID
                and fingerprint in (None, stored.record.fingerprint)
                and (fingerprint is not None or stored.record.created_at >= since)
            ]
            return max(found, key=lambda record: record.created_at, default=None)

    def advance(self, record: Record) -> None:
        with self._lock:
            self._load()
            self._note(self._keys[record.client_request_id], record)

    def completed(self, base_url: str, generation: Generation, elapsed: float | None) -> None:
        self._end(generation.id, State.COMPLETED)

    def wait_failed(self, base_url: str, error: BaseException) -> None:
        if isinstance(error, GenerationFailedError) and error.generation_id:
            self._end(error.generation_id, State.FAILED)

    def saved(self, base_url: str, generation_id: str, saved: Saved) -> None:
        """Where a file went is the task's own matter."""

    def entry(self, base_url: str, generation_id: str) -> Entry | None:
        record = self._of(generation_id)
        return _entry(record, base_url, 1) if record else None

    def finished(self, base_url: str, model: str, duration: int | None) -> list[float]:
        return []  # what one task has seen is no measure

    def uncertain(self, base_url: str) -> list[Entry]:
        with self._lock:
            return [
                _entry(stored.record, base_url, 1)
                for stored in self._load().values()
                if stored.record.state is State.INTENT
            ]

    def submission(self, client_request_id: str) -> Entry | None:
        with self._lock:
            records = [stored.record for stored in self._load().values()]
        found = (each for each in records if each.client_request_id == client_request_id)
        record = next(found, None)
        return _entry(record, "", 1) if record else None

    def is_submitting(self, entry: Entry) -> bool:
        return False  # one task instance is one process

    # --- earlier tries -------------------------------------------------------------------------

    def _new_post(self, request: VideoRequest, take: int) -> str | None:
        """The id of this try's POST of the request; None for a second one, which gets its own."""
        post = self._places.task.client_request_id(request.fingerprint, take)
        used = {stored.record.client_request_id for stored in self._load().values()} | self._used
        self._used.add(post)
        return None if post in used else post

    def _of_earlier_tries(self, key: str, request: VideoRequest, take: int) -> Record | None:
        task = self._places.task
        if self.client is None or task.try_number == 1:
            return None
        self._require_all()
        found = earlier_tries.submitted(self.client, task, request.fingerprints, log, take=take)
        for client_request_id, generation_id in found:
            record = Record.intent(request, client_request_id=client_request_id)
            record = earlier_tries.with_outcome(self.client, record.submitted(generation_id))
            if record.state is not State.FAILED:
                log.info("The gateway's log names what an earlier try submitted: %s", generation_id)
                self._note(key, record)
                return record
        return None

    # --- the stores ----------------------------------------------------------------------------

    def _require_all(self) -> None:
        """Raises the error of a store that cannot be read: it may know of a payment."""
        for error in self._unread.values():
            raise error

    def _of(self, generation_id: str) -> Record | None:
        with self._lock:
            records = (stored.record for stored in self._load().values())
            return next((r for r in records if r.generation_id == generation_id), None)

    def _end(self, generation_id: str, state: State) -> None:
        record = self._of(generation_id)
        if record is not None:
            self.advance(record.ended(state))

    def _load(self) -> dict[str, StoredSubmission]:
        """The latest record of each request. A store that fails is remembered: see ``_intend``."""
        if self._records is None:
            found: dict[str, list[StoredSubmission]] = {}
            unread: dict[RecordAt, LedgerError] = {}
            for place in self._places.records:
                try:
                    for key, value in (place.read() or {}).items():
                        found.setdefault(key, []).append(StoredSubmission.from_json(value))
                except LedgerError as error:
                    unread[place] = error
            if unread and not found:
                raise next(iter(unread.values()))
            latest = {key: durable.latest(each) for key, each in found.items()}
            self._records = {key: one for key, one in latest.items() if one is not None}
            self._keys = {s.record.client_request_id: key for key, s in self._records.items()}
            self._unread = unread
        return self._records

    def _intend(self, key: str, intent: Record) -> None:
        """Written to every store before its POST may leave; otherwise what was there is put back.

        Raises LedgerError where one of them cannot be read or written.
        """
        self._require_all()
        for place in self._places.records:
            place.probe()
        before = self._load().get(key)
        value = self._values(key, intent)
        try:
            for place in self._places.records:
                place.write(value)
        except Exception:
            with suppress(LedgerError):
                self._note(key, before.record if before else intent.ended(State.REFUSED))
            raise

    def _note(self, key: str, record: Record) -> None:
        """Raises LedgerError where none of the stores took it."""
        value = self._values(key, record)
        places = [place for place in self._places.records if place not in self._unread]
        failed = durable.write_each(places, value, pause=time.sleep)
        for place, error in failed.items():
            log.warning("The record %s cannot be written: %s", place, error)
        if failed and len(failed) == len(places):
            raise unreachable("the stores of this task", next(iter(failed.values())))

    def _values(self, key: str, record: Record) -> Mapping[str, Any]:
        """All records with this one, as they are stored; from now on it is the current one."""
        records = self._load()
        task, before = self._places.task, records.get(key)
        revision = (before.revision or 0) + 1 if before else 1
        records[key] = StoredSubmission(
            record, record.created_at, revision, task.attempt, task.try_number
        )
        self._keys[record.client_request_id] = key
        return {name: stored.to_json() for name, stored in records.items()}


def _key(fingerprint: str, base_url: str, take: int) -> str:
    """The sandbox's videos are no substitute for real ones: other records."""
    return f"{_SANDBOX if settings.is_sandbox(base_url) else ''}{fingerprint}:{take}"


def _entry(record: Record, base_url: str, take: int) -> Entry:
    return Entry(
        record=record,
        base_url=base_url,
        take=take,
        duration=None,
        prompt=None,
        request={},
        submitted_at=None,
        elapsed=None,
        usage={},
        error=None,
        path=None,
        size=None,
        sha256=None,
    )
