"""A task pays once: attempt after attempt, counting the POSTs that reach the gateway."""

from __future__ import annotations

import shutil
import threading
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from kling_integrations import VideoRequest
from kling_integrations.airflow import KlingVideoOperator
from kling_integrations.airflow.exceptions import KlingTaskError
from kling_integrations.core.errors import LedgerError

from .conftest import Store

pytestmark = pytest.mark.thorough  # attempt after attempt, each with its waits

RACCOON = "A cheerful white raccoon"


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


def test_a_clear_after_success_delivers_the_same_video_again(sandbox, task, operator, tmp_path):
    """*Clear run*, after a bug further down, must not buy every video of the run again."""
    attempt = task(operator())
    first = attempt.run()
    for _ in range(2):
        (tmp_path / "video.mp4").unlink()
        attempt.clear()
        made = attempt.run()
        assert made["generation_id"] == first["generation_id"]
        assert made["sha256"] == first["sha256"]
        assert (tmp_path / "video.mp4").exists()
    assert len(sandbox.posts) == 1


def test_a_clear_after_success_makes_another_video_where_that_is_asked_for(
    sandbox, task, operator, logged
):
    attempt = task(operator(on_clear="regenerate"), retries=1)
    first = attempt.run()["generation_id"]
    assert attempt.run()["generation_id"] == first  # a retry is no clear
    attempt.clear()
    assert attempt.run()["generation_id"] != first
    assert len(sandbox.posts) == 2
    assert attempt.store.get("kling_submission")["replaced"] == [first]
    assert f"Generation {first}, which is finished and paid for, is left behind" in logged()


def test_regenerating_goes_on_with_what_was_not_delivered_yet(sandbox, task):
    attempt = task(
        lambda: KlingVideoOperator(
            task_id="v", prompt=RACCOON, deferrable=True, on_clear="regenerate"
        )
    )
    attempt.start()
    attempt.clear()
    attempt.run()
    assert len(sandbox.posts) == 1


def test_a_retry_after_success_reuses_it(sandbox, task, operator):
    attempt = task(operator(), retries=1)
    first = attempt.run()  # and the worker died before it could say so
    assert attempt.run()["generation_id"] == first["generation_id"]
    assert len(sandbox.posts) == 1


@pytest.mark.parametrize("on_clear", ["reuse", "regenerate"])
def test_a_clear_with_another_input_is_another_video_and_names_what_it_leaves_behind(
    sandbox, task, operator, logged, on_clear
):
    attempt = task(operator(on_clear=on_clear))
    first = attempt.run()["generation_id"]
    attempt.clear()
    attempt.make = operator(prompt="A black fox", on_clear=on_clear)
    second = attempt.run()["generation_id"]
    assert [post.body["prompt"] for post in sandbox.posts] == [RACCOON, "A black fox"]
    assert (
        f"Generation {first}, which is finished and paid for, is left behind for a new one "
        f"(prompt: 'A black fox' (was '{RACCOON}')). Pick it up with: "
        f"KlingVideoSensor(task_id=\"pick_up\", generation_id='{first}')"
    ) in logged()
    attempt.clear()
    attempt.make = operator(prompt="A third", on_clear=on_clear)
    attempt.run()
    assert attempt.store.get("kling_submission")["replaced"] == [first, second]


def test_a_clear_with_another_input_while_it_runs_names_the_one_that_is_billed_all_the_same(
    sandbox, task, logged
):
    def make(prompt: str) -> Any:
        return lambda: KlingVideoOperator(task_id="v", prompt=prompt, deferrable=True)

    attempt = task(make(RACCOON))
    attempt.start()
    (first,) = sandbox.jobs
    attempt.clear()
    attempt.make = make("A black fox")
    assert attempt.run()["generation_id"] != first
    assert (
        f"Generation {first}, which is billed when it completes (there is no cancel), is left "
        "behind" in logged()
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prompt": "A black fox"}, f"prompt: 'A black fox' (was '{RACCOON}')"),
        ({"cfg_scale": 0.9}, "cfg_scale: 0.9 (was None)"),
        ({"duration": "10"}, "duration: '10' (was None)"),
        ({"extra": {"now": "12:01"}}, "extra: {'now': '12:01'} (was None)"),
    ],
)
def test_a_retry_delivers_what_is_paid_for_also_when_its_input_renders_differently(
    sandbox, task, operator, logged, change, named
):
    attempt = task(operator(), retries=2)
    sandbox.fault("download", "expired", 2)
    with pytest.raises(KlingTaskError):
        attempt.run()
    (first,) = sandbox.jobs
    attempt.make = operator(**change)
    made = attempt.run()
    assert made["generation_id"] == first
    assert len(sandbox.posts) == 1
    assert (
        f"The input has changed since generation {first} was submitted ({named}). That video is "
        "paid for and is the one that is delivered; for one of the new input, clear the task."
    ) in logged()
    # The record is still that of what was submitted: a clear with the first input is free.
    attempt.clear()
    attempt.make = operator()
    assert attempt.run()["generation_id"] == first
    assert len(sandbox.posts) == 1


