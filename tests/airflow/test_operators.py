"""KlingVideoOperator: one attempt after the other, counting what reaches the gateway."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    Asset,
    AssetAlias,
    TaskDeferred,
)

from kling_integrations.airflow import KlingVideoOperator
from kling_integrations.airflow.exceptions import KlingTaskError, KlingWaitTimeout
from kling_integrations.core.errors import LedgerError

RACCOON = "A cheerful white raccoon"


@pytest.fixture(params=[False, True], ids=["worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def operator(tmp_path: Path, deferrable: bool) -> Any:
    """``operator(**changes)`` makes a maker of operators that save to ``tmp_path``."""

    def configure(**changes: Any) -> Any:
        options = {
            "task_id": "video",
            "prompt": RACCOON,
            "output_path": str(tmp_path / "video.mp4"),
            "deferrable": deferrable,
            **changes,
        }
        return lambda: KlingVideoOperator(**options)

    return configure


def test_a_prompt_becomes_a_file_and_a_small_manifest(sandbox, task, operator, tmp_path):
    made = task(operator()).run()
    assert (tmp_path / "video.mp4").read_bytes()[4:8] == b"ftyp"
    assert made["status"] == "completed"
    assert made["path"] == str(tmp_path / "video.mp4")
    assert made["size"] == (tmp_path / "video.mp4").stat().st_size
    assert made["sandbox"] is True
    assert made["polls"] >= 1
    assert len(json.dumps(made)) < 2000
    assert len(sandbox.posts) == 1


def test_the_id_and_the_link_are_there_before_the_wait(sandbox, task):
    waiting = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    assert isinstance(waiting.start(), TaskDeferred)
    (generation_id,) = sandbox.jobs
    assert waiting.xcom["generation_id"] == generation_id
    assert sandbox.base_url in waiting.xcom["_link_KlingVideoLink"]


def test_nothing_that_airflow_keeps_holds_a_url_of_the_video_or_the_key(
    sandbox, task, operator, deferrable, said
):
    attempt = task(operator())
    made = attempt.run()
    kept = [json.dumps(made), json.dumps(attempt.xcom), str(attempt.store.rows), said()]
    if deferrable:
        kept += [json.dumps(attempt.event), json.dumps(attempt.trigger.serialize())]
    (job,) = sandbox.jobs.values()
    for text in kept:
        assert job.slug not in text or "X-Amz" not in text
        assert "Signature" not in text
        assert "Bearer" not in text


def test_without_an_output_path_nothing_is_downloaded(sandbox, task, operator):
    made = task(operator(output_path=None)).run()
    assert made["path"] is None
    assert sandbox.requests["download"] == 0


# --- the decision table ------------------------------------------------------------------------


def test_a_retry_while_it_runs_goes_on_with_the_same_generation(sandbox, task):
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), retries=1
    )
    attempt.start()
    first = attempt.xcom["generation_id"]
    attempt.start()  # the deferred task was lost and is tried again
    assert attempt.resume()["generation_id"] == first
    assert len(sandbox.posts) == 1


def test_a_clear_while_it_runs_goes_on_with_the_same_generation(sandbox, task, operator):
    attempt = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    attempt.start()
    attempt.clear()
    made = attempt.run()
    assert made["generation_id"] in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_a_retry_after_a_clear_while_it_ran_still_pays_nothing(
    sandbox, task, operator, deferrable, tmp_path
):
    attempt = task(operator())
    if deferrable:
        attempt.start()
    attempt.clear()
    sandbox.fault("download", "status", 1, code=410)
    sandbox.fault("download", "status", 1, code=410)
    with pytest.raises(KlingTaskError):
        attempt.run()
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 1


def test_a_download_that_failed_is_repeated_without_paying(sandbox, task, operator, tmp_path):
    attempt = task(operator(), retries=2)
    for _ in range(2):
        # The fresh link that the client asks for has ended too.
        sandbox.fault("download", "expired", 2)
        with pytest.raises(AirflowException) as caught:
            attempt.run()
        assert not isinstance(caught.value, AirflowFailException)
        assert not (tmp_path / "video.mp4").exists()
    assert attempt.run()["path"] == str(tmp_path / "video.mp4")
    assert len(sandbox.posts) == 1


def test_a_clear_after_success_makes_another_video(sandbox, task, operator):
    attempt = task(operator())
    first = attempt.run()
    attempt.clear()
    assert attempt.run()["generation_id"] != first["generation_id"]
    assert len(sandbox.posts) == 2


def test_a_retry_after_success_reuses_it(sandbox, task, operator):
    attempt = task(operator(), retries=1)
    first = attempt.run()  # and the worker died before it could say so
    assert attempt.run()["generation_id"] == first["generation_id"]
    assert len(sandbox.posts) == 1


def test_another_input_is_another_video(sandbox, task, operator):
    attempt = task(operator(), retries=1)
    attempt.run()
    attempt.make = operator(prompt="A black fox")
    attempt.run()
    assert [post.body["prompt"] for post in sandbox.posts] == [RACCOON, "A black fox"]


def test_what_the_provider_failed_is_submitted_anew_by_a_retry(sandbox, task, operator):
    sandbox.fails = "provider"
    attempt = task(operator(), retries=1)
    with pytest.raises(KlingTaskError) as caught:
        attempt.run()
    assert not isinstance(caught.value, AirflowFailException)
    sandbox.fails = None
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 2


def test_a_post_without_a_known_outcome_is_never_repeated(sandbox, task, operator):
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(), retries=1)
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="client request id kling-"):
            attempt.run()
    assert len(sandbox.posts) == 1


def test_a_post_without_a_known_outcome_is_repeated_when_the_user_says_so(sandbox, task, operator):
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(), retries=1)
    with pytest.raises(AirflowFailException):
        attempt.run()
    attempt.make = operator(on_ambiguous_submit="resubmit")
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 2


def test_a_lost_reply_is_found_in_the_gateways_log_once_it_is_there(sandbox, task, operator):
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(), retries=1)
    with pytest.raises(AirflowFailException):
        attempt.run()
    sandbox.finish()  # the log lists what has ended
    assert attempt.run()["generation_id"] in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_a_store_that_cannot_be_read_stops_the_attempt_before_it_pays(sandbox, task, operator):
    class Broken:
        def get(self, key: str) -> Any:
            raise RuntimeError("the API server is away")

    with pytest.raises(RuntimeError, match="away"):
        task(operator(), store=Broken()).run()
    assert sandbox.posts == []


def test_a_record_that_is_garbage_stops_the_attempt_before_it_pays(sandbox, task, operator):
    attempt = task(operator())
    attempt.store.set("kling_submission", ["what", "is", "this"])
    with pytest.raises(AirflowFailException) as caught:
        attempt.run()
    assert isinstance(caught.value.error, LedgerError)
    assert sandbox.posts == []


def test_a_store_that_cannot_be_written_stops_the_attempt_before_it_pays(sandbox, task, operator):
    class ReadOnly:
        def get(self, key: str) -> Any:
            return None

        def set(self, key: str, value: Any, **more: Any) -> None:
            raise RuntimeError("read only")

    with pytest.raises(RuntimeError, match="read only"):
        task(operator(), store=ReadOnly()).run()
    assert sandbox.posts == []


def test_an_older_airflow_without_the_store_says_so_and_works(sandbox, task, operator, said):
    assert task(operator(), store=None).run()["status"] == "completed"
    assert "no task state store" in said()


def test_a_worker_that_is_stopped_during_the_post_keeps_the_id(sandbox, task, monkeypatch):
    """Airflow's execution_timeout raises in the main thread, in the middle of anything."""
    import signal

    class Timeout(BaseException):
        pass

    def ring(*_: Any) -> None:
        raise Timeout

    previous = signal.signal(signal.SIGALRM, ring)
    sandbox.fault("submit", "slow", seconds=0.6)
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), retries=1
    )
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Timeout):
            attempt.start()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert attempt.store.get("kling_submission")["generation_id"] in sandbox.jobs
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 1


