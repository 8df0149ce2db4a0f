"""``@task.kling``: what a function returns is made, and paid for once."""

from __future__ import annotations

import inspect
import json

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import DAG, task

from kling_integrations.airflow import KlingVideoOperator, kling_task
from kling_integrations.airflow.decorators import KlingDecoratedOperator
from kling_integrations.airflow.exceptions import KlingFailed


@pytest.fixture
def decorated(tmp_path, deferrable):
    """``decorated(function)`` makes a maker of its operators, which save to ``tmp_path``."""

    def configure(function, **changes):
        options = {
            "task_id": "video",
            "python_callable": function,
            "deferrable": deferrable,
            "output_path": str(tmp_path / "video.mp4"),
            **changes,
        }
        return lambda: KlingDecoratedOperator(**options)

    return configure


def test_airflow_knows_the_decorator_by_its_name():
    with DAG("d", schedule=None) as dag:

        @task.kling(duration=5, retries=3, pool="kling")
        def teaser(colour: str):
            return f"A {colour} fox"

        teaser("red")
    made = dag.get_task("teaser")
    assert isinstance(made, KlingVideoOperator)
    assert (made.duration, made.retries, made.pool) == (5, 3, "kling")
    assert made.custom_operator_name == "@task.kling"


def test_a_function_that_returns_a_dictionary_of_arguments_has_one_output():
    # Airflow 3.0 fails a task that pushes None, when its video is paid for.
    with DAG("d", schedule=None) as dag:

        @task.kling
        def teaser() -> dict:
            return {"prompt": "A fox"}

        @task.kling(multiple_outputs=True)
        def apart() -> dict:
            return {"prompt": "A fox"}

        teaser(), apart()
    assert not dag.get_task("teaser").multiple_outputs
    assert dag.get_task("apart").multiple_outputs


def test_it_is_mapped_like_any_other_task():
    with DAG("d", schedule=None) as dag:

        @task.kling(output_path="/videos/{{ ti.map_index }}.mp4")
        def teaser(colour: str, animal: str):
            return f"A {colour} {animal}"

        teaser.partial(animal="fox").expand(colour=["red", "white", "blue"])
    mapped = dag.get_task("teaser")
    assert mapped.operator_class is KlingDecoratedOperator
    context = {"ti": None, "run_id": "r"}
    unmapped = mapped.unmap({"op_kwargs": {"colour": "red", "animal": "fox"}, "task_id": "teaser"})
    assert unmapped._ask(context) == {"prompt": "A red fox"}


def test_a_returned_text_is_the_prompt(sandbox, task, decorated, tmp_path):
    attempt = task(decorated(lambda: "A fox in the snow"))
    made = attempt.run()
    assert [post.body["prompt"] for post in sandbox.posts] == ["A fox in the snow"]
    assert made["size"] == (tmp_path / "video.mp4").stat().st_size


def test_a_returned_dictionary_sets_the_operators_arguments(sandbox, task, decorated, tmp_path):
    def teaser():
        return {
            "prompt": "A fox",
            "duration": 10,
            "output_path": str(tmp_path / "fox.mp4"),
        }

    made = task(decorated(teaser, duration=5)).run()
    assert sandbox.posts[0].body["duration"] in (10, "10")
    assert made["path"] == str(tmp_path / "fox.mp4")
    assert (tmp_path / "fox.mp4").exists()


def test_what_the_function_returns_never_becomes_a_template(sandbox, task, decorated):
    task(decorated(lambda: "A fox {{ var.value.secret }}")).run()
    assert sandbox.posts[0].body["prompt"] == "A fox {{ var.value.secret }}"


def test_the_function_gets_the_context_that_it_asks_for(sandbox, task, decorated):
    task(decorated(lambda ti=None: f"Try {ti.try_number}")).run()
    assert sandbox.posts[0].body["prompt"] == "Try 1"


