"""The exception tree. Every error names the generation where there is one, and the way on.

KlingError
├── AuthenticationError         no key, 401, or a 403 that is not about money
├── InsufficientCreditsError    403 out of credits or funds
├── InvalidRequestError         refused before sending, or 400, 404 on submit, 413
├── RateLimitedError            429 after the retries that are safe
├── ServerError                 5xx, 524, no connection, after the retries that are safe
├── SubmissionUncertainError    the POST may have reached the gateway: not repeated
├── GenerationNotFoundError     a poll keeps answering 404
├── GenerationFailedError       the gateway says error; see ``.kind``
├── WaitTimeoutError            the deadline passed; the generation goes on
├── DownloadError               the video could not be saved; the generation is kept
└── LedgerError                 the record of payments cannot be read or written
"""

from __future__ import annotations

import shlex


class KlingWarning(UserWarning):
    """Something that works but deserves a look: an unknown model, parameter or status."""


def command(verb: str, generation_id: str) -> str:
    """The shell command that goes on with a generation; ids may start with a dash."""
    dashes = "-- " if generation_id.startswith("-") else ""
    return f"kling {verb} {dashes}{shlex.quote(generation_id)}"


class KlingError(Exception):
    """Base of all errors of this package.

    ``generation_id`` and ``client_request_id`` are None where there is none; ``hint`` is one
    sentence or command that goes on from here, and part of ``str(error)``.
    """

    def __init__(
        self,
        message: str,
        *,
        generation_id: str | None = None,
        client_request_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.generation_id = generation_id
        self.client_request_id = client_request_id
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class AuthenticationError(KlingError):
    """The gateway does not know the key, or the key may not do this."""


class InsufficientCreditsError(KlingError):
    """The account is out of credits or funds (the gateway answers 403, never 402)."""


class InvalidRequestError(KlingError):
    """The request cannot work as it is. Nothing was paid."""


class RateLimitedError(KlingError):
    """The gateway keeps answering 429. Nothing was taken."""


class ServerError(KlingError):
    """The gateway is in trouble or out of reach for longer than is worth waiting."""


class SubmissionUncertainError(KlingError):
    """The POST may have been taken and paid; it is not repeated unless the user says so."""


class GenerationNotFoundError(KlingError):
    """The gateway keeps saying that it knows no such generation."""


class GenerationFailedError(KlingError):
    """The gateway ended the generation with an error; failed generations are not billed.

    ``kind`` is moderation, input, credits, provider or unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "unknown",
        generation_id: str | None = None,
        client_request_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(
            message,
            generation_id=generation_id,
            client_request_id=client_request_id,
            hint=hint,
        )
        self.kind = kind


class WaitTimeoutError(KlingError):
    """The deadline of the wait passed. The generation goes on and can be picked up."""


class DownloadError(KlingError):
    """The video could not be saved. It is paid for and kept; only the saving is repeated."""


class LedgerError(KlingError):
    """The record of payments cannot be trusted, so nothing is submitted."""


class StoppedWaiting(KeyboardInterrupt):
    """The user interrupted. Not a KlingError: ``except Exception`` must not swallow it.

    With a ``generation_id`` that generation goes on and is billed. With only a
    ``client_request_id`` a POST was under way and no reply came in time: it may have been taken.
    With neither, nothing was submitted.
    """

    def __init__(
        self, generation_id: str | None = None, client_request_id: str | None = None
    ) -> None:
        if generation_id:
            message = (
                f"Stopped waiting. Generation {generation_id} goes on (there is no cancel) and is "
                f"billed when it completes.\n  Go on with: {command('wait', generation_id)}"
            )
        elif client_request_id:
            message = (
                "Interrupted while submitting, and no reply came in time: the generation may "
                f"have been accepted (client request id {client_request_id}).\n  "
                "Look it up with: kling recover"
            )
        else:
            message = "Interrupted before anything was submitted."
        super().__init__(message)
        self.generation_id = generation_id
        self.client_request_id = client_request_id