def test_a_submit_only_task_returns_at_once_and_a_clear_after_the_end_makes_another(
    sandbox, task, operator
):
    attempt = task(operator(wait_for_completion=False))
    assert attempt.run()["status"] == "queued"
    attempt.clear()
    attempt.run()
    assert len(sandbox.posts) == 1  # still running
    sandbox.finish()
    attempt.clear()
    attempt.run()
    assert len(sandbox.posts) == 2


def test_a_sandbox_that_was_restarted_is_told_from_the_real_gateway(sandbox, task, operator):
    """Its record must not make a live run attach to a picture."""
    attempt = task(operator())
    attempt.run()
    stored = attempt.store.get("kling_submission")
    assert stored["fingerprint"].startswith("sandbox:")


# --- before paying -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"duration": 7},
        {"prompt": " "},
        {"model": "klingai/image-o1"},
        {"parameters": ["not", "a", "dictionary"]},
        {"parameters": {"prompt": "twice"}},
        {"parameters": {"not a name": 1, "duration": 7}},
        {"poll_interval": -1.0},
        {"image": "s3://nowhere/at/all.png"},
    ],
)
def test_what_cannot_work_fails_at_once_and_pays_nothing(sandbox, task, operator, wrong):
    with pytest.raises(AirflowFailException):
        task(operator(**wrong)).run()
    assert sandbox.posts == []


