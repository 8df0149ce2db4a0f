"""The generations of the mapped instances of one task, found by what they were made of.

A list that is made anew further up may come in another order. An instance that has no record, or
one of another input, then takes over the generation that another instance made of its input and
has no use for any more, before it pays.

Each generation has a chain of holders, a record per holder: ``…/<input>/<POST>/0000``, ``0001``.
Exactly one instance can add the next one, so two never share a generation.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import LedgerUnreachableError
from ..core.records import RecordStore
from ..core.submission import Record, State
from .durable import StoredSubmission
from .record_places import RecordAt
from .task_identity import TaskIdentity

_HOLDER, _TASK = "holder", "task_id"

# States in which an instance has not looked at its record since it was last cleared, or never
# will: what it held is free.
_NOT_STARTED = (None, "scheduled", "queued", "removed", "skipped", "upstream_failed")

# An instance that runs may be about to give up what it held: seconds that one waits for it.
_PATIENCE, _INTERVAL = 20.0, 0.5

_TAKEN = (State.INTENT, State.SUBMITTED, State.COMPLETED)


def state_of(task: TaskIdentity, map_index: int, task_id: str | None = None) -> str | None:
    """The state of another instance of the task; "removed" where there is none any more.

    ``task_id`` is that of another task of the run. Raises LedgerUnreachableError where Airflow
    does not say.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    task_id = task_id or task.task_id
    try:
        runs = RuntimeTaskInstance.get_task_states(
            dag_id=task.dag_id,
            task_ids=[task_id],
            run_ids=[task.run_id],
            map_index=map_index,
        )
        states = dict(runs.get(task.run_id) or {})
    except Exception as error:
        raise LedgerUnreachableError(
            f"Airflow does not say what became of instance {map_index} of the task {task_id} "
            f"({type(error).__name__}), which may use a generation of the same input: nothing is "
            "submitted."
        ) from error
    return states.get(f"{task_id}_{map_index}", states.get(task_id, "removed"))


@dataclass(slots=True)
class Siblings:
    """``store`` is one that all instances reach."""

    store: RecordStore
    task: TaskIdentity
    log: Any
    state_of: Callable[[TaskIdentity, int], str | None] = state_of
    sleep: Callable[[float], object] = field(default=time.sleep)

    def first_place(self, record: Record) -> RecordAt:
        """Where the intent of a new POST is written, too: its first holder."""
        name = f"{self._chain(record)}0000"
        return _HeldBy(self.store, name, self.task.map_index, record.client_request_id)

    def is_lost(self, record: Record) -> bool:
        """Whether another instance holds this one's record by now. Raises LedgerError."""
        numbers = sorted(self.store.names(self._chain(record)))
        return bool(numbers) and self._holder(numbers[-1]) != self.task.map_index

    def hold(self, record: Record) -> RecordAt | None:
        """Where this instance holds its own record from now on; None where another one does.

        Raises LedgerError where the store fails.
        """
        chain = self._chain(record)
        while True:
            numbers = sorted(self.store.names(chain))
            if numbers and self._holder(numbers[-1]) != self.task.map_index:
                return None
            if place := self._next(chain, numbers, record):
                return place

    def take(self, fingerprints: Iterable[str]) -> tuple[Record, RecordAt] | None:
        """A generation of this input that no other instance uses, and where it is held now.

        Raises LedgerError where a store fails: then it is not known whether there is one.
        """
        for fingerprint in fingerprints:
            names = sorted(self.store.names(f"{self._input(fingerprint)}/"))
            for chain in dict.fromkeys(f"{name.rpartition('/')[0]}/" for name in names):
                if taken := self._take(chain):
                    return taken
        return None

    def _take(self, chain: str) -> tuple[Record, RecordAt] | None:
        deadline = time.monotonic() + _PATIENCE
        first: list[str] = []
        while True:
            numbers = sorted(self.store.names(chain))
            first = first or numbers
            stored = self.store.read(numbers[-1])
            record = StoredSubmission.from_json(stored).record
            holder = _index((stored or {}).get(_HOLDER))
            own = self._own(holder)
            is_own = own is not None and _is_of(own.record, record)
            if own is not None and is_own:
                record = own.record  # how far it came
            given_up = own is not None and (
                own.given_up if is_own else record.client_request_id in own.earlier_posts
            )
            is_current = is_own and not given_up
            if record.state not in _TAKEN:
                return None
            if holder != self.task.map_index:
                state = self.state_of(self.task, holder)
                # One that runs may be about to give it up; or it took it and has to write it yet.
                is_open = state == "running" and not given_up
                if is_current and numbers != first:
                    return None  # it has looked meanwhile, and goes on with it
                if is_open and time.monotonic() < deadline:
                    self.sleep(_INTERVAL)
                    continue
                if is_current and state not in _NOT_STARTED:
                    return None
            if place := self._next(chain, numbers, record):
                self.log.info(
                    "Instance %d of this task made this input before: generation %s.",
                    holder,
                    record.generation_id or f"of the POST {record.client_request_id}",
                )
                return record, place

    def _next(self, chain: str, numbers: list[str], record: Record) -> RecordAt | None:
        """The next place of a chain, with this instance as its holder; None if one came first."""
        last = int(numbers[-1].rpartition("/")[2]) if numbers else -1
        name, post = f"{chain}{last + 1:04d}", record.client_request_id
        place = _HeldBy(self.store, name, self.task.map_index, post)
        value = StoredSubmission(record, record.created_at).to_json()
        return place if self.store.create(place.name, place.held(value)) else None

    def _holder(self, name: str) -> int:
        return _index((self.store.read(name) or {}).get(_HOLDER))

    def _own(self, map_index: int) -> StoredSubmission | None:
        stored = self.store.read(self.task.name_of(map_index))
        return None if stored is None else StoredSubmission.from_json(stored)

    def _input(self, fingerprint: str) -> str:
        return f"{self.task.group}/inputs/{_short(fingerprint)}"

    def _chain(self, record: Record) -> str:
        return f"{self._input(record.fingerprint)}/{_short(record.client_request_id)}/"


