"""KlingRetryPolicy, and the link of a task."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kling_integrations.airflow import KlingRetryPolicy, KlingVideoLink, KlingVideoOperator
from kling_integrations.airflow.exceptions import verdict
from kling_integrations.core.errors import (
    DownloadError,
    GenerationFailedError,
    InvalidRequestError,
    RateLimitedError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from kling_integrations.core.http.client import KlingClient

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
    decision = KlingRetryPolicy().evaluate(verdict(error), try_number=3, max_tries=5)
    assert (decision.action.value, decision.retry_delay) == (action, delay)
    assert decision.reason


@policies
def test_an_error_of_somebody_else_is_left_to_the_task():
    assert KlingRetryPolicy().evaluate(ValueError(), 1, 2).action.value == "default"


@policies
def test_the_policy_survives_serialisation():
    policy = KlingRetryPolicy(download=timedelta(seconds=3))
    assert vars(KlingRetryPolicy.deserialize(policy.serialize())) == vars(policy)


def test_a_task_takes_a_retry_policy_on_every_airflow(said):
    operator = KlingVideoOperator(task_id="v", prompt="x", retry_policy=KlingRetryPolicy())
    if not hasattr(KlingVideoOperator, "retry_policy"):
        assert "no retry policies" in said()
    else:
        assert isinstance(operator.retry_policy, KlingRetryPolicy)


def test_the_link_names_the_generation_and_opens_nothing_by_itself(sandbox):
    with KlingClient(api_key="secret-key", base_url=sandbox.base_url) as client:
        link = KlingVideoLink.address(client, "a:b/c")
    assert link == f"{sandbox.base_url}/v2/video/generations?generation_id=a%3Ab%2Fc"


def test_the_link_is_known_to_airflow():
    from kling_integrations.airflow.get_provider_info import get_provider_info

    assert get_provider_info()["extra-links"] == [
        f"{KlingVideoLink.__module__}.{KlingVideoLink.__qualname__}"
    ]
