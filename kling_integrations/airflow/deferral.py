"""The wait in the triggerer, for operator and sensor alike.

There is a poll before it, for what has finished already, and one after it on the worker.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from ..core.errors import (
    GenerationNotFoundError,
    InvalidRequestError,
    RateLimitedError,
    ServerError,
)
from ..core.generation import Generation
from ..core.schedule import Schedule
from . import version_compat
from .deadlines import backstop
from .learning import finished
from .triggers import KlingPauseTrigger, KlingVideoTrigger

if TYPE_CHECKING:
    from ..core.http.client import KlingClient

# How long an outage may take when the worker confirms what the trigger found, in seconds.
_CONFIRM_TIMEOUT = 120.0


def schedule_of(task: Any, client: KlingClient, model: str, duration: int | None) -> Schedule:
    """When the task asks: by what earlier ones took, or at its ``poll_interval``.

    Raises InvalidRequestError for an interval that is none.
    """
    try:
        earlier = finished(task, client, model, duration)
        schedule = Schedule.expecting(model, duration=duration, finished=earlier)
        return schedule.every(task.poll_interval) if task.poll_interval else schedule
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"poll_interval {task.poll_interval!r}: {error}") from None


def poll_once(task: Any, client: KlingClient, generation: Generation) -> Generation:
    """The generation as one poll finds it, and unchanged where there is no usable answer.

    The wait that follows tolerates trouble for minutes; a failure here would use up a retry.
    """
    try:
        return client.get(generation.id)
    except (GenerationNotFoundError, RateLimitedError, ServerError) as error:
        task.log.info("%s Waiting all the same.", error.message)
        return generation


def defer(
    task: Any,
    generation_id: str,
    schedule: Schedule,
    *,
    end_time: float,
    submitted_at: float | None = None,
    limit: str = "timeout",
) -> NoReturn:
    """Hands the wait to the triggerer. ``end_time`` and ``submitted_at`` are Unix seconds."""
    task.defer(
        trigger=trigger_for(task, generation_id, schedule, end_time, submitted_at, limit),
        method_name="execute_complete",
        timeout=backstop(end_time),
    )
    raise AssertionError("defer() has not raised")


def defer_until(task: Any, moment: float, method_name: str) -> NoReturn:
    """Lets the triggerer wait for a moment (Unix seconds); then the method gets its event."""
    task.defer(trigger=KlingPauseTrigger(moment), method_name=method_name, timeout=backstop(moment))
    raise AssertionError("defer() has not raised")


def trigger_for(
    task: Any,
    generation_id: str,
    schedule: Schedule,
    end_time: float,
    submitted_at: float | None = None,
    limit: str = "timeout",
) -> KlingVideoTrigger:
    return KlingVideoTrigger(
        generation_id=generation_id,
        kling_conn_id=task.kling_conn_id,
        end_time=end_time,
        submitted_at=submitted_at,
        limit=limit,
        **schedule.numbers(),
    )


def check_serializable(trigger: KlingVideoTrigger) -> None:
    """Raises InvalidRequestError for a trigger that Airflow could not store."""
    arguments = trigger.serialize()[1]
    try:
        json.dumps(arguments, allow_nan=False)
        if version_compat.serialize:
            version_compat.serialize(arguments)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"The task cannot be deferred ({error}): nothing is submitted."
        ) from None


def confirm(client: KlingClient, generation_id: str) -> Generation:
    """What the trigger found finished, asked for anew on the worker.

    An event holds no address of a video, and one from back then may have expired.
    """
    return client.wait(generation_id, timeout=_CONFIRM_TIMEOUT, schedule=Schedule.fixed(5.0))