def test_after_a_deferral_the_function_is_not_run_again(sandbox, task, decorated, tmp_path):
    runs = []

    def teaser():
        runs.append(1)
        return {"prompt": f"A fox, {len(runs)}", "output_path": str(tmp_path / f"{len(runs)}.mp4")}

    attempt = task(decorated(teaser, deferrable=True))
    deferred = attempt.start()
    assert isinstance(deferred, TaskDeferred)
    kwargs = json.loads(json.dumps(deferred.kwargs))
    event = {
        "format": 1,
        "generation_id": next(iter(sandbox.jobs)),
        "elapsed_seconds": 1.0,
        "polls": 1,
        "error": None,
    }
    sandbox.finish(event["generation_id"])
    again = attempt.make()
    made = again.resume_execution("execute_complete", {**kwargs, "event": event}, attempt.context())
    assert len(runs) == 1
    assert made["path"] == str(tmp_path / "1.mp4")
    assert again.prompt == "A fox, 1"  # what the page of rendered templates shows


def test_what_travels_with_the_deferral_holds_no_signed_address(sandbox, task, decorated):
    def teaser():
        return {
            "prompt": "A fox",
            "extra": {"camera": "https://store.test/a.png?X-Amz-Signature=secret"},
        }

    deferred = task(decorated(teaser, deferrable=True)).start()
    assert "secret" not in json.dumps(deferred.kwargs)


def test_a_retry_goes_on_with_what_is_paid_for_whatever_the_function_returns(
    sandbox, task, decorated, logged
):
    runs = []

    def teaser():
        runs.append(1)
        return f"A fox, {len(runs)}"

    attempt = task(decorated(teaser, deferrable=True), retries=2)
    attempt.start()
    made = attempt.run()
    assert len(sandbox.posts) == 1
    assert made["generation_id"] == next(iter(sandbox.jobs))
    assert "has changed" in logged()


def test_a_function_that_fails_on_a_retry_loses_no_video(sandbox, task, decorated, logged):
    runs = []

    def teaser():
        runs.append(1)
        if len(runs) == 2:
            raise ConnectionError("no answer")
        return "A fox"

    attempt = task(decorated(teaser, deferrable=True), retries=2)
    attempt.start()
    made = attempt.run()
    assert len(sandbox.posts) == 1
    assert made["status"] == "completed"
    assert "no answer" in logged()


def test_a_function_that_fails_pays_nothing(sandbox, task, decorated):
    def teaser():
        raise ConnectionError("no answer")

    attempt = task(decorated(teaser))
    with pytest.raises(ConnectionError):
        attempt.run()
    assert not sandbox.posts


def test_a_function_that_fails_after_a_clear_submits_nothing(sandbox, task, decorated):
    runs = []

    def teaser():
        runs.append(1)
        if len(runs) == 2:
            raise ConnectionError("no answer")
        return "A fox"

    attempt = task(decorated(teaser, deferrable=False, on_clear="regenerate"))
    attempt.run()
    attempt.clear()
    with pytest.raises(ConnectionError):
        attempt.run()
    assert len(sandbox.posts) == 1


@pytest.mark.parametrize("returned", [None, 3, ["A fox"], {"promt": "A fox"}, {"task_id": "x"}])
def test_anything_else_is_refused_before_the_submit(sandbox, task, decorated, returned):
    with pytest.raises(KlingFailed, match="Nothing was submitted"):
        task(decorated(lambda: returned)).run()
    assert not sandbox.posts


def test_editors_know_each_argument_of_the_operator():
    operators = inspect.signature(KlingVideoOperator.__init__).parameters
    assert not operators.keys() - inspect.signature(kling_task).parameters.keys() - {"self"}


def test_the_typed_name_makes_the_same_task():
    with DAG("d", schedule=None) as dag:

        @kling_task
        def teaser():
            return "A fox"

        teaser()
    assert isinstance(dag.get_task("teaser"), KlingDecoratedOperator)


def test_a_picture_that_the_function_returns_as_none_was_lost(sandbox, task, decorated):
    with pytest.raises(KlingFailed, match="image"):
        task(decorated(lambda: {"prompt": "A fox", "image": None})).run()
    assert sandbox.posts == []
