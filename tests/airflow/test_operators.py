"""KlingVideoOperator: one attempt after the other, counting what reaches the gateway."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from kling_integrations.airflow import KlingVideoOperator
from kling_integrations.airflow.exceptions import KlingTaskError, KlingWaitTimeout

RACCOON = "A cheerful white raccoon"


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
        {"max_cost_usd": "a lot"},
        {"max_cost_usd": float("nan")},
        {"max_cost_usd": ""},
        {"max_cost_usd": "None"},
        {"max_cost_usd": "nan"},
        {"max_cost_usd": "-inf"},
        {"max_cost_usd": "abc"},
        {"max_cost_usd": -1},
        {"prompt": ""},
        {"prompt": "None"},
        {"prompt": " None\n"},
        {"prompt": "None", "model": "some/model-of-tomorrow"},
        {"image": {"path": None}},
        {"image": {"generation_id": "g-1", "status": "completed"}},
        {"image": "{'generation_id': 'g-1', 'path': None}"},
        {"image": '{"path": null}'},
        {"image": {"path": ""}},
        {"image": {"path": "None"}},
        {"image": {}},
        {"image": "None"},
        {"tail_image": {"path": None}},
        {"image": "s3://nowhere/at/all.png"},
    ],
)
def test_what_cannot_work_fails_at_once_and_pays_nothing(sandbox, task, operator, wrong):
    with pytest.raises(AirflowFailException):
        task(operator(**wrong)).run()
    assert sandbox.posts == []


def test_a_cost_above_the_limit_is_refused_before_it_is_paid(sandbox, task, operator):
    with pytest.raises(AirflowFailException, match=r"\$") as caught:
        task(operator(max_cost_usd=0.0001)).run()
    assert str(caught.value).endswith(
        "\n  Raise max_cost_usd, or leave it out to submit at any price."
    )
    assert sandbox.posts == []
    assert task(operator(max_cost_usd="1000")).run()["status"] == "completed"


def test_an_unknown_price_is_named_and_not_taken_for_nothing(sandbox, task, operator):
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
    waited = re.search(r" after (\d):\d\d minutes", str(caught.value))
    assert waited
    assert int(waited[1]) >= 2
    assert str(caught.value) == (
        f"Not finished{waited[0]}: the task's timeout is over. It goes on (there is no cancel) "
        f"and is billed when it completes. Generation: {generation_id}\n"
        "  A retry or a clear of this task goes on with the same generation, without paying again; "
        f"so does KlingVideoSensor(task_id=\"pick_up\", generation_id='{generation_id}')"
    )
    sandbox.finish()
    assert attempt.run()["generation_id"] == generation_id
    assert len(sandbox.posts) == 1


@pytest.mark.parametrize("event", [None, {}, "done", {"format": 99, "generation_id": "x"}])
def test_an_event_that_is_not_understood_is_no_success(sandbox, task, event):
    attempt = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    attempt.start()
    with pytest.raises(KlingTaskError, match="not understood"):
        attempt.make().execute_complete(attempt.context(), event)


# --- errors ------------------------------------------------------------------------------------


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


# --- around the attempts -----------------------------------------------------------------------


def test_it_maps_over_prompts(sandbox):
    from airflow.sdk import DAG

    with DAG("mapped", schedule=None):
        mapped = KlingVideoOperator.partial(task_id="v", deferrable=True).expand(
            prompt=["one", "two"]
        )
    assert mapped.operator_class is KlingVideoOperator


@pytest.mark.parametrize("durable", [True, False])
def test_being_killed_says_what_goes_on(sandbox, task, logged, durable):
    operator = KlingVideoOperator(
        task_id="v", prompt=RACCOON, wait_for_completion=False, durable=durable
    )
    attempt = task(lambda: operator)
    attempt.run()
    operator.on_kill()
    (generation_id,) = sandbox.jobs
    assert generation_id in logged()
    assert "billed" in logged()
    assert ("A retry or a clear" in logged()) is durable


def test_a_wrong_word_for_an_ambiguous_submit_fails_at_parse_time():
    with pytest.raises(ValueError, match="on_ambiguous_submit"):
        KlingVideoOperator(task_id="v", prompt="x", on_ambiguous_submit="perhaps")


def test_being_killed_after_the_delivery_alarms_no_one(sandbox, task, logged):
    operator = KlingVideoOperator(task_id="v", prompt=RACCOON)
    task(lambda: operator).run()
    operator.on_kill()
    assert "goes on at the gateway" not in logged()


def test_a_generation_that_was_lost_may_be_replaced_knowingly(sandbox, task, operator, tmp_path):
    sandbox.fault("poll", "404", None)
    with pytest.raises(AirflowFailException) as caught:
        task(operator()).run()
    (generation_id,) = sandbox.jobs
    (record,) = (tmp_path / ".kling").glob("*/-.json")
    assert str(caught.value).split("\n  ")[1:] == [
        "A retry or a clear of this task goes on with the same generation, without paying again; "
        f"so does KlingVideoSensor(task_id=\"pick_up\", generation_id='{generation_id}')",
        "To pay for another one, start a new run, or delete kling_submission in the task state "
        f"store and {record.parent.name}/- in {tmp_path / '.kling'} and clear the task.",
    ]


def test_an_event_of_an_older_trigger_is_worded_by_this_version(sandbox, task, tmp_path):
    # Beside its file the record is where a plain clear leaves it, on every version.
    output = str(tmp_path / "video.mp4")
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True, output_path=output)
    )
    attempt.start()
    error = {
        "type": "ServerError",
        "message": "No usable answer for generation g-1 in 15:00 minutes.",
        "hint": "Go on with: kling wait g-1",
        "kind": None,
    }
    with pytest.raises(KlingTaskError) as caught:
        attempt.resume(
            {
                "format": 1,
                "generation_id": "g-1",
                "elapsed_seconds": 900.0,
                "polls": 9,
                "error": error,
            }
        )
    assert str(caught.value) == (
        "No usable answer for generation g-1 in 15:00 minutes.\n"
        "  A retry or a clear of this task goes on with the same generation, without paying again; "
        "so does KlingVideoSensor(task_id=\"pick_up\", generation_id='g-1')"
    )


def test_a_limit_that_is_none_says_what_it_takes(sandbox, task, operator):
    with pytest.raises(AirflowFailException) as caught:
        task(operator(max_cost_usd="nan")).run()
    assert str(caught.value) == (
        "max_cost_usd='nan' is no limit: it takes USD, a finite number from 0 on."
    )


@pytest.mark.parametrize("as_text", [False, True])
def test_the_manifest_of_an_earlier_task_is_an_image(sandbox, task, operator, tmp_path, as_text):
    from PIL import Image

    picture = tmp_path / "first.png"
    Image.new("RGB", (640, 360), "teal").save(picture)
    manifest = {"generation_id": "g-1", "path": str(picture), "usage": None}
    task(operator(image=str(manifest) if as_text else manifest)).run()
    assert sandbox.posts[0].body["image_url"].startswith("data:image/png;base64,")


# --- being killed --------------------------------------------------------------------------------


def test_being_killed_during_the_post_names_the_request_and_that_it_may_be_paid(
    sandbox, task, logged, tmp_path
):
    """As SIGTERM does: Airflow calls on_kill, and the task goes on as far as it gets."""
    operator = KlingVideoOperator(
        task_id="v",
        prompt=RACCOON,
        wait_for_completion=False,
        output_path=str(tmp_path / "video.mp4"),
    )
    sandbox.fault("submit", "slow", seconds=1.0)
    killer = threading.Timer(0.5, operator.on_kill)
    killer.start()
    task(lambda: operator).run()
    killer.join()
    (job,) = sandbox.jobs.values()
    lines = logged()
    assert (
        "Stopped while a submission has no known outcome (client request id "
        f"{job.client_request_id}): it may have been taken and paid. A retry or a clear of this "
        "task looks for this id in the gateway's log"
    ) in lines
    assert "before anything was submitted" not in lines
    operator.on_kill()
    assert f"Generation {job.id} goes on at the gateway" in logged()


def test_being_killed_before_the_post_says_so(sandbox, task, logged):
    KlingVideoOperator(task_id="v", prompt=RACCOON).on_kill()
    assert "Stopped before anything was submitted." in logged()


def test_being_killed_in_a_retry_that_settles_an_open_post_says_so(sandbox, task, logged):
    sandbox.fault("submit", "drop-after")
    operator = KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True)
    attempt = task(lambda: operator, retries=1)
    with pytest.raises(KlingTaskError):
        attempt.start()
    attempt.start()  # deferred until the log can tell
    operator.on_kill()
    assert "has no known outcome" in logged()


# --- what is paid for is not given up ------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["bad", "broke", "gone", ""])
def test_trouble_with_the_key_of_a_generation_that_is_paid_for_is_left_to_the_retries(
    sandbox, task, operator, connect, monkeypatch, trouble
):
    attempt = task(operator(), retries=3)
    sandbox.fault("download", "expired", 2)
    with pytest.raises(KlingTaskError):
        attempt.run()
    if trouble == "gone":
        monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", "kling://")
    else:
        connect(sandbox, key=trouble)
        if trouble == "broke":
            sandbox.fault("poll", "403", None)
    with pytest.raises(KlingTaskError) as caught:
        attempt.run()
    assert not isinstance(caught.value, AirflowFailException)
    sandbox.clear_faults()
    connect(sandbox)
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 1


def test_a_key_that_is_rotated_while_the_task_is_deferred_costs_a_retry_and_not_the_video(
    sandbox, task, connect
):
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), retries=1
    )
    attempt.start()
    connect(sandbox, key="bad")
    with pytest.raises(KlingTaskError, match="API key") as caught:
        attempt.resume()
    assert not isinstance(caught.value, AirflowFailException)
    connect(sandbox)
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 1


def test_a_connection_that_only_the_triggerer_cannot_read_costs_a_retry_and_not_the_video(
    sandbox, task, monkeypatch
):
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from kling_integrations.airflow import hooks

    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), retries=1
    )
    for trouble in (AirflowNotFoundException("isn't defined"), RuntimeError("InvalidToken")):

        async def unreadable(conn_id: str, trouble: Exception = trouble, **_: Any) -> Any:
            raise trouble

        attempt.start()
        with monkeypatch.context() as patched:
            patched.setattr(hooks, "get_async_connection", unreadable)
            with pytest.raises(KlingTaskError, match="not readable in the triggerer") as caught:
                attempt.resume()
        assert not isinstance(caught.value, AirflowFailException)
        assert "another Fernet key" in str(caught.value)
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 1


def test_an_unknown_word_for_a_clear_fails_at_parse_time():
    with pytest.raises(ValueError, match="on_clear"):
        KlingVideoOperator(task_id="v", prompt="x", on_clear="again")
