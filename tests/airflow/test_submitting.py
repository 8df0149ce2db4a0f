"""A task pays once: attempt after attempt, counting the POSTs that reach the gateway."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from kling_integrations import VideoRequest
from kling_integrations.airflow import KlingVideoOperator
from kling_integrations.airflow.exceptions import KlingTaskError
from kling_integrations.core.errors import LedgerError

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
        with pytest.raises(AirflowFailException, match="client request id kling-") as caught:
            attempt.run()
        assert str(caught.value).split("\n  ")[1:] == [
            "Clear the task once a generation would have ended: it looks for this id in the "
            "gateway's log and goes on with what it finds.",
            'To pay for another one knowingly, set on_ambiguous_submit="resubmit", or delete '
            "kling_submission from the task's state store, and clear the task.",
        ]
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


def test_a_store_that_fails_after_the_post_leaves_the_id_in_the_log(
    sandbox, task, operator, logged
):
    class Full:
        def get(self, key: str) -> Any:
            return None

        def set(self, key: str, value: Any, **more: Any) -> None:
            if value["generation_id"]:
                raise RuntimeError("the database is full")

    with pytest.raises(RuntimeError, match="full"):
        task(operator(), store=Full()).run()
    (generation_id,) = sandbox.jobs
    assert f"Submitted: generation {generation_id}" in logged()


def test_an_older_airflow_without_the_store_logs_so_and_works(sandbox, task, operator, logged):
    assert task(operator(), store=None).run()["status"] == "completed"
    assert "no task state store" in logged()


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


def test_a_generation_that_the_gateway_lost_is_not_paid_for_again(sandbox, task, operator):
    attempt = task(operator(), retries=1)
    sandbox.fault("poll", "404", None)
    for _ in range(2):
        with pytest.raises(AirflowException, match="knows no generation"):
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
    sandbox, task, operator, form
):
    """An upgrade between two attempts must not take the same input for another one."""
    attempt = task(operator(), retries=1)
    first = attempt.run()
    record = attempt.store.get("kling_submission")
    fingerprint = VideoRequest(prompt=RACCOON).fingerprints[form]
    attempt.store.set("kling_submission", {**record, "fingerprint": f"sandbox:{fingerprint}"})
    assert attempt.run()["generation_id"] == first["generation_id"]
    assert len(sandbox.posts) == 1
    attempt.store.set("kling_submission", {**record, "fingerprint": fingerprint})  # of the gateway
    assert attempt.run()["generation_id"] != first["generation_id"]
    assert len(sandbox.posts) == 2
