"""Which task instance of which run this is, and what is named after it: records and POSTs. No I/O.

A try is no part of a record's name: all tries of a task instance pay for one video.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import version_compat

if TYPE_CHECKING:
    from airflow.sdk import Context


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """One attempt of one task instance; ``map_index`` is -1 where the task is not mapped.

    ``attempt`` is Airflow's id of this attempt, another one after each retry and clear.
    ``since_clear`` is the first try after the last clear (1 without one), ``run_after`` the Unix
    time before which the run cannot have begun. ``clears`` counts the clears of tasks of the run
    (None: this Airflow does not say); ``has_all_tries``: as many tries are left as the task has
    retries, which is so in the first try and in the first one after a clear. ``is_test``: the run
    is one of ``tasks test`` or ``dags test``, all of which share the task's records.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1
    attempt: str = ""
    max_tries: int | None = None
    since_clear: int = 1
    run_after: float = 0.0
    clears: int | None = None
    has_all_tries: bool = False
    is_test: bool = False

    @classmethod
    def of(cls, context: Context) -> TaskIdentity:
        ti: Any = context["ti"]
        tries = int(getattr(ti, "try_number", None) or 1)
        index = getattr(ti, "map_index", None)
        most = max_tries(context)
        retries = getattr(getattr(ti, "task", None) or context.get("task"), "retries", None)
        clears = getattr(context.get("dag_run"), "clear_number", None)
        clears = clears if isinstance(clears, int) else None
        since_clear = 1
        if most is not None and isinstance(retries, int) and clears != 0:
            since_clear = min(tries, max(1, most - retries + 1))
        return cls(
            dag_id=str(ti.dag_id),
            run_id=str(ti.run_id),
            task_id=str(ti.task_id),
            map_index=-1 if index is None else int(index),
            try_number=tries,
            attempt=str(getattr(ti, "id", "")),
            max_tries=most,
            since_clear=since_clear,
            run_after=_run_after(context),
            clears=clears,
            has_all_tries=most is not None and most - (tries - 1) == retries,
            is_test=version_compat.is_test_run(str(ti.run_id)),
        )

    @property
    def is_mapped(self) -> bool:
        return self.map_index >= 0

    @property
    def group(self) -> str:
        """The beginning of the names of the records of all mapped instances of the task."""
        return _digest(self.dag_id, self._records_run, self.task_id)[:40]

    @property
    def inputs_group(self) -> str:
        """The beginning of the names of what the tasks of the run made, by its input."""
        return f"inputs/{_digest(self.dag_id, self._records_run)[:40]}"

    @property
    def _records_run(self) -> str:
        """A test has a run of its own each time, often with a date of its own."""
        return "__test__" if self.is_test else self.run_id

    @property
    def run_name(self) -> str:
        """The beginning of the names of what all tasks of the run share."""
        return f"runs/{_digest(self.dag_id, self.run_id)[:40]}"

    @property
    def record_name(self) -> str:
        return self.name_of(self.map_index)

    def name_of(self, map_index: int) -> str:
        return f"{self.group}/{map_index if map_index >= 0 else '-'}"

    def client_request_id(self, fingerprint: str, take: int = 1, tried: int | None = None) -> str:
        """The id of the one POST of this input in a try (the present one, unless it is given).

        A later try that finds no record can say what to look for in the gateway's log.
        """
        tried = self.try_number if tried is None else tried
        instance = (self.dag_id, self.run_id, self.task_id, self.map_index)
        return f"kling-{_digest(*instance, tried, fingerprint, take)[:32]}"

    def earlier_client_request_ids(
        self, fingerprints: Iterable[str], take: int = 1, *, first_try: int = 1
    ) -> list[str]:
        """Those of the tries before this one, the latest first."""
        tries = range(self.try_number - 1, first_try - 1, -1)
        return [
            self.client_request_id(fingerprint, take, tried)
            for tried in tries
            for fingerprint in fingerprints
        ]


def max_tries(context: Context) -> int | None:
    """Airflow raises it when a user clears a task, and leaves it alone when it retries."""
    tries = getattr(context.get("ti"), "max_tries", None)
    return tries if isinstance(tries, int) else None


def _run_after(context: Context) -> float:
    moment = getattr(context.get("dag_run"), "run_after", None)
    return moment.timestamp() if isinstance(moment, datetime) else 0.0


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