def test_a_trigger_that_cannot_be_stored_stops_the_attempt_before_it_pays(
    sandbox, task, monkeypatch
):
    from kling_integrations.airflow import operators

    class Odd(operators.KlingVideoTrigger):
        def serialize(self) -> Any:
            path, kwargs = super().serialize()
            return path, {**kwargs, "what": object()}

    monkeypatch.setattr(operators, "KlingVideoTrigger", Odd)
    attempt = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    with pytest.raises(AirflowFailException, match="cannot be deferred"):
        attempt.start()
    assert sandbox.posts == []


def test_a_cost_above_the_limit_is_refused_before_it_is_paid(sandbox, task, operator):
    with pytest.raises(AirflowFailException, match=r"\$"):
        task(operator(max_cost_usd=0.0001)).run()
    assert sandbox.posts == []
    assert task(operator(max_cost_usd="1000")).run()["status"] == "completed"


def test_an_unknown_price_is_said_and_not_taken_for_nothing(sandbox, task, operator):
    body = {"object": "list", "data": []}
    sandbox.fault("models", "reply", body=body)
    with pytest.raises(AirflowFailException, match="unknown"):
        task(operator(max_cost_usd=1000)).run()
    assert sandbox.posts == []


# --- waiting -----------------------------------------------------------------------------------


def test_the_deadline_says_that_it_goes_on_and_the_call_that_picks_it_up(
    sandbox, task, operator, deferrable
):
    sandbox.seconds = 1e9
    attempt = task(operator(timeout=120), retries=1)
    with pytest.raises(KlingWaitTimeout) as caught:
        attempt.run()
    (generation_id,) = sandbox.jobs
    assert f"KlingVideoSensor(task_id=\"pick_up\", generation_id='{generation_id}'" in str(
        caught.value
    )
    assert "goes on" in str(caught.value)
    sandbox.finish()
    assert attempt.run()["generation_id"] == generation_id
    assert len(sandbox.posts) == 1


def test_the_timeout_counts_from_the_submit_over_retries(sandbox, task):
    make = lambda: KlingVideoOperator(  # noqa: E731
        task_id="v", prompt=RACCOON, deferrable=True, timeout=6000
    )
    attempt = task(make, retries=1)
    attempt.start()
    first = attempt.trigger.end_time
    attempt.start()
    assert attempt.trigger.end_time == pytest.approx(first, abs=0.001)
    assert first == pytest.approx(time.time() + 6000 / sandbox.speed, abs=5)


