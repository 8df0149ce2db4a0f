"""The exceptions that a task raises, and which of them an error of the core becomes.

An error that the next try would meet again fails the task at once; trouble that passes, and all
trouble about a generation that is paid for, is left to Airflow's own retries. All are
AirflowExceptions, because a resuming sensor honours ``soft_fail`` for nothing else. They say what
happened in the core's words and what can be done next in Airflow's.

KlingTaskError          AirflowException: a retry may cure it
├── KlingFailed         AirflowFailException: no retry cures it
├── KlingWaitTimeout    an operator's wait is over, the generation goes on
└── KlingSensorTimeout  AirflowSensorTimeout: the same of a sensor, for which it is final
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
)

from ..core.errors import (
    AuthenticationError,
    GenerationFailedError,
    GenerationNotFoundError,
    InsufficientCreditsError,
    InvalidRequestError,
    KlingError,
    LedgerError,
    LedgerUnreachableError,
    SubmissionUncertainError,
    WaitTimeoutError,
    describe,
)
from .get_provider_info import DEFAULT_CONNECTION
from .hints import EVERYWHERE, Kept, renderer


class KlingTaskError(AirflowException):
    """A task's error that Airflow's retries may cure.

    ``error`` is the core's. Its next steps are worded for a task that uses ``kling_conn_id``;
    ``kept``: what the next attempt knows of what this one paid for; None: nothing.
    """

    def __init__(
        self,
        error: KlingError,
        kling_conn_id: str = DEFAULT_CONNECTION,
        *,
        kept: Kept | None = EVERYWHERE,
    ) -> None:
        super().__init__(describe(error, renderer(kling_conn_id, kept=kept)))
        self.error = error


class KlingFailed(KlingTaskError, AirflowFailException):  # noqa: N818
    """A task's error that no retry cures: Airflow fails the task at once."""


class KlingWaitTimeout(KlingTaskError):  # noqa: N818
    """The wait is over, the generation goes on. A retry waits for the same generation."""


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
# Beside a generation that is paid for, these are about the key or the way to it: both can be mended
# while the retries last, and a task that failed for good would leave the video behind.
_MENDED = (AuthenticationError, InsufficientCreditsError, InvalidRequestError)
_FINAL_KINDS = ("moderation", "input", "credits")


def task_error(
    error: KlingError,
    kling_conn_id: str = DEFAULT_CONNECTION,
    *,
    kept: Kept | None = EVERYWHERE,
    settled_later: bool = False,
) -> KlingTaskError:
    """The exception for an error of the core; the arguments are those of KlingTaskError.

    ``settled_later``: the next attempt can tell what became of an uncertain submission.
    """
    kind = _kind(error)
    if settled_later and isinstance(error, SubmissionUncertainError):
        kind = KlingTaskError
    return kind(error, kling_conn_id, kept=kept)


def _kind(error: KlingError) -> type[KlingTaskError]:
    if isinstance(error, WaitTimeoutError):
        return KlingWaitTimeout
    if isinstance(error, GenerationFailedError):
        return KlingFailed if error.kind in _FINAL_KINDS else KlingTaskError
    if isinstance(error, LedgerUnreachableError):
        return KlingTaskError  # a disk or a bucket that is away comes back
    if error.generation_id and isinstance(error, _MENDED):
        return KlingTaskError
    return KlingFailed if isinstance(error, _FINAL) else KlingTaskError
