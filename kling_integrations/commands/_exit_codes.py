"""How a command ended: exit codes, and the JSON object of an error."""

from __future__ import annotations

from typing import Any

from ..core import errors
from ._arguments import UsageError

DONE = 0
FAILED = 1  # the generation ended with an error
REFUSED = 2  # something must be changed before it can work: the line, the request, key or balance
RUNNING = 3  # a generation goes on: timeout, interrupt, detach
TROUBLE = 4  # the gateway, the network or the disk: the same again may work later
UNCERTAIN = 5  # a POST without a known outcome
INTERRUPTED = 130  # Ctrl-C, and nothing is running: the shells' own code for it
BROKEN_PIPE = 141  # nobody reads the output any more: the shells' own code for it
BUG = 70

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.GenerationFailedError, FAILED),
    (errors.WaitTimeoutError, RUNNING),
    (errors.SubmissionUncertainError, UNCERTAIN),
    (UsageError, REFUSED),
    (errors.InvalidRequestError, REFUSED),
    (errors.AuthenticationError, REFUSED),
    (errors.InsufficientCreditsError, REFUSED),
    (errors.KlingError, TROUBLE),
    (OSError, TROUBLE),
)


def exit_code(error: BaseException) -> int:
    """What a shell is told about an error.

    An interrupt leaves a generation running (3), a POST without a reply (5), or nothing (130).
    """
    if isinstance(error, errors.StoppedWaiting):
        if error.generation_id:
            return RUNNING
        return UNCERTAIN if error.client_request_id else INTERRUPTED
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return next((code for kind, code in _CODES if isinstance(error, kind)), BUG)


def failure(error: BaseException) -> dict[str, Any]:
    """The JSON object of an error: what is known of the generation, and what went wrong."""
    said = {
        "type": type(error).__name__,
        "message": getattr(error, "message", None) or str(error),
        "hint": getattr(error, "hint", None),
        "kind": getattr(error, "kind", None),
    }
    code = exit_code(error)
    return {
        "generation_id": getattr(error, "generation_id", None),
        "client_request_id": getattr(error, "client_request_id", None),
        "status": {FAILED: "failed", RUNNING: "running"}.get(code),
        "exit_code": code,
        "error": {name: value for name, value in said.items() if value is not None},
    }