def test_a_clear_starts_the_timeout_anew(sandbox, task):
    sandbox.seconds = 1e9
    make = lambda: KlingVideoOperator(  # noqa: E731
        task_id="v", prompt=RACCOON, deferrable=True, timeout=60
    )
    attempt = task(make)
    attempt.start()
    first = attempt.trigger.end_time
    attempt.clear()
    attempt.start()
    assert attempt.trigger.end_time > first


def test_airflows_own_timeout_is_only_a_backstop_behind_the_triggers(sandbox, task):
    attempt = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    deferred = attempt.start()
    left = attempt.trigger.end_time - time.time()
    assert deferred.timeout > timedelta(seconds=left + 60)


def test_a_shorter_execution_timeout_ends_the_deferred_wait(sandbox, task):
    attempt = task(
        lambda: KlingVideoOperator(
            task_id="v",
            prompt=RACCOON,
            deferrable=True,
            timeout=1e6,
            execution_timeout=timedelta(seconds=30),
        )
    )
    attempt.start()
    assert attempt.trigger.end_time == pytest.approx(attempt.started.timestamp() + 30, abs=1)


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


@pytest.mark.parametrize("event", [None, {}, "done", {"format": 99, "generation_id": "x"}])
def test_an_event_that_is_not_understood_is_no_success(sandbox, task, event):
    attempt = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    attempt.start()
    with pytest.raises(KlingTaskError, match="not understood"):
        attempt.make().execute_complete(attempt.context(), event)


# --- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["moderation", "face_detection", "credits"])
def test_what_the_next_try_would_meet_again_fails_at_once(sandbox, task, operator, kind):
    with pytest.raises(AirflowFailException):
        task(operator(prompt=f"{RACCOON} [fail:{kind}]")).run()


def test_a_refused_key_fails_at_once(sandbox, task, operator, connect):
    connect(sandbox, key="bad")
    with pytest.raises(AirflowFailException, match="key"):
        task(operator()).run()


def test_an_account_without_credits_fails_at_once(sandbox, task, operator, connect):
    connect(sandbox, key="broke")
    with pytest.raises(AirflowFailException, match="credits"):
        task(operator()).run()


def test_a_rate_limit_is_left_to_airflows_retries(sandbox, task, operator):
    sandbox.fault("submit", "429", None)
    with pytest.raises(KlingTaskError) as caught:
        task(operator()).run()
    assert not isinstance(caught.value, AirflowFailException)


def test_a_generation_that_the_gateway_lost_is_not_paid_for_again(sandbox, task, operator):
    attempt = task(operator(), retries=1)
    sandbox.fault("poll", "404", None)
    for _ in range(2):
        with pytest.raises(AirflowException, match="knows no generation"):
            attempt.run()
    assert len(sandbox.posts) == 1


# --- templates, mapping, assets ----------------------------------------------------------------


def test_templates_render_and_empty_ones_give_no_value(sandbox, task, tmp_path):
    def make() -> KlingVideoOperator:
        operator = KlingVideoOperator(
            task_id="v",
            prompt="{{ words }}",
            duration="{{ seconds }}",
            cfg_scale="{{ scale }}",
            negative_prompt="{{ nothing }}",
            parameters={"aspect_ratio": "{{ ratio }}"},
            output_path=str(tmp_path) + "/{{ words }}.mp4",
        )
        values = {"words": "fox", "seconds": 10, "scale": 0.5, "nothing": "", "ratio": "1:1"}
        operator.render_template_fields(values)
        return operator

    made = task(make).run()
    (post,) = sandbox.posts
    assert post.body["prompt"] == "fox"
    assert post.body["duration"] == 10
    assert post.body["cfg_scale"] == 0.5
    assert post.body["aspect_ratio"] == "1:1"
    assert "negative_prompt" not in post.body
    assert made["path"].endswith("/fox.mp4")


