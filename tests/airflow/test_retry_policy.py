"""KlingRetryPolicy: how long to wait before a retry."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kling_integrations.airflow import KlingRetryPolicy, KlingVideoOperator
from kling_integrations.airflow.exceptions import task_error
from kling_integrations.core.errors import (
    DownloadError,
    GenerationFailedError,
    InvalidRequestError,
    RateLimitedError,
    SubmissionUncertainError,
    WaitTimeoutError,
)

policies = pytest.mark.skipif(
    not hasattr(KlingVideoOperator, "retry_policy"), reason="Airflow has them from 3.3 on"
)


@policies
@pytest.mark.parametrize(
    ("error", "action", "delay"),
    [
        (RateLimitedError("x"), "retry", timedelta(minutes=6)),
        (DownloadError("x"), "retry", timedelta(seconds=30)),
        (WaitTimeoutError("x"), "retry", timedelta(minutes=5)),
        (GenerationFailedError("x", kind="provider"), "retry", timedelta(minutes=1)),
        (GenerationFailedError("x", kind="moderation"), "fail", None),
        (InvalidRequestError("x"), "fail", None),
        (SubmissionUncertainError("x"), "fail", None),
    ],
)
def test_each_trouble_waits_as_long_as_it_deserves(error, action, delay):
    decision = KlingRetryPolicy().evaluate(task_error(error), try_number=3, max_tries=5)
    assert (decision.action.value, decision.retry_delay) == (action, delay)
    assert decision.reason


@policies
def test_an_open_post_is_looked_up_by_the_retry():
    error = task_error(SubmissionUncertainError("x"), settled_later=True)
    decision = KlingRetryPolicy().evaluate(error, try_number=1, max_tries=5)
    assert (decision.action.value, decision.retry_delay) == ("retry", timedelta(minutes=1))
    assert "log" in decision.reason


@policies
def test_an_error_of_another_package_is_left_to_the_task():
    assert KlingRetryPolicy().evaluate(ValueError(), 1, 2).action.value == "default"


@policies
def test_the_policy_survives_serialisation():
    policy = KlingRetryPolicy(download=timedelta(seconds=3))
    assert vars(KlingRetryPolicy.deserialize(policy.serialize())) == vars(policy)


def test_a_task_takes_a_retry_policy_on_every_airflow(logged):
    operator = KlingVideoOperator(task_id="v", prompt="x", retry_policy=KlingRetryPolicy())
    if not hasattr(KlingVideoOperator, "retry_policy"):
        assert "no retry policies" in logged()
    else:
        assert isinstance(operator.retry_policy, KlingRetryPolicy)
