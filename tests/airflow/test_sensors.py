"""KlingVideoSensor: deferred, poked and rescheduled, with the operator's errors and delivery."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    Asset,
)

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before 3.2
    from airflow.exceptions import AirflowRescheduleException

from kling_integrations import KlingClient, VideoRequest
from kling_integrations.airflow import KlingHook, KlingVideoLink, KlingVideoSensor
from kling_integrations.airflow.exceptions import KlingTaskError


@pytest.fixture(params=["deferred", "poke"])
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "deferred":
        return {"deferrable": True}
    return {"deferrable": False, "poke_interval": 5}


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


@pytest.mark.parametrize("knows_when", [False, True], ids=["an id", "a manifest"])
def test_reschedule_gives_the_worker_back_and_asks_at_each_poke(
    sandbox, task, endless, submitted, knows_when
):
    now = datetime.now(UTC).isoformat()
    given = {"generation_id": submitted, "submitted_at": now} if knows_when else submitted
    waiting = task(sensor(given, mode="reschedule", poke_interval=600))
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
    with pytest.raises(AirflowSensorTimeout, match="goes on") as caught:
        task(sensor(endless, timeout=timeout, **mode)).run()
    assert str(caught.value).endswith(
        "minutes: the task's timeout is over. It goes on (there is no cancel) and is billed when "
        f"it completes. Generation: {endless}\n"
        "  A retry or a clear of this task goes on with the same generation, without paying again; "
        f"so does KlingVideoSensor(task_id=\"pick_up\", generation_id='{endless}')"
    )
    with pytest.raises(AirflowSkipException):
        task(sensor(endless, timeout=timeout, soft_fail=True, **mode)).run()


def test_an_outage_is_outlived(sandbox, task, submitted, mode):
    sandbox.fault("poll", "503", 3)
    sandbox.fault("poll", "404", 2)
    assert task(sensor(submitted, **mode)).run()["status"] == "completed"


def test_a_refused_key_ends_the_attempt_at_once_and_leaves_the_rest_to_the_retries(
    sandbox, task, submitted, mode, connect
):
    """The generation is paid for, and the key may be mended meanwhile."""
    attempt = task(sensor(submitted, **mode), retries=1)
    connect(sandbox, key="bad")
    with pytest.raises(KlingTaskError, match="API key") as caught:
        attempt.run()
    assert not isinstance(caught.value, AirflowFailException)
    assert sandbox.requests["poll"] == 1
    connect(sandbox)
    assert attempt.run()["generation_id"] == submitted


def test_the_text_that_a_template_makes_of_a_manifest_names_its_generation(
    sandbox, task, submitted, mode
):
    manifest = {"generation_id": submitted, "model": "v2.5-turbo-pro", "path": None, "n": True}
    for text in (str(manifest), json.dumps(manifest, indent=1), f"  {manifest} "):
        assert task(sensor(text, **mode)).run()["generation_id"] == submitted


@pytest.mark.parametrize(
    "odd",
    ["an id\nERROR forged", "\x1b[31mred", "x" * 5000, "{'generation_id': 'a\\nb'}", "a\u2028b"],
)
def test_what_is_no_id_is_refused_before_it_reaches_a_log_or_the_gateway(
    sandbox, task, mode, odd, logged
):
    with pytest.raises(AirflowFailException, match="is no generation id") as caught:
        task(sensor(odd, **mode)).run()
    assert "\nERROR" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert sandbox.requests["poll"] == 0


def test_an_unknown_generation_ends_it(sandbox, task, mode):
    with pytest.raises(AirflowException, match="knows no such generation"):
        task(sensor("never-was", **mode)).run()


@pytest.mark.parametrize("nothing", [None, "", "None", {}, {"generation_id": None}])
def test_an_empty_id_fails_at_once(sandbox, task, mode, nothing):
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


def test_a_poke_is_one_poll(sandbox, task):
    sandbox.seconds = 1e9
    with KlingClient(api_key="sandbox", base_url=sandbox.base_url) as client:
        endless = client.submit(VideoRequest(prompt="A fox")).id
    poke = poking(task(sensor(endless, deferrable=False, poke_interval=60)))
    for polls in (1, 2, 3):
        assert poke() is False
        assert sandbox.requests["poll"] == polls
    sandbox.finish()
    assert poke().xcom_value["status"] == "completed"
    assert sandbox.requests["poll"] == 4


def test_a_generation_that_was_found_outlives_a_404_later(sandbox, task):
    """A poking sensor waits as everything else does: patience counts from the first 404."""
    sandbox.seconds = 1e9
    with KlingClient(api_key="sandbox", base_url=sandbox.base_url) as client:
        endless = client.submit(VideoRequest(prompt="A fox")).id
    poke = poking(task(sensor(endless, deferrable=False, poke_interval=60)))
    assert poke() is False
    time.sleep(130 / sandbox.speed)  # longer than the patience with an unknown id
    sandbox.fault("poll", "404", 1)
    assert poke() is False
    sandbox.finish()
    assert poke().xcom_value["status"] == "completed"


def test_a_rescheduled_sensor_gives_up_an_unknown_id_as_a_poking_one_does(sandbox, task):
    waiting = task(sensor("never-was", mode="reschedule", poke_interval=30))
    with pytest.raises(AirflowRescheduleException):
        waiting.start()  # it may have been submitted just now
    waiting.first_reschedule = datetime.now(UTC) - timedelta(seconds=130 / sandbox.speed)
    with pytest.raises(AirflowException, match="knows no such generation"):
        waiting.start()


def test_a_poke_that_failed_is_followed_by_a_fresh_one(sandbox, task, submitted, tmp_path):
    """With ``silent_fail`` Airflow pokes again after an error."""
    sandbox.finish()
    options = {"deferrable": False, "poke_interval": 5, "silent_fail": True}
    waiting = task(sensor(submitted, output_path=str(tmp_path / "v.mp4"), **options))
    sandbox.fault("download", "expired", 2)
    assert waiting.run()["size"] > 0


def test_it_delivers_as_the_operator_does(sandbox, task, submitted, mode, tmp_path):
    asset = Asset("teaser")
    waiting = task(sensor(submitted, output_path=f"{tmp_path}/new/", outlets=[asset], **mode))
    made = waiting.run()
    assert Path(made["path"]).parent == tmp_path / "new"
    extra = waiting.outlet_events[asset].extra
    assert extra["generation_id"] == submitted
    assert extra["uri"] == Path(made["path"]).as_uri()
    link = KlingVideoLink.address(KlingHook().client, submitted, waiting.context()["ti"])
    assert waiting.xcom["_link_KlingVideoLink"] == link


def poking(waiting: Any) -> Any:
    """``poke()`` of one sensor, as Airflow calls it in one process."""
    operator = waiting.make()
    waiting.started = datetime.now(UTC)
    operator._client = KlingHook().client
    return lambda: operator.poke(waiting.context())