@pytest.mark.parametrize(
    "same",
    [{"cfg_scale": 1}, {"cfg_scale": "1.0"}, {"cfg_scale": 1.0, "prompt": f"{RACCOON} \r\n"}],
)
def test_a_retry_with_another_spelling_of_the_same_input_warns_of_nothing(
    sandbox, task, operator, logged, same
):
    attempt = task(operator(cfg_scale=1.0), retries=1)
    attempt.run()
    attempt.make = operator(**same)
    attempt.run()
    assert len(sandbox.posts) == 1
    assert "has changed" not in logged()


def test_a_dag_that_was_edited_while_deferred_delivers_the_records_video_and_says_so(
    sandbox, task, tmp_path, logged
):
    def make(prompt: str) -> Any:
        return lambda: KlingVideoOperator(
            task_id="v", prompt=prompt, deferrable=True, output_path=f"{tmp_path}/"
        )

    attempt = task(make(RACCOON), retries=1)
    attempt.start()
    (first,) = sandbox.jobs
    attempt.make = make("A black fox")
    made = attempt.resume()
    assert made["generation_id"] == first
    assert f"prompt: 'A black fox' (was '{RACCOON}')" in logged()
    assert attempt.run()["generation_id"] == first  # and a retry does not pay for the edit
    assert len(sandbox.posts) == 1


def test_a_record_of_the_first_release_is_gone_on_with(sandbox, task, operator, logged):
    attempt = task(operator(), retries=1)
    first = attempt.run()["generation_id"]
    record = attempt.store.get("kling_submission")
    del record["inputs"]
    attempt.store.set("kling_submission", record)
    attempt.make = operator(prompt="A black fox")
    assert attempt.run()["generation_id"] == first
    assert "(its record does not say what" in logged()
    attempt.make = operator()
    attempt.clear()
    assert attempt.run()["generation_id"] == first
    assert len(sandbox.posts) == 1


def test_a_clear_whose_new_input_is_refused_gives_up_nothing(sandbox, task, operator):
    attempt = task(operator())
    first = attempt.run()["generation_id"]
    attempt.clear()
    attempt.make = operator(prompt="A black fox")
    sandbox.fault("submit", "429", None)
    with pytest.raises(KlingTaskError):
        attempt.run()
    sandbox.clear_faults()
    attempt.make = operator()  # the edit is taken back
    assert attempt.run()["generation_id"] == first
    assert len([post for post in sandbox.posts if post.generation_id]) == 1


@pytest.mark.parametrize("rerun", ["retry", "clear"])
@pytest.mark.parametrize("finished", [True, False])
def test_what_is_paid_for_is_delivered_when_its_image_is_gone(
    sandbox, task, operator, tmp_path, rerun, finished
):
    from PIL import Image

    picture = tmp_path / "first.png"
    Image.new("RGB", (640, 360), "teal").save(picture)
    attempt = task(operator(image=str(picture)), retries=1)
    if finished:
        first = attempt.run()["generation_id"]
    else:
        sandbox.fault("download", "expired", 2)
        with pytest.raises(KlingTaskError):
            attempt.run()
        (first,) = sandbox.jobs
    picture.unlink()
    if rerun == "clear":
        attempt.clear()
    made = attempt.run()
    assert made["generation_id"] == first
    assert "image-to-video" in made["model"]
    assert len(sandbox.posts) == 1
    attempt.clear()
    attempt.make = operator(image=str(picture), prompt="A black fox")
    with pytest.raises(AirflowFailException):  # something else is asked for, and cannot be made
        attempt.run()
    assert len(sandbox.posts) == 1


def test_what_the_provider_failed_is_submitted_anew_by_a_retry(sandbox, task, operator):
    sandbox.fails = "provider"
    attempt = task(operator(), retries=1)
    with pytest.raises(KlingTaskError) as caught:
        attempt.run()
    assert not isinstance(caught.value, AirflowFailException)
    sandbox.fails = None
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 2


NEVER = 1e9  # seconds that a generation takes which the gateway's log never lists


