"""When a wait ends: the operator's timeout, Airflow's own, and the backstop behind both."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from kling_integrations.airflow import KlingVideoOperator

RACCOON = "A cheerful white raccoon"


def test_the_timeout_counts_from_the_submit_over_retries(sandbox, task):
    make = lambda: KlingVideoOperator(  # noqa: E731
        task_id="v", prompt=RACCOON, deferrable=True, timeout=6000
    )
    attempt = task(make, retries=1)
    attempt.start()
    first = attempt.trigger.end_time
    attempt.start()
    assert attempt.trigger.end_time == pytest.approx(first, abs=0.001)
    assert first == pytest.approx(time.time() + 6000 / sandbox.speed, abs=5)


def test_a_clear_starts_the_timeout_anew(sandbox, task):
    sandbox.seconds = 1e9
    make = lambda: KlingVideoOperator(  # noqa: E731
        task_id="v", prompt=RACCOON, deferrable=True, timeout=60
    )
    attempt = task(make)
    attempt.start()
    first = attempt.trigger.end_time
    attempt.clear()
    attempt.start()
    assert attempt.trigger.end_time > first


def test_airflows_own_timeout_is_only_a_backstop_behind_the_triggers(sandbox, task):
    attempt = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    deferred = attempt.start()
    left = attempt.trigger.end_time - time.time()
    assert deferred.timeout > timedelta(seconds=left + 60)


def test_a_shorter_execution_timeout_ends_the_deferred_wait(sandbox, task):
    attempt = task(
        lambda: KlingVideoOperator(
            task_id="v",
            prompt=RACCOON,
            deferrable=True,
            timeout=1e6,
            execution_timeout=timedelta(seconds=30),
        )
    )
    attempt.start()
    assert attempt.trigger.end_time == pytest.approx(attempt.started.timestamp() + 30, abs=1)