def test_rendered_fields_show_neither_signatures_nor_pictures(sandbox, tmp_path):
    signed = "https://store.example/a.png?X-Amz-Signature=secret"
    data = "data:image/png;base64," + "QUJD" * 100
    operator = KlingVideoOperator(
        task_id="v",
        prompt="x",
        image="{{ image }}",
        tail_image=data,
        extra={"image_list": [signed, "{{ image }}"]},
    )
    operator.render_template_fields({"image": signed})
    operator.render_template_fields({"image": signed})  # rendering twice changes nothing
    shown = [str(getattr(operator, field)) for field in operator.template_fields]
    assert not any("secret" in text or "QUJD" in text for text in shown)
    from kling_integrations.airflow.masked_fields import Discreet

    assert Discreet.value(operator, "image") == signed
    assert Discreet.value(operator, "tail_image") == data
    assert Discreet.value(operator, "extra") == {"image_list": [signed, signed]}


def test_it_maps_over_prompts(sandbox):
    from airflow.sdk import DAG

    with DAG("mapped", schedule=None):
        mapped = KlingVideoOperator.partial(task_id="v", deferrable=True).expand(
            prompt=["one", "two"]
        )
    assert mapped.operator_class is KlingVideoOperator


def test_an_image_of_any_store_goes_to_the_gateway(sandbox, task, tmp_path):
    from PIL import Image

    picture = tmp_path / "first.png"
    Image.new("RGB", (640, 360), "teal").save(picture)
    for image in (str(picture), picture.as_uri(), {"path": str(picture)}):
        task(lambda image=image: KlingVideoOperator(task_id="v", prompt="x", image=image)).run()
    assert len(sandbox.posts) == 3
    assert all(p.body["image_url"].startswith("data:image/png;base64,") for p in sandbox.posts)
    assert {"image-to-video" in p.body["model"] for p in sandbox.posts} == {True}


def test_the_file_is_announced_to_the_outlets(sandbox, task, operator, tmp_path):
    asset, alias = Asset("teaser"), AssetAlias("teasers")
    attempt = task(operator(outlets=[asset, alias]))
    made = attempt.run()
    extra = attempt.outlet_events[asset].extra
    assert extra["generation_id"] == made["generation_id"]
    assert extra["uri"] == (tmp_path / "video.mp4").as_uri()
    ((added, told),) = attempt.outlet_events[alias].added
    assert added.uri == extra["uri"]
    assert told == extra


def test_being_killed_says_what_goes_on(sandbox, task, said):
    operator = KlingVideoOperator(task_id="v", prompt=RACCOON, wait_for_completion=False)
    attempt = task(lambda: operator)
    attempt.run()
    operator.on_kill()
    (generation_id,) = sandbox.jobs
    assert generation_id in said()
    assert "billed" in said()


def test_a_wrong_word_for_an_ambiguous_submit_fails_at_parse_time():
    with pytest.raises(ValueError, match="on_ambiguous_submit"):
        KlingVideoOperator(task_id="v", prompt="x", on_ambiguous_submit="perhaps")


def test_a_retry_during_an_outage_waits_instead_of_failing(sandbox, task):
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), retries=1
    )
    attempt.start()
    sandbox.fault("poll", "503")
    assert isinstance(attempt.start(), TaskDeferred)
    assert attempt.resume()["status"] == "completed"
    assert len(sandbox.posts) == 1


def test_being_killed_after_the_delivery_alarms_nobody(sandbox, task, said):
    operator = KlingVideoOperator(task_id="v", prompt=RACCOON)
    task(lambda: operator).run()
    operator.on_kill()
    assert "goes on at the gateway" not in said()


def test_a_retry_after_a_clear_that_was_delivered_reuses_it(sandbox, task):
    """The clear is over once its attempt went on with the generation; what follows is a retry."""
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), retries=1
    )
    attempt.start()
    attempt.clear()
    first = attempt.run()  # and the worker died before it could say so
    assert attempt.run()["generation_id"] == first["generation_id"]
    assert len(sandbox.posts) == 1
