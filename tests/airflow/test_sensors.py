"""KlingVideoSensor: deferred, poked and rescheduled, with the operator's verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before 3.2
    from airflow.exceptions import AirflowRescheduleException

from kling_integrations import KlingClient, VideoRequest
from kling_integrations.airflow import KlingVideoSensor


@pytest.fixture(params=["deferred", "poke"])
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "deferred":
        return {"deferrable": True}
    return {"deferrable": False, "poke_interval": 5}


@pytest.fixture
def submitted(sandbox) -> str:
    with KlingClient(api_key="sandbox", base_url=sandbox.base_url) as client:
        return client.submit(VideoRequest(prompt="A fox")).id


def sensor(generation_id: Any, **options: Any) -> Any:
    return lambda: KlingVideoSensor(task_id="wait", generation_id=generation_id, **options)


def test_it_returns_the_manifest_and_saves_the_video(sandbox, task, submitted, mode, tmp_path):
    target = tmp_path / "v.mp4"
    waiting = task(sensor(submitted, output_path=str(target), **mode))
    made = waiting.run()
    assert made["generation_id"] == submitted
    assert made["path"] == str(target)
    assert target.read_bytes()[4:8] == b"ftyp"
    assert waiting.xcom["generation_id"] == submitted
    assert len(sandbox.posts) == 1


def test_it_takes_the_manifest_of_the_task_before(sandbox, task, submitted, mode):
    manifest = {"generation_id": submitted, "model": "klingai/v2.5-turbo/pro/text-to-video"}
    assert task(sensor(manifest, **mode)).run()["model"] == manifest["model"]


def test_what_is_finished_already_is_not_deferred(sandbox, task, submitted):
    sandbox.finish()
    assert task(sensor(submitted, deferrable=True)).start()["status"] == "completed"


def test_reschedule_gives_the_worker_back(sandbox, task, submitted):
    sandbox.seconds = 1e9
    waiting = task(sensor(submitted, mode="reschedule", poke_interval=600))
    with pytest.raises(AirflowRescheduleException):
        waiting.start()
    sandbox.finish()
    assert waiting.start()["status"] == "completed"


@pytest.mark.parametrize(
    ("fault", "error"),
    [("moderation", AirflowFailException), ("provider", AirflowException)],
)
def test_a_failed_generation_fails_it_and_soft_fail_skips_in_every_mode(
    sandbox, task, submitted, mode, fault, error
):
    sandbox.finish(fail=fault)
    with pytest.raises(error):
        task(sensor(submitted, **mode)).run()
    for soft in ("soft_fail", "never_fail"):
        with pytest.raises(AirflowSkipException):
            task(sensor(submitted, **mode, **{soft: True})).run()


def test_a_failure_found_by_the_trigger_skips_too(sandbox, task, submitted):
    waiting = task(sensor(submitted, deferrable=True, soft_fail=True))
    waiting.start()
    sandbox.finish(fail="moderation")
    with pytest.raises(AirflowSkipException):
        waiting.resume()


def test_a_timeout_is_a_sensor_timeout_that_says_that_it_goes_on(sandbox, task, mode):
    sandbox.seconds = 1e9
    with KlingClient(api_key="sandbox", base_url=sandbox.base_url) as client:
        endless = client.submit(VideoRequest(prompt="A fox")).id
    # A deferred wait counts in the sandbox's seconds, a poking one by Airflow's own clock.
    timeout = 60 if mode["deferrable"] else 0.05
    with pytest.raises(AirflowSensorTimeout, match="goes on"):
        task(sensor(endless, timeout=timeout, **mode)).run()
    with pytest.raises(AirflowSkipException):
        task(sensor(endless, timeout=timeout, soft_fail=True, **mode)).run()


def test_an_outage_is_outlived(sandbox, task, submitted, mode):
    sandbox.fault("poll", "503", 3)
    sandbox.fault("poll", "404", 2)
    assert task(sensor(submitted, **mode)).run()["status"] == "completed"


def test_a_refused_key_ends_it_at_once(sandbox, task, submitted, mode, connect):
    connect(sandbox, key="bad")
    with pytest.raises(AirflowFailException):
        task(sensor(submitted, **mode)).run()


def test_an_unknown_generation_ends_it(sandbox, task, mode):
    with pytest.raises(AirflowException, match="knows no generation"):
        task(sensor("never-was", **mode)).run()


@pytest.mark.parametrize("nothing", [None, "", "None", {}, {"generation_id": None}])
def test_no_id_is_said_at_once(sandbox, task, mode, nothing):
    with pytest.raises(AirflowFailException, match="empty"):
        task(sensor(nothing, **mode)).run()
    assert sandbox.requests["poll"] == 0


def test_a_download_that_failed_is_repeated(sandbox, task, submitted, mode, tmp_path: Path):
    sandbox.finish()
    waiting = task(sensor(submitted, output_path=str(tmp_path / "v.mp4"), **mode))
    sandbox.fault("download", "expired", 2)
    with pytest.raises(AirflowException):
        waiting.run()
    assert waiting.run()["size"] > 0