def attempts(task: Any) -> Any:
    """A whole attempt, whichever pauses it makes in the triggerer."""
    result = task.start()
    while isinstance(result, TaskDeferred):
        try:
            result = task.resume()
        except TaskDeferred as deferred:
            result = task.deferred_again(deferred)
    return result


def test_a_post_without_a_known_outcome_is_never_repeated(sandbox, task, operator, tmp_path):
    sandbox.seconds = NEVER
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(), retries=2)
    finals = []
    for _ in range(3):
        with pytest.raises(KlingTaskError, match="client request id kling-") as caught:
            attempts(attempt)
        finals.append(isinstance(caught.value, AirflowFailException))
        (record,) = (tmp_path / ".kling").glob("*/-.json")
        assert str(caught.value).split("\n  ")[1:] == [
            "A retry or a clear of this task looks for this id in the gateway's log, once a "
            "generation would have ended, and goes on with what it finds.",
            'To pay for another one knowingly, set on_ambiguous_submit="resubmit", or delete '
            f"kling_submission in the task state store and {record.parent.name}/- in "
            f"{tmp_path / '.kling'}, and clear the task.",
        ]
    # The first may be settled by a look that comes later; after that look it is a user's turn.
    assert finals == [False, True, True]
    assert len(sandbox.posts) == 1


def test_a_retry_waits_until_the_gateways_log_can_name_what_was_posted(
    sandbox, task, operator, deferrable, logged
):
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(), retries=1)
    with pytest.raises(KlingTaskError):
        attempt.start()
    if deferrable:  # not on a worker's slot
        assert isinstance(attempt.start(), TaskDeferred)
        assert type(attempt.trigger).__name__ == "KlingPauseTrigger"
    made = attempts(attempt)
    assert made["status"] == "completed"
    assert made["generation_id"] in sandbox.jobs
    assert "has no known outcome" in logged()
    assert len(sandbox.posts) == 1


def test_a_log_that_is_out_of_reach_leaves_it_to_the_next_retry(sandbox, task, operator):
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(on_ambiguous_submit="resubmit"), retries=3)
    with pytest.raises(KlingTaskError):
        attempts(attempt)
    sandbox.finish()
    sandbox.fault("logs", "503")
    with pytest.raises(KlingTaskError, match="log is out of reach") as caught:
        attempts(attempt)
    assert not isinstance(caught.value, AirflowFailException)
    assert attempts(attempt)["generation_id"] in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_a_task_without_a_record_does_not_promise_that_a_clear_is_free(sandbox, task, operator):
    sandbox.fault("submit", "drop-after")
    with pytest.raises(AirflowFailException, match="client request id kling-") as caught:
        task(operator(durable=False)).run()
    (job,) = sandbox.jobs.values()
    assert str(caught.value).split("\n  ")[1:] == [
        "The task keeps no record, so a retry or a clear pays again. Ask the gateway's log first: "
        f"KlingHook('kling_default').client.find_submission('{job.client_request_id}', "
        "submitted_at)",
        "To pay for another one knowingly, clear the task.",
    ]


def test_a_post_without_a_known_outcome_is_repeated_when_the_user_says_so(
    sandbox, task, operator, logged
):
    sandbox.seconds = NEVER
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(on_ambiguous_submit="resubmit"), retries=1)
    with pytest.raises(KlingTaskError) as caught:
        attempts(attempt)
    assert not isinstance(caught.value, AirflowFailException)  # or it would never act
    (job,) = sandbox.jobs.values()
    sandbox.seconds = 60
    assert attempts(attempt)["status"] == "completed"
    assert len(sandbox.posts) == 2
    assert f"{job.client_request_id} has no known outcome" in logged()


def test_the_gateways_log_is_asked_before_anything_is_submitted_again(sandbox, task, operator):
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(on_ambiguous_submit="resubmit"), retries=1)
    with pytest.raises(KlingTaskError):
        attempts(attempt)
    (first,) = sandbox.jobs
    assert attempts(attempt)["generation_id"] == first
    assert len(sandbox.posts) == 1


def test_without_a_record_the_log_is_asked_in_the_same_attempt(sandbox, task, operator):
    """The next one would know of nothing, and pay."""
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(on_ambiguous_submit="resubmit", durable=False))
    assert attempt.run()["generation_id"] in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_without_a_record_and_a_log_nothing_is_posted_again(sandbox, task, operator):
    sandbox.fault("submit", "drop-after")
    sandbox.fault("logs", "503", None)
    with pytest.raises(AirflowFailException, match="log is out of reach"):
        task(operator(on_ambiguous_submit="resubmit", durable=False), retries=1).run()
    assert len(sandbox.posts) == 1