@dataclass(slots=True)
class FormerTasks:
    """The generations of a run's tasks, found by what they were made of.

    A task that is renamed in its file, or whose group is, is another one for Airflow, which marks
    the old one "removed" in the same run: the new one takes over what that one made of the same
    input. And a test of a task takes what an earlier test of the same input made. The chain of
    holders is as that of the instances of one task.
    """

    store: RecordStore
    task: TaskIdentity
    log: Any
    state_of: Callable[[TaskIdentity, int, str], str | None] = state_of

    def first_place(self, record: Record) -> RecordAt:
        """Where the intent of a new POST is written, too."""
        return self._place(
            f"{self._input(record.fingerprint)}{_short(record.client_request_id)}/0000", record
        )

    def take(self, fingerprints: Iterable[str]) -> tuple[Record, RecordAt] | None:
        """What has no holder any more, or an earlier test made; and where it is held now.

        Raises LedgerError where the store or Airflow fails: then it is not known.
        """
        for fingerprint in fingerprints:
            last: dict[str, str] = {}
            for name in sorted(self.store.names(self._input(fingerprint))):
                last[name.rpartition("/")[0]] = name
            for chain, name in last.items():
                stored = self.store.read(name)
                record = StoredSubmission.from_json(stored).record
                holder = str((stored or {}).get(_TASK)), _index((stored or {}).get(_HOLDER))
                if record.state not in _TAKEN:
                    continue
                if self.task.is_test and holder == (self.task.task_id, self.task.map_index):
                    return record, self._place(name, record)
                if self.task.is_test or self._is_kept(*holder):
                    continue
                place = self._place(f"{chain}/{int(name.rpartition('/')[2]) + 1:04d}", record)
                value = StoredSubmission(record, record.created_at).to_json()
                if self.store.create(place.name, place.held(value)):
                    self.log.info(
                        "The task %s, which is removed from this run, made this input: generation "
                        "%s is gone on with.",
                        holder[0],
                        record.generation_id or f"of the POST {record.client_request_id}",
                    )
                    return record, place
        return None

    def _is_kept(self, task_id: str, map_index: int) -> bool:
        own = task_id == self.task.task_id  # its instances are the matter of Siblings
        return own or self.state_of(self.task, map_index, task_id) != "removed"

    def _input(self, fingerprint: str) -> str:
        return f"{self.task.inputs_group}/{_short(fingerprint)}/"

    def _place(self, name: str, record: Record) -> _HeldByTask:
        task = self.task
        return _HeldByTask(self.store, name, task.map_index, record.client_request_id, task.task_id)


@dataclass(frozen=True, slots=True)
class _HeldBy(RecordAt):
    """A link of the chain of one POST."""

    map_index: int
    client_request_id: str

    def held(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {**value, _HOLDER: self.map_index}

    def write(self, value: Mapping[str, Any]) -> None:
        if value["client_request_id"] != self.client_request_id:
            # The record of before was put back: this POST was refused, or never left.
            stored = self.store.read(self.name)
            if stored is None:
                return
            value = {**stored, "state": State.REFUSED.value}
        self.store.write(self.name, self.held(value))


@dataclass(frozen=True, slots=True)
class _HeldByTask(_HeldBy):
    task_id: str

    def held(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {**value, _HOLDER: self.map_index, _TASK: self.task_id}


def _is_of(one: Record, other: Record) -> bool:
    return one.client_request_id == other.client_request_id


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _index(value: object) -> int:
    """-1, which no mapped instance has, for what is no index."""
    return value if isinstance(value, int) else -1
