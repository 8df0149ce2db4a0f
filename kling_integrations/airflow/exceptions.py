"""Verdicts: what an error of the core means for an Airflow task, decided in one place.

An error that the next try would meet again fails the task at once; trouble that passes is left
to Airflow's own retries. All are AirflowExceptions, because a resuming sensor honours
``soft_fail`` for nothing else, and carry the core's sentence and the core's error.

The trigger tells the worker in an event; ``to_event`` and ``from_event`` are its two ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
)

from ..core import errors
from ..core.errors import (
    AuthenticationError,
    GenerationFailedError,
    GenerationNotFoundError,
    InsufficientCreditsError,
    InvalidRequestError,
    KlingError,
    LedgerError,
    SubmissionUncertainError,
    WaitTimeoutError,
)

EVENT_FORMAT = 1


class KlingTaskError(AirflowException):
    """A task's error that Airflow's retries may cure. ``error`` is the core's."""

    def __init__(self, error: KlingError) -> None:
        super().__init__(str(error))
        self.error = error


class KlingFailed(KlingTaskError, AirflowFailException):  # noqa: N818
    """A task's error that no retry cures: Airflow fails the task at once."""


class KlingWaitTimeout(KlingTaskError):  # noqa: N818
    """The wait is over, the generation goes on. A retry looks at the same generation."""


class KlingSensorTimeout(KlingTaskError, AirflowSensorTimeout):  # noqa: N818
    """The same for a sensor, where a timeout is final."""


# The next try would meet these again: the request, the key, the account or the record is wrong.
_FINAL = (
    AuthenticationError,
    GenerationNotFoundError,
    InsufficientCreditsError,
    InvalidRequestError,
    LedgerError,
    SubmissionUncertainError,
)
_FINAL_KINDS = ("moderation", "input", "credits")


def verdict(error: KlingError) -> KlingTaskError:
    """The Airflow exception to raise for an error of the core."""
    if isinstance(error, WaitTimeoutError):
        return KlingWaitTimeout(error)
    if isinstance(error, GenerationFailedError):
        return (KlingFailed if error.kind in _FINAL_KINDS else KlingTaskError)(error)
    return (KlingFailed if isinstance(error, _FINAL) else KlingTaskError)(error)


def sensor_call(generation_id: str, kling_conn_id: str) -> str:
    """The exact call that picks a generation up."""
    conn = "" if kling_conn_id == "kling_default" else f", kling_conn_id={kling_conn_id!r}"
    return f'KlingVideoSensor(task_id="pick_up", generation_id={generation_id!r}{conn})'


def timed_out(generation_id: str, kling_conn_id: str, waited: str) -> WaitTimeoutError:
    return WaitTimeoutError(
        f"Generation {generation_id} is not finished after {waited} minutes. It goes on (there "
        "is no cancel) and is billed when it completes.",
        generation_id=generation_id,
        hint=f"Pick it up with: {sensor_call(generation_id, kling_conn_id)}",
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """What a trigger found: the generation ended, well or badly, or ``error`` ended the wait.

    ``elapsed`` is in seconds since the submit, as far as it is known; ``polls`` are those of the
    trigger's last life (a triggerer may restart).
    """

    generation_id: str
    elapsed: float | None = None
    polls: int | None = None
    error: KlingError | None = None


def to_event(ended: Ended) -> dict[str, Any]:
    """Ids, numbers and words: no address of a video, which would be a secret in clear text."""
    error = ended.error
    return {
        "format": EVENT_FORMAT,
        "generation_id": ended.generation_id,
        "elapsed_seconds": None if ended.elapsed is None else round(ended.elapsed, 1),
        "polls": ended.polls,
        "error": error
        and {
            "type": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "kind": getattr(error, "kind", None),
        },
    }


def from_event(event: object) -> Ended:
    """Raises KlingTaskError for what is no such event: an odd one must not pass as a success."""
    if not isinstance(event, Mapping) or event.get("format") != EVENT_FORMAT:
        raise KlingTaskError(KlingError("The trigger sent an event that is not understood."))
    generation_id, elapsed, polls = (
        event.get(name) for name in ("generation_id", "elapsed_seconds", "polls")
    )
    if not isinstance(generation_id, str) or not generation_id:
        raise KlingTaskError(KlingError("The trigger's event names no generation."))
    return Ended(
        generation_id,
        elapsed=float(elapsed) if isinstance(elapsed, int | float) else None,
        polls=polls if isinstance(polls, int) else None,
        error=_error(event.get("error"), generation_id),
    )


def _error(told: object, generation_id: str) -> KlingError | None:
    if told is None:
        return None
    told = told if isinstance(told, Mapping) else {}
    kind = getattr(errors, str(told.get("type")), None)
    message = str(told.get("message") or "the trigger ended without a reason")
    more: dict[str, Any] = {"generation_id": generation_id, "hint": told.get("hint")}
    if kind is GenerationFailedError:
        return GenerationFailedError(message, kind=str(told.get("kind")), **more)
    known = isinstance(kind, type) and issubclass(kind, KlingError)
    return kind(message, **more) if known else KlingError(message, **more)  # type: ignore[misc]
