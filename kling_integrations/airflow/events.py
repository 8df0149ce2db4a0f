"""What a trigger tells the worker: the event, written by one end and read by the other.

A triggerer and a worker may run different versions for a while. Fields are only ever added, and
unknown ones passed over; ``format`` changes when an older reader would misunderstand an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..core import errors
from ..core.errors import GenerationFailedError, KlingError, NextStep, Verb
from ..core.generation import Usage
from .exceptions import KlingTaskError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class WaitResult:
    """The generation ended, well or badly, or ``error`` ended the wait.

    ``elapsed`` is in seconds since the submit, as far as it is known; ``polls`` are those of the
    trigger's last process (a triggerer may restart); the end was noticed within ``late`` seconds.
    """

    generation_id: str
    elapsed: float | None = None
    polls: int | None = None
    error: KlingError | None = None
    late: float | None = None


def to_event(result: WaitResult) -> dict[str, Any]:
    """Ids, numbers and words: no address of a video, which would be a secret in clear text."""
    error = result.error
    return {
        "format": FORMAT,
        "generation_id": result.generation_id,
        "elapsed_seconds": None if result.elapsed is None else round(result.elapsed, 1),
        "polls": result.polls,
        "late_seconds": None if result.late is None else round(result.late, 1),
        "error": error
        and {
            "type": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "kind": getattr(error, "kind", None),
            "usage": _usage_to_json(error),
            "next_steps": [_step_to_json(step) for step in error.next_steps],
        },
    }


def from_event(event: object) -> WaitResult:
    """Raises KlingTaskError for anything else: an odd event must not pass as a success."""
    if not isinstance(event, Mapping) or event.get("format") != FORMAT:
        raise KlingTaskError(KlingError("The trigger sent an event that is not understood."))
    generation_id, elapsed, polls, late = (
        event.get(name) for name in ("generation_id", "elapsed_seconds", "polls", "late_seconds")
    )
    if not isinstance(generation_id, str) or not generation_id:
        raise KlingTaskError(KlingError("The trigger's event names no generation."))
    return WaitResult(
        generation_id,
        elapsed=float(elapsed) if isinstance(elapsed, int | float) else None,
        polls=polls if isinstance(polls, int) else None,
        error=_error(event.get("error"), generation_id),
        late=float(late) if isinstance(late, int | float) else None,
    )


def _error(stored: object, generation_id: str) -> KlingError | None:
    if stored is None:
        return None
    stored = stored if isinstance(stored, Mapping) else {}
    kind = getattr(errors, str(stored.get("type")), None)
    message = str(stored.get("message") or "the trigger ended without a reason")
    details: dict[str, Any] = {"generation_id": generation_id, "hint": stored.get("hint")}
    if isinstance(steps := stored.get("next_steps"), list):
        details["next_steps"] = [step for each in steps if (step := _step_from_json(each))]
    elif kind is not GenerationFailedError:
        # Written before next steps were data, when hints named commands of a shell.
        details |= {"hint": None, "next_steps": [NextStep(Verb.WAIT, generation_id)]}
    if kind is GenerationFailedError:
        usage = _usage_from_json(stored.get("usage"))
        return GenerationFailedError(message, kind=str(stored.get("kind")), usage=usage, **details)
    known = isinstance(kind, type) and issubclass(kind, KlingError)
    return kind(message, **details) if known else KlingError(message, **details)  # type: ignore[misc]


def _usage_to_json(error: KlingError) -> dict[str, Any] | None:
    usage = getattr(error, "usage", None)
    return usage.to_json() if isinstance(usage, Usage) else None


def _usage_from_json(stored: object) -> Usage | None:
    """Earlier versions wrote none."""
    try:
        return Usage(**stored) if isinstance(stored, dict) else None
    except TypeError:  # of a newer version
        return None


def _step_to_json(step: NextStep) -> dict[str, str]:
    return {name: value for name, value in asdict(step).items() if value is not None}


def _step_from_json(stored: object) -> NextStep | None:
    """None for a verb that this version does not know."""
    fields = stored if isinstance(stored, Mapping) else {}
    try:
        verb = Verb(fields["verb"])
    except (KeyError, ValueError):
        return None
    details = (fields.get(name) for name in NextStep.__slots__ if name != "verb")
    return NextStep(verb, *(value if isinstance(value, str) else None for value in details))
