"""KlingRetryPolicy: when a retry of a Kling task makes sense (Airflow 3.3 and up)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..core.errors import (
    DownloadError,
    GenerationFailedError,
    KlingError,
    RateLimitedError,
    SubmissionUncertainError,
)
from .exceptions import KlingFailed, KlingTaskError, KlingWaitTimeout
from .version_compat import RetryDecision, RetryPolicy


class KlingRetryPolicy(RetryPolicy):
    """How long to wait before a retry, by the kind of trouble; the log gives the reason.

    ``retries`` of the task stays the bound. A refused request, key or prompt is never retried
    (Airflow does not even ask then); rate limits wait ``rate_limit`` longer with each try, a
    generation that the provider failed is submitted anew after ``provider`` (failed ones are not
    billed), a POST of unknown outcome is looked up in the gateway's log after ``provider``, a
    finished video that could not be saved is downloaded again after ``download``, and a generation
    that outlasted its timeout is waited for again after ``still_running``. Before Airflow 3.3 there
    are no retry policies: the operator then leaves it out, with a warning.
    """

    def __init__(
        self,
        *,
        rate_limit: timedelta = timedelta(minutes=2),
        provider: timedelta = timedelta(minutes=1),
        download: timedelta = timedelta(seconds=30),
        still_running: timedelta = timedelta(minutes=5),
    ) -> None:
        self.rate_limit = rate_limit
        self.provider = provider
        self.download = download
        self.still_running = still_running

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        if isinstance(exception, KlingFailed):
            return RetryDecision.fail(reason=exception.error.message)
        if isinstance(exception, KlingWaitTimeout):
            return RetryDecision.retry(
                self.still_running, "the generation goes on: the retry waits for it again"
            )
        if isinstance(exception, KlingTaskError):
            delay, reason = self._delay(exception.error, try_number)
            return RetryDecision.retry(delay, reason)
        return RetryDecision.default()

    def _delay(self, error: KlingError, try_number: int) -> tuple[timedelta, str]:
        if isinstance(error, RateLimitedError):
            return self.rate_limit * max(1, try_number), "the gateway limits the rate"
        if isinstance(error, DownloadError):
            return self.download, "the video is kept: only the download is repeated"
        if isinstance(error, SubmissionUncertainError):
            return self.provider, "it may be paid: the retry looks into the gateway's log first"
        if isinstance(error, GenerationFailedError):
            return self.provider, "the provider failed, which is not billed: submitted anew"
        return self.provider, "trouble that may pass"

    def serialize(self) -> dict[str, Any]:
        return {
            "__type": f"{type(self).__module__}.{type(self).__qualname__}",
            **{name: value.total_seconds() for name, value in vars(self).items()},
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> KlingRetryPolicy:
        return cls(
            **{
                name: timedelta(seconds=seconds)
                for name, seconds in data.items()
                if name != "__type"
            }
        )
