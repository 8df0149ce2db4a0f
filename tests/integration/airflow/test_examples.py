"""Every example DAG in a real Airflow, against the sandbox, as its reader runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.airflow_demo import ROOT, LocalAirflow
from kling_integrations.airflow import version_compat
from kling_integrations.sandbox import Sandbox

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    # A generation that ends within seconds of its submit is met by Airflow's own races.
    with Sandbox(speed=30, size=(320, 180), fps=8) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def examples(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    connection = {"conn_type": "kling", "password": "any-key", "host": sandbox.base_url}
    settings = {
        "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
        "KLING_DEMO_OUTPUT": str(tmp_path_factory.mktemp("videos")),
    }
    home = tmp_path_factory.mktemp("examples")
    with LocalAirflow(ROOT / "dags_examples", home=home, settings=settings) as running:
        yield running


@pytest.mark.parametrize(
    ("dag_id", "task_id", "videos"),
    [
        ("kling_quick_start", "make_video", 1),
        ("kling_submit_and_sense", "wait", 1),
        ("kling_image_to_video", "animate", 1),
        ("kling_teaser", "make_teaser", 1),
        ("kling_batch_with_pool", "summary", 3),
        ("kling_prompt_from_function", "film", 1),
    ],
)
def test_an_example_makes_its_videos_and_pays_for_each_once(
    examples, sandbox, dag_id, task_id, videos
):
    posts = len(sandbox.posts)
    run_id = examples.trigger(dag_id)
    state = examples.finished(dag_id, run_id)
    tries = [(t["task_id"], t["state"], t["try_number"]) for t in examples.tasks(dag_id, run_id)]
    assert state == "success", tries
    made: Any = examples.xcom(dag_id, run_id, task_id)
    files = made["videos"] if dag_id == "kling_batch_with_pool" else [made["path"]]
    assert len(files) == videos
    assert all(Path(file).read_bytes()[4:8] == b"ftyp" for file in files)
    assert len(sandbox.posts) - posts == videos


@pytest.mark.skipif(not version_compat.HAS_TABS, reason="people are asked from 3.1 on")
def test_a_review_pays_for_another_take_and_publishes_what_was_approved(examples, sandbox):
    dag_id, posts = "kling_review_before_publishing", len(sandbox.posts)
    run_id = examples.trigger(dag_id, {"prompt": "A paper boat"})

    def questions() -> int:
        """How often the scheduler has heard that the process which asked has ended.

        An answer before that is lost with the try: Airflow takes the task, queued anew, for one
        that was killed ("state mismatch"), and its retry asks again. No person is that quick.
        """
        told = (line for line in examples.said("scheduler").splitlines() if run_id in line)
        return sum("Finished" in line and "state=awaiting_input" in line for line in told)

    def answer(choice: str, prompt: str = "", note: str = "") -> None:
        path = f"{examples.run_path(dag_id, run_id)}/taskInstances/review/-1/hitlDetails"
        given = {"chosen_options": [choice], "params_input": {"prompt": prompt, "note": note}}
        examples.call("PATCH", path, json=given)

    answered = 0

    def over() -> bool:
        nonlocal answered
        if (asked := questions()) > answered:
            answered = asked
            if len(sandbox.posts) - posts == 1:
                answer("Again", prompt="A white paper boat")
            else:
                answer("Approve", note="Good")
        return examples.run_state(dag_id, run_id) in ("success", "failed")

    examples.until(over, 300, "the end")
    tries = [(t["task_id"], t["state"], t["try_number"]) for t in examples.tasks(dag_id, run_id)]
    assert examples.run_state(dag_id, run_id) == "success", tries
    published = examples.xcom(dag_id, run_id, "publish")
    assert published["path"].endswith("film-take2.mp4")
    assert published["note"] == "Good"
    assert len(sandbox.posts) - posts == 2
    page = examples.call_text(
        f"/kling/dags/{dag_id}/video", {"run_id": run_id, "task_id": "review"}
    )
    assert "A white paper boat" in page
    assert "<video" in page
