"""The exception tree. Every error names the generation where there is one, and the way on.

KlingError
├── AuthenticationError         no key, 401, or a 403 that is not about money
├── InsufficientCreditsError    403 out of credits or funds
├── InvalidRequestError         refused before sending, or 400, 404 on submit, 413
├── RateLimitedError            429 after the retries that are safe
├── ServerError                 5xx, 524, no connection, after the retries that are safe
├── SubmittingEndedError        the client submits no more: nothing left
├── SubmissionUncertainError    the POST may have reached the gateway: not repeated
├── GenerationNotFoundError     a poll keeps answering 404
├── GenerationFailedError       the gateway says error; see ``.kind``
├── WaitTimeoutError            the deadline passed; the generation goes on
├── DownloadError               the video could not be saved; the generation is kept
│   └── LinkExpiredError        its address has expired, and a new one could not be had
└── LedgerError                 the record of payments cannot be read or written
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from .generation import Usage


class KlingWarning(UserWarning):
    """Something that works but deserves a look: an unknown model, parameter or status."""


def warn(message: str, stacklevel: int = 2) -> None:
    """A KlingWarning beside what is paid for: where warnings are errors, it is logged instead."""
    try:
        warnings.warn(message, KlingWarning, stacklevel=stacklevel + 1)
    except KlingWarning:
        logging.getLogger("kling_integrations").warning("%s", message)


class Verb(StrEnum):
    """What a user can do next. Each integration has its own words for it."""

    WAIT = "wait"  # for the generation that goes on
    SHOW = "show"  # look at the generation once
    DOWNLOAD = "download"  # save the video that is kept at the gateway
    RECOVER = "recover"  # look up a POST of unknown outcome in the gateway's log
    SUBMIT_NEW = "submit-new"  # pay for another video knowingly
    SUBMIT_AGAIN = "submit-again"  # repeat the same request: what is paid for is picked up
    SET_KEY = "set-key"
    TRY_SANDBOX = "try-sandbox"  # no key, no money
    SET_HOME = "set-home"  # name another folder for the records
    SET_OUTPUT = "set-output"  # name another place for the video
    RAISE_COST_LIMIT = "raise-cost-limit"
    DROP_COST_LIMIT = "drop-cost-limit"  # no price is known, so none can be kept
    INSTALL = "install"  # ``detail`` names the extra
    SKIP_BAD_ROWS = "skip-bad-rows"  # go ahead with the rows of a table that can be submitted
    TAKE_LITERALLY = "take-literally"  # send texts that look like mistakes as they are
    NAME_PROMPTS = "name-prompts"  # say which column of a table holds the prompts


@dataclass(frozen=True, slots=True)
class NextStep:
    """One way on from an error, a refusal or a note, as data.

    ``generation_id`` and ``client_request_id`` say what it is about, ``output`` where the video
    shall go; ``detail`` is what else the verb needs (an extra to install).
    """

    verb: Verb
    generation_id: str | None = None
    client_request_id: str | None = None
    output: str | None = None
    detail: str | None = None


Render = Callable[[NextStep], str]
"""A next step in the words of one integration: a sentence, or empty where it has none."""


def python_words(step: NextStep) -> str:
    """A next step as a Python script takes it."""
    identity = repr(step.generation_id) if step.generation_id else "generation_id"
    output = repr(step.output) if step.output else '"video.mp4"'
    return {
        Verb.WAIT: f"Go on with: client.wait({identity})",
        Verb.SHOW: f"Look at it with: client.get({identity})",
        Verb.DOWNLOAD: f"Save it with: client.download({identity}, {output})",
        Verb.RECOVER: "Look it up with: client.recover()",
        Verb.SUBMIT_NEW: "To pay for another one knowingly: client.submit(request, new=True)",
        Verb.SUBMIT_AGAIN: "Submit the same request again: what is paid for is picked up.",
        Verb.SET_KEY: "Set AIML_API_KEY, or pass api_key=.",
        Verb.TRY_SANDBOX: (
            "To try everything without a key or money: "
            "with kling_integrations.sandbox.Sandbox() as sandbox: …"
        ),
        Verb.SET_HOME: "Set KLING_HOME to a folder that can be written.",
        Verb.SET_OUTPUT: "Name another target.",
        Verb.RAISE_COST_LIMIT: "Raise the limit, or leave it out to submit at any price.",
        Verb.DROP_COST_LIMIT: "Leave the limit out to submit at any price.",
        Verb.INSTALL: f"Install it with: pip install 'kling-integrations[{step.detail}]'",
        Verb.SKIP_BAD_ROWS: "To go ahead with the others: skip_bad=True",
        Verb.TAKE_LITERALLY: "To send such texts as they are: raw=True",
        Verb.NAME_PROMPTS: 'Name the column with prompt="…".',
    }[step.verb]


def describe(error: BaseException, render: Render = python_words) -> str:
    """An error in full: what happened, then what can be done, a line each.

    ``render`` words the next steps; other exceptions are their own text.
    """
    if not isinstance(error, KlingError | StoppedWaiting):
        return str(error)
    return "\n  ".join(filter(None, (error.message, *advice(error, render))))


def advice(error: BaseException, render: Render = python_words) -> list[str]:
    """What can be done after an error: its hint, then its next steps in words."""
    hint = getattr(error, "hint", None)
    steps: Iterable[NextStep] = getattr(error, "next_steps", ())
    return [words for words in (hint, *map(render, steps)) if words]


class KlingError(Exception):
    """Base of all errors of this package.

    ``generation_id`` and ``client_request_id`` are None where there is none. ``hint`` is one
    sentence of advice that holds everywhere; ``next_steps`` are what can be done next, as data.
    ``str(error)`` says all of it in the words of Python, or in those of ``words`` where an
    integration has set them.
    """

    words: Render = staticmethod(python_words)

    def __init__(
        self,
        message: str,
        *,
        generation_id: str | None = None,
        client_request_id: str | None = None,
        hint: str | None = None,
        next_steps: Iterable[NextStep] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.generation_id = generation_id
        self.client_request_id = client_request_id
        self.hint = hint
        self.next_steps = tuple(next_steps)

    def __str__(self) -> str:
        return describe(self, self.words)


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

    ``kind`` is moderation, input, credits, provider or unknown; ``usage`` what the gateway says
    that it cost all the same, mostly None.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "unknown",
        usage: Usage | None = None,
        generation_id: str | None = None,
        client_request_id: str | None = None,
        hint: str | None = None,
        next_steps: Iterable[NextStep] = (),
    ) -> None:
        super().__init__(
            message,
            generation_id=generation_id,
            client_request_id=client_request_id,
            hint=hint,
            next_steps=next_steps,
        )
        self.kind = kind
        self.usage = usage


class SubmittingEndedError(KlingError):
    """The client was told to submit no more, see ``end_submitting``: this POST did not leave."""


class WaitTimeoutError(KlingError):
    """The deadline of the wait passed. The generation goes on and can be picked up."""


class DownloadError(KlingError):
    """The video could not be saved. It is paid for and kept; only the saving is repeated."""


class LinkExpiredError(DownloadError):
    """The video's address no longer opens it (401, 403, 404, 410): a new one is needed."""


