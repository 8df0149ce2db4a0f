"""After ``on_kill`` an attempt submits nothing; what is on its way keeps its id."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from kling_integrations import VideoRequest
from kling_integrations.airflow import KlingBatchOperator, KlingHook, KlingVideoOperator
from kling_integrations.airflow.exceptions import KlingTaskError
from kling_integrations.airflow.stopping import Stopping
from kling_integrations.core.errors import SubmittingEndedError
from kling_integrations.core.http.async_client import AsyncKlingClient
from kling_integrations.core.http.client import KlingClient
from kling_integrations.core.submission import State


@pytest.fixture
def killed_at_prices(monkeypatch):
    """``killed_at_prices(kill)``: Airflow's signal comes while the price list is read."""

    def arm(kill):
        prices = KlingClient.prices

        def asked(client, model):
            kill()
            return prices(client, model)

        monkeypatch.setattr(KlingClient, "prices", asked)

    return arm


def test_a_task_that_is_killed_before_its_post_submits_nothing_and_a_retry_does(
    sandbox, task, operator, killed_at_prices
):
    made = []

    def make():
        made.append(operator(max_cost_usd=50)())
        return made[-1]

    attempt = task(make, retries=1)
    killed_at_prices(lambda: len(made) == 1 and made[0].on_kill())
    with pytest.raises(KlingTaskError) as raised:
        attempt.run()
    assert isinstance(raised.value.error, SubmittingEndedError)
    assert sandbox.posts == []
    assert attempt.store.get("kling_submission")["state"] == State.REFUSED
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 1


def test_a_task_that_is_killed_before_it_begins_submits_nothing(sandbox, task, operator):
    killed = operator()()
    killed.on_kill()
    with pytest.raises(KlingTaskError):
        task(lambda: killed).run()
    assert sandbox.posts == []


def to_the_end(attempt):
    result = attempt.start()
    while isinstance(result, TaskDeferred):
        try:
            result = attempt.resume()
        except TaskDeferred as again:
            result = attempt.deferred_again(again)
    return result


def test_the_next_attempt_in_the_same_process_submits(sandbox, task, operator):
    """As ``dag.test()`` has it, which runs all attempts on one operator."""
    one = operator()()
    attempt = task(lambda: one, retries=1)
    one.on_kill()
    with pytest.raises(KlingTaskError):
        attempt.run()
    assert attempt.run()["status"] == "completed"


def test_no_further_row_is_submitted_once_a_batch_is_killed(
    sandbox, task, deferrable, tmp_path, monkeypatch
):
    batch = KlingBatchOperator(
        task_id="batch",
        rows=[{"prompt": f"number {number}"} for number in range(8)],
        results_path=str(tmp_path / "results.jsonl"),
        at_once=2,
        deferrable=deferrable,
    )
    submit = AsyncKlingClient.submit

    async def killed_at_the_second(client, *given, **more):
        generation = await submit(client, *given, **more)
        if len(sandbox.posts) == 2:
            batch.on_kill()
        return generation

    monkeypatch.setattr(AsyncKlingClient, "submit", killed_at_the_second)
    with pytest.raises(KlingTaskError):
        to_the_end(task(lambda: batch))
    assert len(sandbox.posts) == len(sandbox.jobs) == 2


def test_the_hook_of_a_killed_task_submits_nothing_and_the_tasks_own_on_kill_is_called(
    sandbox, task, monkeypatch
):
    called = []
    attempt = task(lambda: None)
    attempt.tries, attempt.started = 1, attempt.dag_run.run_after
    context = attempt.context()
    own = SimpleNamespace(retries=0, on_kill=lambda: called.append("own"))
    context["ti"].task = own
    monkeypatch.setattr(
        "kling_integrations.airflow.version_compat.current_context", lambda: context
    )
    client = KlingHook().client
    own.on_kill()
    with pytest.raises(SubmittingEndedError):
        client.submit(VideoRequest(prompt="A fox"))
    assert (sandbox.posts, called) == ([], ["own"])


def test_a_client_that_is_made_after_the_kill_submits_nothing(sandbox):
    stopping = Stopping()
    stopping.end()
    with stopping.watch(KlingHook().access().client()) as client:
        with pytest.raises(SubmittingEndedError):
            client.submit(VideoRequest(prompt="A fox"))
    assert sandbox.posts == []
    assert KlingVideoOperator(task_id="other", prompt="A fox")._stopping is not stopping