def test_a_lost_reply_is_found_in_the_gateways_log_once_it_is_there(sandbox, task, operator):
    sandbox.fault("submit", "drop-after")
    attempt = task(operator(), retries=1)
    with pytest.raises(KlingTaskError):
        attempt.run()
    sandbox.finish()  # the log lists what has ended
    assert attempt.run()["generation_id"] in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_a_store_that_cannot_be_read_stops_the_attempt_before_it_pays(sandbox, task, operator):
    class Broken:
        def get(self, key: str) -> Any:
            raise RuntimeError("the API server is away")

    with pytest.raises(KlingTaskError, match="away") as caught:
        task(operator(), store=Broken()).run()
    assert not isinstance(caught.value, AirflowFailException)  # it may be back at the next try
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

    with pytest.raises(KlingTaskError, match="read only") as caught:
        task(operator(), store=ReadOnly()).run()
    assert not isinstance(caught.value, AirflowFailException)
    assert sandbox.posts == []


class Failing(Store):
    """Fails to write what holds a generation's id, as often as said."""

    failures: float = 1e9

    def set(self, key: str, value: Any, **more: Any) -> None:
        if key == "kling_submission" and value["generation_id"] and self.failures > 0:
            self.failures -= 1
            raise RuntimeError("the database is full")
        super().set(key, value, **more)


def test_a_store_that_fails_after_the_post_is_a_warning_and_the_video_is_delivered(
    sandbox, task, operator, logged
):
    attempt = task(operator(), store=Failing())
    made = attempt.run()
    (generation_id,) = sandbox.jobs
    assert made["generation_id"] == generation_id
    assert made["path"]
    lines = logged()
    assert f"Submitted: generation {generation_id}" in lines
    assert lines.index("Submitted: generation") < lines.index("the database is full")
    assert f"Keep the id of the generation: {generation_id}." in lines


def test_the_id_is_in_xcom_before_the_store_is_written(sandbox, task, operator):
    attempt = task(operator(), store=Failing())
    seen = []
    attempt.store.set = lambda key, value, **more: (
        key == "kling_submission" and seen.append(dict(attempt.xcom))
    )
    attempt.run()
    assert "generation_id" not in seen[0]  # the intent
    assert seen[1]["generation_id"] in sandbox.jobs


def test_a_store_that_failed_after_the_post_is_made_up_for_by_the_other(sandbox, task, operator):
    attempt = task(operator(), store=Failing(), retries=1)
    sandbox.fault("download", "expired", 2)
    with pytest.raises(KlingTaskError):
        attempt.run()
    assert attempt.store.get("kling_submission")["generation_id"] is None
    (first,) = sandbox.jobs
    attempt.store.failures = 0
    assert attempt.start() != first
    assert attempt.store.get("kling_submission")["generation_id"] == first
    assert len(sandbox.posts) == 1


def test_stores_that_failed_after_the_post_are_made_up_for_by_the_gateways_log(
    sandbox, task, operator, tmp_path
):
    attempt = task(operator(), store=Failing(), retries=1)
    sandbox.fault("download", "expired", 2)
    with pytest.raises(KlingTaskError):
        attempt.run()
    assert attempt.store.get("kling_submission")["generation_id"] is None
    shutil.rmtree(tmp_path / ".kling")
    (first,) = sandbox.jobs
    attempt.store.failures = 0
    assert attempts(attempt)["generation_id"] == first
    assert len(sandbox.posts) == 1


def test_a_store_that_fails_once_is_written_all_the_same(sandbox, task, operator, logged):
    store = Failing()
    store.failures = 1
    attempt = task(operator(), store=store)
    attempt.run()
    assert store.get("kling_submission")["state"] == "completed"
    assert "cannot be written" not in logged()


def test_an_id_that_was_not_written_before_deferring_is_written_after(sandbox, task):
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), store=Failing()
    )
    attempt.start()
    assert attempt.store.get("kling_submission")["generation_id"] is None
    attempt.store.failures = 0
    made = attempt.resume()
    stored = attempt.store.get("kling_submission")
    assert (stored["generation_id"], stored["state"]) == (made["generation_id"], "completed")


def test_an_xcom_that_cannot_be_pushed_does_not_lose_the_record(sandbox, task, operator, logged):
    attempt = task(operator())
    context = attempt.context

    def without_xcom() -> Any:
        made = context()

        def refuse(key: str, value: Any) -> None:
            raise RuntimeError("no backend")

        made["ti"].xcom_push = refuse
        return made

    attempt.context = without_xcom
    made = attempt.run()
    assert attempt.store.get("kling_submission")["generation_id"] == made["generation_id"]
    assert "cannot be pushed to XCom" in logged()


