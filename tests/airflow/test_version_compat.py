"""What an Airflow lacks is left out, with a warning; what it has is used."""

from __future__ import annotations

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.execution_time import context

from kling_integrations.airflow import version_compat


def test_an_argument_that_this_airflow_does_not_know_is_left_out_with_a_warning(logged):
    arguments = {"retries": 1, "retry_policy": object()}
    if hasattr(BaseOperator, "retry_policy"):
        assert version_compat.supported(arguments) == arguments
        assert "no retry policies" not in logged()
    else:
        assert version_compat.supported(arguments) == {"retries": 1}
        assert "no retry policies" in logged()


def test_other_arguments_pass(logged):
    assert version_compat.supported({"retries": 1, "unheard_of": 2}) == {
        "retries": 1,
        "unheard_of": 2,
    }


def test_the_store_is_the_contexts_and_none_without_one():
    store = object()
    assert version_compat.task_state_store({"task_state_store": store}) is store
    assert version_compat.task_state_store({}) is None


def test_the_store_and_its_expiry_come_with_the_same_airflow():
    assert bool(version_compat.FOREVER) is hasattr(context, "NEVER_EXPIRE")


@pytest.mark.parametrize(
    ("airflow", "discards"),
    [
        ("3.0.6", False),
        ("3.3.2", False),
        ("3.4.0b2", True),
        ("3.4.0", True),
        ("4.0.0", True),
    ],
)
def test_a_clear_empties_the_task_state_store_from_3_4_on(monkeypatch, airflow, discards):
    import importlib

    import airflow as installed

    from kling_integrations.airflow import version_compat

    with monkeypatch.context() as patch:
        patch.setattr(installed, "__version__", airflow)
        assert importlib.reload(version_compat).CLEAR_DISCARDS_STATE is discards
    importlib.reload(version_compat)
