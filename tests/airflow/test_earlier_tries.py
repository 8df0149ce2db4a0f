"""A try that finds no record asks the gateway's log for the POSTs of the tries before it."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from kling_integrations.airflow.exceptions import KlingTaskError

from .test_submitting import RACCOON, attempts

pytestmark = pytest.mark.thorough  # whole lives of tasks, side by side and one after the other


@pytest.fixture
def sandbox(slower_sandbox):
    return slower_sandbox


@pytest.fixture
def attempt(sandbox, task, operator):
    """A task whose first try has finished, and whose record is gone."""
    made = task(operator(), retries=2)
    made.run()
    made.lose_record()
    return made


@pytest.mark.parametrize("cleared", [True, False])
def test_what_an_earlier_try_made_is_delivered_and_recorded_again(
    sandbox, attempt, cleared, tmp_path
):
    (first,) = sandbox.jobs
    if cleared:
        attempt.clear()
    assert attempt.run()["generation_id"] == first
    assert attempt.store.get("kling_submission")["generation_id"] == first
    assert len(sandbox.posts) == 1


def test_each_try_has_an_id_of_its_own(sandbox, task, operator):
    attempt = task(operator(), retries=2)
    for _ in range(3):
        sandbox.fault("submit", "429", None)
        with pytest.raises(KlingTaskError):
            attempt.run()
        sandbox.clear_faults()
    posts = {post.client_request_id for post in sandbox.posts}
    assert len(posts) == 3


def test_the_third_try_finds_the_post_of_the_first(sandbox, task, operator):
    attempt = task(operator(), retries=3)
    attempt.run()
    attempt.lose_record()
    attempt.tries += 1  # one that ended before it could look
    assert attempt.run()["generation_id"] in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_while_the_log_is_out_of_reach_nothing_is_submitted(sandbox, attempt):
    sandbox.fault("logs", "503", None)
    with pytest.raises(KlingTaskError, match="log is out of reach") as caught:
        attempt.run()
    assert not isinstance(caught.value, AirflowFailException)
    sandbox.clear_faults()
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 1


def test_another_input_is_another_video(sandbox, attempt, operator):
    attempt.clear()
    attempt.make = operator(prompt="A black fox")
    attempt.run()
    assert [post.body["prompt"] for post in sandbox.posts] == [RACCOON, "A black fox"]


def test_what_was_to_be_regenerated_is(sandbox, task, operator):
    attempt = task(operator(on_clear="regenerate"), retries=2)
    attempt.run()
    attempt.lose_record()
    attempt.clear()
    second = attempt.run()["generation_id"]
    assert len(sandbox.posts) == 2
    attempt.lose_record()
    assert attempt.run()["generation_id"] == second  # a retry of the clear is no clear
    assert len(sandbox.posts) == 2


def test_what_failed_is_submitted_anew(sandbox, task, operator):
    sandbox.fails = "provider"
    attempt = task(operator(), retries=1)
    with pytest.raises(KlingTaskError):
        attempt.run()
    sandbox.fails = None
    attempt.lose_record()
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 2


def test_a_reply_that_was_lost_and_a_record_that_is_gone_is_found_too(sandbox, task, operator):
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(), retries=1)
    with pytest.raises(KlingTaskError):
        attempt.run()
    sandbox.finish()
    attempt.lose_record()
    assert attempts(attempt)["generation_id"] in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_a_first_try_and_a_task_that_keeps_no_record_ask_no_log(sandbox, task, operator):
    task(operator()).run()
    attempt = task(operator(durable=False), retries=1)
    attempt.run()
    attempt.run()
    assert sandbox.requests["logs"] == 0
    assert len(sandbox.posts) == 3


def test_a_run_that_was_made_anew_posts_under_an_id_of_its_own(sandbox, task, operator):
    """Its first try has the number of the other run's first try."""
    attempt = task(operator(on_clear="regenerate"))
    attempt.run()
    attempt.tries, attempt.max_tries = 0, attempt.retries
    attempt.run()
    assert len({post.client_request_id for post in sandbox.posts}) == 2
