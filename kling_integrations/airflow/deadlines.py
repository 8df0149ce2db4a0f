"""When a wait ends: the trigger's deadline, Airflow's own behind it, and the error."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..core.errors import NextStep, Verb, WaitTimeoutError
from ..core.progress import clock_time

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.generation import Generation
    from ..core.http.client import KlingClient
    from ..core.schedule import Schedule
    from .progress_log import ProgressLog

# Seconds behind the trigger's own deadline: for its last poll, a restart of the triggerer, the
# sweep of the scheduler. It comes to that only where no triggerer runs.
_BACKSTOP = 300.0


def end_time(task: Any, context: Context, since: float, client: KlingClient) -> float:
    """Unix seconds at which a wait ends that began at ``since``.

    Airflow does not end a deferred task at its execution_timeout (apache/airflow#69678): here
    the wait ends at whichever comes first. A task that waits on a worker is ended by Airflow.
    """
    last = since + client.clock.real(float(task.timeout))
    limit: timedelta | None = task.execution_timeout
    if not task.deferrable or limit is None:
        return last
    started = getattr(context.get("ti"), "start_date", None)
    begin = started.timestamp() if started else time.time()
    return min(last, float(begin + limit.total_seconds()))


def limit_of(task: Any, context: Context, since: float, client: KlingClient) -> str:
    """Which of the task's limits ``end_time`` is, by its name."""
    end = end_time(task, context, since, client)
    is_own = end >= since + client.clock.real(float(task.timeout))
    return "timeout" if is_own else "execution_timeout"


def backstop(end: float) -> timedelta:
    """What ``defer(timeout=)`` gets: later than the trigger's own deadline ``end``."""
    return timedelta(seconds=max(0.0, end - time.time()) + _BACKSTOP)


def timed_out(generation_id: str, waited: float, limit: str = "timeout") -> WaitTimeoutError:
    """``waited``: seconds since the submit, over all attempts, where that is known."""
    return WaitTimeoutError(
        f"Not finished after {clock_time(waited)} minutes: the task's {limit} is over. It goes on "
        f"(there is no cancel) and is billed when it completes. Generation: {generation_id}",
        generation_id=generation_id,
        next_steps=[NextStep(Verb.WAIT, generation_id)],
    )


def wait_until(
    end: float,
    client: KlingClient,
    generation_id: str,
    schedule: Schedule,
    on_update: ProgressLog,
    *,
    submitted_at: float,
) -> Generation:
    """On the worker's slot. ``end`` and ``submitted_at`` are Unix seconds.

    Raises KlingError: WaitTimeoutError when it is over.
    """
    now, speed = time.time(), client.clock.speed
    begin = min(now, submitted_at)
    try:
        return client.wait(
            generation_id,
            timeout=max(0.0, end - now) * speed,
            schedule=schedule,
            elapsed=(now - begin) * speed,
            on_update=on_update,
        )
    except WaitTimeoutError:
        raise timed_out(generation_id, (time.time() - begin) * speed) from None
