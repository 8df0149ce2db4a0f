"""How a command ended: exit codes, and the JSON object of an error."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..core import errors
from ..core.errors import NextStep, Render
from ._arguments import UsageError
from ._hints import hint

DONE = 0
FAILED = 1  # the generation ended with an error
REFUSED = 2  # something must be changed before it can work: the line, the request, key or balance
RUNNING = 3  # a generation goes on: timeout, interrupt, detach
TROUBLE = 4  # the gateway, the network or the disk: the same again may work later
UNCERTAIN = 5  # a POST without a known outcome
BUG = 70
INTERRUPTED = 130  # Ctrl-C, and nothing is running: the code that shells use for it
BROKEN_PIPE = 141  # the reader of the output is gone: the code that shells use for it

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.GenerationFailedError, FAILED),
    (errors.WaitTimeoutError, RUNNING),
    (errors.SubmissionUncertainError, UNCERTAIN),
    (UsageError, REFUSED),
    (errors.InvalidRequestError, REFUSED),
    (errors.AuthenticationError, REFUSED),
    (errors.InsufficientCreditsError, REFUSED),
    (errors.KlingError, TROUBLE),
    (BrokenPipeError, BROKEN_PIPE),
    (OSError, TROUBLE),
)


def exit_code(error: BaseException) -> int:
    """The exit code of a command that raised ``error``.

    An interrupt leaves a generation running (3), a POST without a reply (5), or nothing (130).
    """
    if isinstance(error, errors.StoppedWaiting):
        if error.generation_id:
            return RUNNING
        return UNCERTAIN if error.client_request_id else INTERRUPTED
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return next((code for kind, code in _CODES if isinstance(error, kind)), BUG)


def failure(error: BaseException, render: Render = hint) -> dict[str, Any]:
    """The JSON object of an error: what is known of the generation, and what went wrong.

    ``error.hint`` is all advice as text, its next steps worded by ``render``;
    ``error.next_steps`` has them as data.
    """
    code = exit_code(error)
    steps = [_plain(step) for step in getattr(error, "next_steps", ())]
    description = {
        "type": type(error).__name__,
        "message": getattr(error, "message", None) or str(error),
        "hint": " ".join(errors.advice(error, render)) or None,
        "next_steps": steps or None,
        "kind": getattr(error, "kind", None),
    }
    return {
        "generation_id": getattr(error, "generation_id", None),
        "client_request_id": getattr(error, "client_request_id", None),
        "status": {FAILED: "failed", RUNNING: "running"}.get(code),
        "exit_code": code,
        "error": {name: value for name, value in description.items() if value is not None},
    }


def _plain(step: NextStep) -> dict[str, str]:
    """A next step as JSON values: the verb, and what else it names."""
    return {name: str(value) for name, value in asdict(step).items() if value is not None}
