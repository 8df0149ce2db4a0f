"""The ledger of a client in a task of one's own: its records are in Airflow's task state store.

An operator makes one video and keeps one record. A ``@task`` may make several: here each request
has its own record, and all of them are one value of the store, because nothing lists its keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..core import settings, submission
from ..core.errors import GenerationFailedError, LedgerError
from ..core.generation import Generation, Saved
from ..core.request import VideoRequest
from ..core.submission import Action, Decision, Entry, Record, State
from . import version_compat

KEY = "kling_submissions"


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
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._records: dict[str, Record] | None = None
        self._keys: dict[str, str] = {}  # of the records, by client request id
        self._lock = threading.RLock()

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
    ) -> tuple[Decision, Record]:
        """See ``core.storage.ledger.Ledger.claim``; one task has one connection, so no key."""
        with self._lock:
            records = self._load()
            keys = [_key(fingerprint, base_url, take) for fingerprint in request.fingerprints]
            key = next((key for key in keys if key in records), keys[0])
            record = records.get(key)
            decision = submission.decide(record, request.fingerprints, new=new)
            if record is not None and decision.action is Action.REFUSE:
                raise submission.refusal(record)
            if record is not None and decision.picks_up:
                return replace(decision, entry=_entry(record, base_url, take)), record
            intent = Record.intent(request)
            if record is not None and record.generation_id:
                intent = replace(intent, replaced=(*record.replaced, record.generation_id))
            self._put(key, intent)
            return decision, intent

    def advance(self, record: Record) -> None:
        with self._lock:
            self._load()
            self._put(self._keys[record.client_request_id], record)

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
                _entry(record, base_url, 1)
                for record in self._load().values()
                if record.state is State.INTENT
            ]

    # --- the store -----------------------------------------------------------------------------

    def _of(self, generation_id: str) -> Record | None:
        with self._lock:
            found = (r for r in self._load().values() if r.generation_id == generation_id)
            return next(found, None)

    def _end(self, generation_id: str, state: State) -> None:
        record = self._of(generation_id)
        if record is not None:
            self.advance(record.ended(state))

    def _load(self) -> dict[str, Record]:
        if self._records is None:
            stored = _reaching(lambda: self._store.get(KEY))
            if not isinstance(stored, dict | None):
                raise LedgerError("The records of this task's submissions are unreadable.")
            self._records = {
                str(key): Record.from_json(record) for key, record in (stored or {}).items()
            }
            self._keys = {r.client_request_id: key for key, r in self._records.items()}
        return self._records

    def _put(self, key: str, record: Record) -> None:
        records = {**self._load(), key: record}
        stored = {name: one.to_json() for name, one in records.items()}
        _reaching(lambda: self._store.set(KEY, stored, **version_compat.FOREVER))
        self._records = records
        self._keys[record.client_request_id] = key


def _reaching(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        raise LedgerError(
            f"The task state store fails ({type(error).__name__}: {str(error)[:200]})."
        ) from error


def _key(fingerprint: str, base_url: str, take: int) -> str:
    """The sandbox's videos are no substitute for real ones: other records."""
    return f"{'sandbox:' if settings.is_sandbox(base_url) else ''}{fingerprint}:{take}"


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