def test_an_older_airflow_without_the_store_pays_once_all_the_same(sandbox, task, operator):
    attempt = task(operator(), store=None, retries=1)
    sandbox.fault("download", "expired", 2)
    with pytest.raises(KlingTaskError):
        attempt.run()
    first = attempt.run()["generation_id"]
    attempt.clear()
    assert attempt.run()["generation_id"] == first
    assert len(sandbox.posts) == 1


def test_without_an_output_the_workers_own_records_are_enough_on_one_machine(
    sandbox, task, operator, logged
):
    attempt = task(operator(output_path=None), store=None, retries=1)
    first = attempt.run()["generation_id"]
    attempt.clear()
    assert attempt.run()["generation_id"] == first
    assert len(sandbox.posts) == 1
    assert "Where several machines run the tasks, set record_path" in logged()


def test_a_worker_that_is_stopped_during_the_post_keeps_the_id(sandbox, task, monkeypatch):
    """Airflow's execution_timeout raises in the main thread, in the middle of anything."""
    import signal

    class Timeout(BaseException):
        pass

    def ring(*_: Any) -> None:
        raise Timeout

    previous = signal.signal(signal.SIGALRM, ring)
    sandbox.fault("submit", "slow", seconds=2)
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), retries=1
    )

    def stop_in_the_post() -> None:
        sandbox.wait_for(lambda gateway: gateway.posts)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    try:
        threading.Thread(target=stop_in_the_post, daemon=True).start()
        with pytest.raises(Timeout):
            attempt.start()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert attempt.store.get("kling_submission")["generation_id"] in sandbox.jobs
    assert attempt.run()["status"] == "completed"
    assert len(sandbox.posts) == 1


@pytest.mark.parametrize(("on_clear", "posts"), [("reuse", 1), ("regenerate", 2)])
def test_a_submit_only_task_returns_at_once_and_a_clear_after_the_end_does_as_it_is_told(
    sandbox, task, operator, on_clear, posts
):
    sandbox.seconds = 1e9  # until it is ended below
    attempt = task(operator(wait_for_completion=False, on_clear=on_clear))
    assert attempt.run()["status"] == "queued"
    attempt.clear()
    attempt.run()
    assert len(sandbox.posts) == 1  # still running
    sandbox.finish()
    attempt.clear()
    attempt.run()
    assert len(sandbox.posts) == posts


def test_a_clear_of_a_submit_only_task_whose_generation_failed_submits_anew(
    sandbox, task, operator
):
    sandbox.fails = "provider"
    attempt = task(operator(wait_for_completion=False))
    attempt.run()
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


def test_a_generation_that_the_gateway_lost_is_not_paid_for_again(sandbox, task, operator):
    attempt = task(operator(), retries=1)
    sandbox.fault("poll", "404", None)
    for _ in range(2):
        with pytest.raises(AirflowException, match="knows no such generation"):
            attempt.run()
    assert len(sandbox.posts) == 1


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


def test_a_retry_during_an_outage_waits_instead_of_failing(sandbox, task):
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True), retries=1
    )
    attempt.start()
    sandbox.fault("poll", "503")
    assert isinstance(attempt.start(), TaskDeferred)
    assert attempt.resume()["status"] == "completed"
    assert len(sandbox.posts) == 1


@pytest.mark.parametrize("form", [0, 1])
def test_a_record_under_an_earlier_form_of_the_fingerprint_is_gone_on_with(
    sandbox, task, operator, form, tmp_path
):
    """An upgrade between two attempts must not take the same input for another one."""
    attempt = task(operator(), retries=1)
    first = attempt.run()
    record = attempt.store.get("kling_submission")
    fingerprint = VideoRequest(prompt=RACCOON).fingerprints[form]
    shutil.rmtree(tmp_path / ".kling")  # the version that wrote it had no such folder
    attempt.store.set("kling_submission", {**record, "fingerprint": f"sandbox:{fingerprint}"})
    assert attempt.run()["generation_id"] == first["generation_id"]
    assert len(sandbox.posts) == 1
    shutil.rmtree(tmp_path / ".kling")
    attempt.store.set("kling_submission", {**record, "fingerprint": fingerprint})  # of the gateway
    assert attempt.run()["generation_id"] != first["generation_id"]
    assert len(sandbox.posts) == 2