class LedgerError(KlingError):
    """The record of payments cannot be trusted, so nothing is submitted."""


class LedgerUnreachableError(LedgerError):
    """What keeps the records cannot be reached at this moment: a later try may find it again."""


class StoppedWaiting(KeyboardInterrupt):
    """The user interrupted. Not a KlingError: ``except Exception`` must not swallow it.

    With a ``generation_id`` that generation goes on and is billed. With only a
    ``client_request_id`` a POST was under way and no reply came in time: it may have been taken.
    With neither, nothing was submitted.
    """

    words: Render = staticmethod(python_words)

    def __init__(
        self,
        generation_id: str | None = None,
        client_request_id: str | None = None,
        *,
        message: str | None = None,
        next_steps: Iterable[NextStep] | None = None,
    ) -> None:
        """``message`` and ``next_steps`` replace what follows from the two ids."""
        if generation_id:
            usual = (
                f"Stopped waiting. Generation {generation_id} goes on (there is no cancel) and is "
                "billed when it completes."
            )
            steps: tuple[NextStep, ...] = (NextStep(Verb.WAIT, generation_id),)
        elif client_request_id:
            usual = (
                "Interrupted while submitting, and no reply came in time: the generation may "
                f"have been accepted (client request id {client_request_id})."
            )
            steps = (NextStep(Verb.RECOVER, client_request_id=client_request_id),)
        else:
            usual, steps = "Interrupted before anything was submitted.", ()
        self.message = message or usual
        super().__init__(self.message)
        self.generation_id = generation_id
        self.client_request_id = client_request_id
        self.next_steps = steps if next_steps is None else tuple(next_steps)

    def __str__(self) -> str:
        return describe(self, self.words)
