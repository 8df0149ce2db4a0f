"""What is known of a video from its submit on, for the manifest, the tab and tasks downstream."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from kling_integrations.airflow import KlingVideoOperator, KlingVideoSensor
from kling_integrations.airflow.exceptions import KlingFailed
from kling_integrations.airflow.facts import FACTS_KEY, FAILURE_KEY

RACCOON = "A cheerful white raccoon"


def test_the_facts_are_there_while_the_task_waits(sandbox, task, operator):
    waiting = task(operator(deferrable=True, duration=5, max_cost_usd=5))
    assert isinstance(waiting.start(), TaskDeferred)
    facts = waiting.xcom[FACTS_KEY]
    assert facts["generation_id"] == next(iter(sandbox.jobs))
    assert facts["prompt"] == RACCOON
    assert facts["parameters"]["duration"] == 5
    assert facts["expected_seconds"] > 30
    assert facts["expected_usd"] > 0
    submitted = datetime.fromisoformat(facts["submitted_at"])
    assert abs((datetime.now(UTC) - submitted).total_seconds()) < 30
    assert (facts["dag_id"], facts["task_id"], facts["map_index"]) == ("dag", "video", -1)


def test_the_manifest_holds_what_was_asked_for_and_what_it_cost(sandbox, task, operator):
    made = task(operator(duration=5, max_cost_usd=5)).run()
    assert made["prompt"] == RACCOON
    assert made["model"].endswith("text-to-video")
    assert made["expected_usd"] > 0
    assert made["usd"] > 0
    assert made["map_index"] == -1
    assert made["gateway_url"].startswith(sandbox.base_url)
    assert made["submitted_at"]
    assert "noticed_within_seconds" in made


def test_a_retry_that_picks_up_a_finished_video_knows_what_it_cost(sandbox, task, operator):
    attempt = task(operator(duration=5, deferrable=True), retries=2)
    attempt.start()
    sandbox.finish()
    attempt.xcom.clear()  # as Airflow does before a retry
    made = attempt.run()
    assert made["usd"] == made["expected_usd"] > 0
    assert len(sandbox.posts) == 1


def test_the_facts_are_those_of_the_submit_not_of_a_later_edit(sandbox, task, tmp_path):
    prompts = iter(["A fox", "A wolf", "A wolf"])
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=next(prompts), deferrable=True), retries=1
    )
    attempt.start()
    made = attempt.run()
    assert made["prompt"] == "A fox"


def test_why_it_failed_is_there_for_the_page_of_the_task(sandbox, task, operator):
    sandbox.fails = "moderation"
    attempt = task(operator())
    with pytest.raises(KlingFailed):
        attempt.run()
    failure = attempt.xcom[FAILURE_KEY]
    assert failure["kind"] == "moderation"
    assert failure["generation_id"] == next(iter(sandbox.jobs))
    assert attempt.xcom[FACTS_KEY]["prompt"] == RACCOON  # a failed video still has its prompt


def test_a_refused_request_says_why_on_the_page(sandbox, task, operator):
    attempt = task(operator(prompt=" "))
    with pytest.raises(KlingFailed):
        attempt.run()
    assert "say what the video should show" in attempt.xcom[FAILURE_KEY]["message"]


def test_an_earlier_manifest_as_an_image_is_kept_short(sandbox, task, operator, tmp_path):
    from PIL import Image

    Image.new("RGB", (640, 360), "teal").save(tmp_path / "frame.png")
    earlier = {
        "generation_id": "g1",
        "path": str(tmp_path / "frame.png"),
        "task_id": "draw",
        "run_id": "manual__1",
        "prompt": "long " * 1000,
    }
    made = task(operator(image=earlier)).run()
    assert made["parameters"]["image"] == {
        "generation_id": "g1",
        "path": str(tmp_path / "frame.png"),
        "task_id": "draw",
        "run_id": "manual__1",
    }


@pytest.mark.parametrize("as_text", [False, True], ids=["mapping", "text"])
def test_a_sensor_that_gets_a_manifest_counts_from_the_submit(
    sandbox, task, operator, tmp_path, as_text
):
    sandbox.seconds = 600
    paid = task(operator(wait_for_completion=False, duration=5)).run()
    paid["submitted_at"] = datetime.fromtimestamp(time.time() - 0.2, UTC).isoformat()
    given = json.dumps(paid) if as_text else paid
    sensor = task(
        lambda: KlingVideoSensor(
            task_id="wait", generation_id=given, deferrable=True, output_path=str(tmp_path / "s")
        )
    )
    assert isinstance(sensor.start(), TaskDeferred)
    assert sensor.trigger.submitted_at == pytest.approx(time.time(), abs=20)
    made = sensor.resume()
    assert made["prompt"] == RACCOON
    assert made["elapsed_seconds"] >= 0.2 * 1200  # what passed before the sensor began counts
    assert made["task_id"] == "video"
