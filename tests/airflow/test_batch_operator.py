"""KlingBatchOperator: one round after the other, counting what reaches the gateway."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from kling_integrations.airflow import KlingBatchOperator
from kling_integrations.airflow.exceptions import KlingTaskError
from kling_integrations.core.batch.learned import Learned
from kling_integrations.core.storage.folder_records import FolderRecords
from kling_integrations.core.storage.shared_budget import SharedBudget

pytestmark = pytest.mark.thorough  # whole lives of tasks, side by side and one after the other


async def events_of(trigger):
    return [event.payload async for event in trigger.run()]


def prompts(count):
    return [{"prompt": f"number {number}", "name": f"n{number}"} for number in range(count)]


@pytest.fixture(autouse=True)
def no_least_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scheduler of a real Airflow needs is not needed here."""
    monkeypatch.setattr("kling_integrations.airflow.batch_trigger._LEAST", 0.0)


@pytest.fixture
def batch(tmp_path: Path, deferrable: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``batch(rows, **changes)`` makes a maker of operators."""
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))

    def configure(rows: Any = None, **changes: Any) -> Any:
        options = {
            "task_id": "batch",
            "rows": rows,
            "output_path": f"{tmp_path}/out/",
            "results_path": str(tmp_path / "results.csv"),
            "deferrable": deferrable,
            "at_once": 4,
            **changes,
        }
        return lambda: KlingBatchOperator(**options)

    return configure


def to_the_end(attempt):
    """A whole attempt of many rounds; how many times it deferred."""
    result, rounds = attempt.start(), 0
    while isinstance(result, TaskDeferred):
        rounds += 1
        assert rounds < 50
        try:
            result = attempt.resume()
        except TaskDeferred as again:
            result = attempt.deferred_again(again)
    return result, rounds


def lines(tmp_path):
    text = (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_table_becomes_videos_and_a_table_and_xcom_holds_counts(
    sandbox, task, batch, tmp_path, deferrable
):
    made, rounds = to_the_end(task(batch(prompts(10))))
    assert made["rows"] == made["completed"] == 10
    assert len(json.dumps(made)) < 1000
    assert (rounds > 1) == deferrable
    rows = lines(tmp_path)
    assert [row["name"] for row in rows] == [f"n{n}" for n in range(10)]
    assert {row["status"] for row in rows} == {"completed"}
    assert all(Path(row["path"]).stat().st_size == row["size"] for row in rows)
    assert (tmp_path / "results.csv").read_text().count("\n") == 11
    assert len(sandbox.posts) == 10


def test_no_more_than_the_window_is_under_way(sandbox, task, batch, deferrable):
    attempt = task(batch(prompts(9)))
    if not deferrable:
        return
    assert isinstance(attempt.start(), TaskDeferred)
    assert sandbox.paid == 4
    assert len(attempt.trigger.window) == 4
    assert attempt.trigger.enough == 2


def test_a_retry_and_a_clear_go_on_where_the_table_stands(sandbox, task, batch, tmp_path):
    attempt = task(batch(prompts(6)), retries=2)
    attempt.start()  # a kill of the worker or the triggerer: whatever runs, goes on
    made, _ = to_the_end(attempt)
    assert made["completed"] == 6
    attempt.clear()
    made, _ = to_the_end(attempt)
    assert made["completed"] == 6
    assert len(sandbox.posts) == 6


def test_without_its_results_the_records_still_know_what_is_paid_for(
    sandbox, task, batch, tmp_path
):
    to_the_end(task(batch(prompts(5))))
    (tmp_path / "results.jsonl").unlink()
    made, _ = to_the_end(task(batch(prompts(5))))
    assert made["completed"] == 5
    assert len(sandbox.posts) == 5


def test_another_run_has_another_table_of_results_and_makes_new_videos(
    sandbox, task, batch, tmp_path
):
    to_the_end(task(batch(prompts(2))))
    to_the_end(task(batch(prompts(2), results_path=str(tmp_path / "monday.parquet"))))
    assert len(sandbox.posts) == 4


def test_a_failed_row_is_data_unless_it_shall_count(sandbox, task, batch, tmp_path):
    rows = [*prompts(2), {"prompt": "x [fail:moderation]"}, {"prompt": "y [fail:provider]"}]
    made, _ = to_the_end(task(batch(rows)))
    assert (made["completed"], made["failed"]) == (2, 2)
    with pytest.raises(AirflowFailException, match="2 of 4 rows"):
        to_the_end(task(batch(rows, fail_on_partial_error=True)))
    assert len(sandbox.posts) == 4
    made, _ = to_the_end(task(batch(rows, retry_failed=True)))
    assert Counter(post.body["prompt"] for post in sandbox.posts)[rows[3]["prompt"]] == 2
    assert len(sandbox.posts) == 5


def test_the_limit_holds_over_all_rounds_and_attempts(sandbox, task, batch):
    made, _ = to_the_end(task(batch(prompts(20), max_cost_usd=3.0)))
    assert (made["completed"], made["not_submitted"]) == (6, 14)
    made, _ = to_the_end(task(batch(prompts(20), max_cost_usd="3.0")))
    assert sandbox.paid == 6


def test_bad_rows_are_all_named_and_nothing_is_paid(sandbox, task, batch):
    rows = [*prompts(2), {"prompt": ""}, {"prompt": "a", "duration": 7}]
    with pytest.raises(AirflowFailException, match="row 3, prompt(.|\n)*row 4, duration"):
        to_the_end(task(batch(rows)))
    assert not sandbox.posts
    made, _ = to_the_end(task(batch(rows, skip_bad=True)))
    assert (made["completed"], made["refused"]) == (2, 2)


def test_results_of_another_table_are_gone_on_with_or_refused(sandbox, task, batch):
    to_the_end(task(batch(prompts(3))))
    with pytest.raises(AirflowFailException, match="rows that the table has no more"):
        to_the_end(task(batch(prompts(2), on_stale_state="fail")))
    made, _ = to_the_end(task(batch(prompts(4)[1:])))
    assert made["completed"] == 3
    assert len(sandbox.posts) == 4


def test_a_post_without_a_reply_is_looked_up_and_not_repeated(sandbox, task, batch):
    sandbox.fault("submit", "drop-after", 2)
    made, _ = to_the_end(task(batch(prompts(6))))
    assert made["completed"] == 6
    assert sandbox.paid == len(sandbox.posts) == 6


def test_a_post_that_was_not_taken_is_uncertain_unless_it_may_be_repeated(sandbox, task, batch):
    sandbox.fault("submit", "drop-before", 1)
    made, _ = to_the_end(task(batch(prompts(3))))
    assert (made["completed"], made["uncertain"]) == (2, 1)
    made, _ = to_the_end(task(batch(prompts(3), on_ambiguous_submit="resubmit")))
    assert made["completed"] == 3
    assert sandbox.paid == 3


def test_a_video_that_cannot_be_saved_is_left_to_the_retries(sandbox, task, batch, tmp_path):
    sandbox.fault("download", "404", None)
    with pytest.raises(KlingTaskError, match="could not be saved"):
        to_the_end(task(batch(prompts(2))))
    sandbox.clear_faults()
    made, _ = to_the_end(task(batch(prompts(2))))
    assert made["completed"] == 2
    assert all(row["path"] for row in lines(tmp_path))
    assert len(sandbox.posts) == 2


def test_rows_come_from_a_file_and_from_text_that_a_template_made(sandbox, task, batch, tmp_path):
    (tmp_path / "p.csv").write_text("text,sku\na,1\na,2\n")
    columns = {"prompt": "text", "key": "sku"}
    made, _ = to_the_end(
        task(batch(rows_path=str(tmp_path / "p.csv"), columns=columns, defaults={"duration": 10}))
    )
    assert made["completed"] == 2
    assert {post.body["duration"] for post in sandbox.posts} == {10}
    text = json.dumps(prompts(1))
    other = str(tmp_path / "other.jsonl")
    assert to_the_end(task(batch(text, results_path=other)))[0]["completed"] == 1


def test_the_trigger_survives_storing_and_only_polls(sandbox, task, batch, deferrable):
    if not deferrable:
        return
    attempt = task(batch(prompts(4)))
    attempt.start()
    before = sandbox.requests["submit"]
    [event] = asyncio.run(events_of(attempt.trigger))
    assert len(event["ended"]) >= 2
    assert set(event["ended"]) <= set(sandbox.jobs)
    assert sandbox.requests["submit"] == before


def test_an_event_that_is_not_understood_lets_the_worker_look_at_all(
    sandbox, task, batch, deferrable
):
    if not deferrable:
        return
    attempt = task(batch(prompts(2)))
    attempt.start()
    sandbox.finish()
    assert attempt.resume({"odd": 1})["completed"] == 2


def test_what_a_round_learned_of_the_gateway_the_next_one_begins_with(
    sandbox, task, batch, deferrable
):
    if not deferrable:
        return
    sandbox.seconds = 300  # later than expected, so that it is asked for more than once
    attempt = task(batch(prompts(30), at_once=16))
    sandbox.fault("submit", "slow", 3, seconds=0.01)
    sandbox.fault("submit", "429", 1)
    first = attempt.start()
    assert isinstance(first, TaskDeferred)
    limit = attempt.trigger.learned["limit"]
    assert limit is not None
    assert limit <= len(attempt.trigger.window) + 1 < 16
    with pytest.raises(TaskDeferred) as again:
        attempt.resume()
    assert attempt.event["learned"]["times"][0][2]  # when they ended, as the triggerer saw it
    attempt.deferred_again(again.value)
    assert attempt.trigger.learned["limit"] <= limit + 1
    assert len(attempt.trigger.window) <= limit + 1
    assert attempt.trigger.learned["times"]


def test_a_worker_looks_at_those_that_ended_while_it_started(sandbox, task, batch, deferrable):
    if not deferrable:
        return
    attempt = task(batch(prompts(8)))
    attempt.start()
    sandbox.finish()
    first, *others = sandbox.jobs
    young = {"format": 1, "ended": [first]}
    old = Learned(times={(model, seconds): [1.0] * 20 for model, seconds in kinds_of(attempt)})
    with pytest.raises(TaskDeferred) as again:
        attempt.resume({**young, "learned": old.to_json()})
    attempt.deferred_again(again.value)
    assert len(sandbox.posts) == 8
    assert not {each["id"] for each in attempt.trigger.window} & {first, *others}


def kinds_of(attempt):
    return {(each["model"], each["duration"]) for each in attempt.trigger.window}


# --- the budget of the run ---------------------------------------------------------------------


def test_a_table_that_does_not_fit_into_the_runs_budget_pays_nothing(
    sandbox, task, batch, tmp_path
):
    shelf = (tmp_path / "shelf").as_uri()
    with pytest.raises(AirflowFailException, match="is left of") as caught:
        to_the_end(task(batch(prompts(6), max_usd_per_run=0.5, record_path=shelf)))
    assert "max_usd_per_run" in str(caught.value)
    assert sandbox.posts == []


def test_a_table_is_settled_in_the_runs_budget_once_over_all_attempts(
    sandbox, task, batch, tmp_path
):
    shelf = tmp_path / "shelf"
    attempt = task(batch(prompts(3), max_usd_per_run=5, record_path=shelf.as_uri()))
    made, _ = to_the_end(attempt)
    attempt.clear()
    to_the_end(attempt)
    (run,) = (shelf / "runs").iterdir()
    totals = SharedBudget(FolderRecords(shelf), f"runs/{run.name}").totals()
    assert totals.spent == pytest.approx(made["usd"])
    assert totals.reserved == 0.0
    assert len(sandbox.jobs) == 3


# --- what templates make, and where things go ----------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ['[{"prompt": "a fox"}, {"prompt": "a cat"}]', "[{'prompt': 'a fox'}, {'prompt': 'a cat'}]"]
    + ['["a fox", "a cat"]', "['a fox', 'a cat']"],
)
def test_rows_may_be_the_text_of_a_template(sandbox, task, batch, text):
    made, _ = to_the_end(
        task(batch(text, defaults="{'duration': 5}", columns={"prompt": "prompt"}))
    )
    assert made["completed"] == 2
    assert {post.body["prompt"] for post in sandbox.posts} == {"a fox", "a cat"}
    assert {post.body["duration"] for post in sandbox.posts} == {5}


@pytest.mark.parametrize(
    "wrong",
    [{"rows": "LazySelectSequence([2 items])"}, {"rows": "None"}, {"rows": {"prompt": "a fox"}}]
    + [{"defaults": "[1]"}, {"output_path": "None"}, {"output_path": "s4://b/x/"}]
    + [{"output_path": "videos/"}, {"output_path": "s3//b/x"}, {"results_path": "results.csv"}]
    + [{"results_path": ""}, {"results_path": "None"}, {"record_path": "None"}]
    + [{"record_path": "/dev/null/x"}, {"output_path": "gs://b/x"}],
    ids=str,
)
def test_what_cannot_be_is_refused_before_any_row_is_paid(sandbox, task, batch, wrong):
    changes = {"rows": prompts(2), **wrong}
    with pytest.raises(AirflowFailException):
        to_the_end(task(batch(**changes)))
    assert sandbox.posts == []


def test_results_do_not_take_the_place_of_a_file_of_the_users(sandbox, task, batch, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("prompt\na fox\n")
    for changes in ({"rows_path": str(own)}, {"rows": prompts(1)}):
        make = batch(changes.get("rows"), rows_path=changes.get("rows_path"), results_path=str(own))
        with pytest.raises(AirflowFailException):
            to_the_end(task(make))
    assert (own.read_text(), sandbox.posts) == ("prompt\na fox\n", [])


def test_a_row_that_is_missing_its_prompt_is_a_line_that_says_so(sandbox, task, batch, tmp_path):
    rows = [{"prompt": "a fox", "weight": float("nan")}, {"prompt": None, "weight": 2.0}]
    to_the_end(task(batch(rows, skip_bad=True)))
    first, second = lines(tmp_path)
    assert first["weight"] is None
    assert second["status"] == "refused"
    assert not second["error"].startswith(":")


def test_lines_of_rows_that_the_table_has_no_more_stay_in_the_results(
    sandbox, task, batch, tmp_path
):
    to_the_end(task(batch(prompts(3))))
    to_the_end(task(batch(prompts(2))))
    assert len(lines(tmp_path)) == 3
    assert len(sandbox.posts) == 3
