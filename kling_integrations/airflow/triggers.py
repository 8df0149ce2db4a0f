"""KlingVideoTrigger: waits for a generation in the triggerer, and only polls.

It makes no paid call and changes nothing, so it may be restarted, moved or run twice at any
moment. All that it needs to go on is in its kwargs: ids and numbers, which Airflow 3 keeps in
clear text in its database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ..core.errors import KlingError, WaitTimeoutError
from ..core.schedule import Schedule
from .deadlines import timed_out
from .events import WaitResult, to_event
from .exceptions import KlingTaskError
from .get_provider_info import DEFAULT_CONNECTION
from .hints import sensor_call
from .progress_log import ProgressLog
from .shared_client import shared_client

_ANY = Schedule.expecting(None)

# How long on_kill may take to read the task's state, in seconds; Airflow ends it after 30.
_STATE_TIMEOUT = 25.0


class KlingVideoTrigger(BaseTrigger):
    """Yields one event when the generation ended, or when the wait did.

    ``end_time`` and ``submitted_at`` are Unix seconds, so that a restarted triggerer goes on where
    the last one was; ``submitted_at`` None: unknown, then it asks at once. ``expected`` to
    ``pace`` are the numbers of a Schedule (seconds). Every argument but the first has a default:
    rows that an older version wrote must load.
    """

    def __init__(
        self,
        generation_id: str,
        kling_conn_id: str = DEFAULT_CONNECTION,
        end_time: float | None = None,
        submitted_at: float | None = None,
        expected: float = _ANY.expected,
        spread: float = _ANY.spread,
        doubt: float = _ANY.doubt,
        floor: float = _ANY.floor,
        ceiling: float = _ANY.ceiling,
        pace: float = _ANY.pace,
        limit: str = "timeout",
        **unknown: Any,
    ) -> None:
        # `unknown`: what a newer version wrote before a downgrade is ignored.
        super().__init__()  # type: ignore[no-untyped-call]
        self.generation_id = generation_id
        self.kling_conn_id = kling_conn_id
        self.end_time = time.time() + 3600.0 if end_time is None else float(end_time)
        self.submitted_at = None if submitted_at is None else float(submitted_at)
        self.limit = str(limit)  # what the deadline is called
        self.schedule = Schedule(
            *(float(number) for number in (expected, spread, doubt, floor, ceiling, pace))
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{KlingVideoTrigger.__module__}.{KlingVideoTrigger.__qualname__}",
            {
                "generation_id": self.generation_id,
                "kling_conn_id": self.kling_conn_id,
                "end_time": self.end_time,
                "submitted_at": self.submitted_at,
                **self.schedule.numbers(),
                "limit": self.limit,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        event = to_event(await self._wait())
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _wait(self) -> WaitResult:
        progress = ProgressLog(self.log)
        error: KlingError | None = None
        try:
            async with shared_client(self.kling_conn_id) as client:
                now, speed = time.time(), client.clock.speed
                begin = now if self.submitted_at is None else min(now, self.submitted_at)
                try:
                    await client.wait(
                        self.generation_id,
                        timeout=max(0.0, self.end_time - now) * speed,
                        schedule=self.schedule,
                        elapsed=None if self.submitted_at is None else (now - begin) * speed,
                        on_update=progress,
                    )
                except WaitTimeoutError:
                    waited = (time.time() - begin) * speed
                    error = timed_out(self.generation_id, waited, self.limit)
        except KlingError as caught:
            error = caught
        except KlingTaskError as caught:  # the connection is missing or cannot work
            error = caught.error
        if error is not None and error.generation_id is None:
            # What is known to be paid for is worth another try, whatever stands in its way.
            error.generation_id = self.generation_id
        return WaitResult(
            self.generation_id, progress.elapsed, progress.polls, error, progress.late
        )

    async def on_kill(self) -> None:
        """Logs what a user's mark or clear means for the money: there is no remote cancel.

        Airflow also calls this when the trigger only moves to another triggerer (3.3.0 to 3.3.2;
        apache/airflow#73454) and, after a clear, sometimes when the new attempt already waits for
        the same generation. Nothing is cancelled, so nothing can go wrong then; the task's state
        shows which case it is, and the log claims no more than is true.
        """
        again = sensor_call(self.generation_id, self.kling_conn_id)
        # Logged before the state is read, which takes seconds: the triggerer may end meanwhile.
        self.log.info("Generation %s goes on: there is no cancel.", self.generation_id)
        state = await self._task_state()
        if state == "removed":
            # It cannot be cleared: there is no such task in the DAG any more.
            self.log.warning(
                "The task is removed from this run. Where it has another name now, the task of the "
                "new name goes on with generation %s, if it asks for the same in this run. Else "
                "nothing waits for it any more, and it is billed when it completes: pick it up "
                "with %s",
                self.generation_id,
                again,
            )
        elif state in ("failed", "success", "skipped"):
            self.log.warning(
                "The task was marked %s, so nothing waits for generation %s any more. It is billed "
                "when it completes. Clearing the task waits for it again, if its input is the "
                "same; so does %s",
                state,
                self.generation_id,
                again,
            )
        elif state:
            # A clear takes a changed input for a new video, and only its own attempt knows.
            self.log.info(
                "The task is %s. It goes on with generation %s, unless a clear finds that its "
                "input has changed, or its record gone: then it names another one in its log, and "
                "this one is picked up with %s",
                state,
                self.generation_id,
                again,
            )
        else:
            self.log.warning(
                "The task's state is not known here. Unless its next attempt waits for it, "
                "generation %s is picked up with %s",
                self.generation_id,
                again,
            )

    async def _task_state(self) -> str | None:
        ti: Any = self.task_instance
        if ti is None:
            return None
        try:
            from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
            from asgiref.sync import sync_to_async

            read = sync_to_async(RuntimeTaskInstance.get_task_states)(
                dag_id=ti.dag_id,
                task_ids=[ti.task_id],
                run_ids=[ti.run_id],
                map_index=getattr(ti, "map_index", -1),
            )
            states = await asyncio.wait_for(read, _STATE_TIMEOUT)
        except Exception as error:  # noqa: BLE001 (on_kill must end; the state only chooses the message)
            self.log.debug("The task's state could not be read: %s", error)
            return None
        return _only_state(states.get(ti.run_id), ti.task_id, getattr(ti, "map_index", -1))


class KlingPauseTrigger(BaseTrigger):
    """Yields one event at a moment (Unix seconds): a later look can tell what none can now."""

    def __init__(self, until: float, **unknown: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.until = float(until)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{KlingPauseTrigger.__module__}.{KlingPauseTrigger.__qualname__}",
            {"until": self.until},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(max(0.0, self.until - time.time()))
        yield TriggerEvent({"paused_until": self.until})  # type: ignore[no-untyped-call]


def _only_state(states: Any, task_id: str, map_index: int) -> str | None:
    """Of a mapped task the key is ``<task id>_<map index>``."""
    if not isinstance(states, Mapping):
        return None
    state = states.get(task_id, states.get(f"{task_id}_{map_index}"))
    return None if state is None else str(getattr(state, "value", state))
