"""Which exception of Airflow an error of the core becomes, and what it says."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
)

from kling_integrations.airflow.exceptions import (
    KlingFailed,
    KlingSensorTimeout,
    KlingTaskError,
    KlingWaitTimeout,
    task_error,
)
from kling_integrations.core import errors
from kling_integrations.core.errors import GenerationFailedError, KlingError, NextStep, Verb

RETRIED = {"KlingError", "RateLimitedError", "ServerError", "DownloadError", "LinkExpiredError"}
RETRIED |= {"LedgerUnreachableError", "SubmittingEndedError"}
FINAL = {
    "AuthenticationError",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "SubmissionUncertainError",
    "GenerationNotFoundError",
    "LedgerError",
}


def test_every_error_of_the_core_has_its_exception():
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, KlingError)
    }
    assert set(kinds) == RETRIED | FINAL | {"GenerationFailedError", "WaitTimeoutError"}
    for name in RETRIED:
        assert type(task_error(kinds[name]("x"))) is KlingTaskError
    for name in FINAL:
        assert type(task_error(kinds[name]("x"))) is KlingFailed
    assert type(task_error(kinds["WaitTimeoutError"]("x"))) is KlingWaitTimeout


@pytest.mark.parametrize(
    ("kind", "exception"),
    [
        ("moderation", KlingFailed),
        ("input", KlingFailed),
        ("credits", KlingFailed),
        ("provider", KlingTaskError),
        ("unknown", KlingTaskError),
    ],
)
def test_a_failed_generation_is_final_where_the_next_would_fail_as_well(kind, exception):
    assert type(task_error(GenerationFailedError("x", kind=kind))) is exception


def test_they_are_airflows():
    assert issubclass(KlingTaskError, AirflowException)
    assert issubclass(KlingFailed, AirflowFailException)
    assert issubclass(KlingSensorTimeout, AirflowSensorTimeout)


def test_they_say_what_happened_then_the_hint_then_the_next_steps_in_airflows_words():
    error = KlingError(
        "It broke.", hint="It happens.", next_steps=[NextStep(Verb.SET_KEY), NextStep(Verb.WAIT)]
    )
    raised = task_error(error, "other")
    assert raised.error is error
    assert str(raised) == (
        "It broke.\n"
        "  It happens.\n"
        "  Set the API key as the password of the connection 'other'.\n"
        "  A retry or a clear of this task picks up what is paid for."
    )


@pytest.mark.parametrize("name", sorted(FINAL - {"GenerationNotFoundError"}))
def test_trouble_about_a_generation_that_is_paid_for_is_left_to_the_retries(name):
    kind = getattr(errors, name)
    retried = {"AuthenticationError", "InsufficientCreditsError", "InvalidRequestError"}
    expected = KlingTaskError if name in retried else KlingFailed
    assert type(task_error(kind("x", generation_id="g-1"))) is expected


def test_an_uncertain_submission_is_retried_only_where_the_next_attempt_can_settle_it():
    error = errors.SubmissionUncertainError("x")
    assert type(task_error(error, settled_later=True)) is KlingTaskError
    assert type(task_error(error)) is KlingFailed
    assert type(task_error(errors.InvalidRequestError("x"), settled_later=True)) is KlingFailed
