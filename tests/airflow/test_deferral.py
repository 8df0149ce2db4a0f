"""Before and at a deferral: what is looked at, and what Airflow is given."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from kling_integrations.airflow import KlingVideoOperator

RACCOON = "A cheerful white raccoon"


def test_a_trigger_that_cannot_be_stored_stops_the_attempt_before_it_pays(
    sandbox, task, monkeypatch
):
    from kling_integrations.airflow import deferral

    class Odd(deferral.KlingVideoTrigger):
        def serialize(self) -> Any:
            path, kwargs = super().serialize()
            return path, {**kwargs, "what": object()}

    monkeypatch.setattr(deferral, "KlingVideoTrigger", Odd)
    attempt = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    with pytest.raises(AirflowFailException, match="cannot be deferred"):
        attempt.start()
    assert sandbox.posts == []


def test_the_status_is_looked_at_before_deferring_again(sandbox, task):
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), retries=1
    )
    attempt.start()
    sandbox.finish()
    assert attempt.start()["status"] == "completed"  # no second deferral


def test_the_defer_carries_no_kwargs(sandbox, task):
    """``dag.test()`` drops them (apache/airflow sdk/definitions/dag.py)."""
    attempt = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    assert not attempt.start().kwargs
