"""One job: its progress, and that stopping and submitting exclude each other."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from kling_integrations import VideoRequest
from kling_integrations.core.errors import (
    InvalidRequestError,
    SubmissionUncertainError,
    Verb,
    WaitTimeoutError,
)
from kling_integrations.core.generation import Generation, Status
from kling_integrations.core.progress import Progress
from kling_integrations.jupyter.job import Job, JobStatus
from kling_integrations.jupyter.targets import Target


def job(prompt: str = "A cat") -> Job:
    return Job(
        VideoRequest(prompt=prompt),
        base_url="https://api.aimlapi.com",
        target=Target(Path.cwd(), "kling_outputs", "x.mp4"),
        timeout=1,
    )


def test_progress_never_lies_beyond_95_percent():
    made = job()
    progress = Progress(Generation("x", Status.GENERATING), 10.0, 100.0, 0.1, 1)
    seen = []
    for elapsed, fraction in ((10, 0.1), (90, 0.7), (50, 0.4), (1e6, 0.999)):
        made.progressed(replace(progress, elapsed=float(elapsed), fraction=fraction))
        seen.append(made.fraction)
    assert seen == sorted(seen)
    assert seen[-1] <= 0.95


def test_no_post_leaves_after_a_stop():
    for stop in (Job.stop_waiting, Job.withdraw):
        made = job()
        stop(made)
        assert not made.begin_submitting()
        assert made.status is JobStatus.WAITING_FOR_SLOT
        made.stopped()
        with pytest.raises(WaitTimeoutError, match="before anything was submitted"):
            made.result()
        assert not made.outcome_unknown


def test_a_stop_after_the_post_began_knows_that_it_may_have_left():
    made = job()
    assert made.begin_submitting()
    assert not made.withdraw()
    assert made.outcome_unknown
    made.stop_waiting()
    assert made.outcome_unknown
    made.stopped("kling-42")
    with pytest.raises(SubmissionUncertainError, match="may have been accepted") as caught:
        made.result()
    assert caught.value.client_request_id == "kling-42"
    assert [step.verb for step in caught.value.next_steps] == [Verb.RECOVER]
    assert made.outcome_unknown


def test_what_the_gateway_refused_was_not_submitted():
    made = job()
    made.begin_submitting()
    made.failed(InvalidRequestError("no"))
    assert not made.outcome_unknown
    uncertain = job()
    uncertain.begin_submitting()
    uncertain.failed(SubmissionUncertainError("?", client_request_id="kling-1"))
    assert uncertain.outcome_unknown


def test_a_generation_that_is_known_is_never_withdrawn():
    made = job()
    made.begin_submitting()
    made.submitted(Generation("an-id", Status.QUEUED, raw={"id": "an-id"}))
    assert not made.withdraw()
    assert not made.outcome_unknown
    assert not made.attached
    made.stop_waiting()
    made.stopped()
    with pytest.raises(WaitTimeoutError, match="an-id goes on") as caught:
        made.result()
    assert [(step.verb, step.generation_id) for step in caught.value.next_steps] == [
        (Verb.WAIT, "an-id")
    ]


def test_withdrawing_and_submitting_at_the_same_moment_never_both_succeed():
    for _ in range(300):
        made = job()
        barrier = threading.Barrier(2)
        began: list[bool] = []

        def begin(made=made, barrier=barrier, began=began):
            barrier.wait()
            began.append(made.begin_submitting())

        thread = threading.Thread(target=begin)
        thread.start()
        barrier.wait()
        withdrawn = made.withdraw()
        thread.join()
        assert withdrawn is not began[0]


def test_a_stop_reaches_a_job_that_the_watcher_takes_up_later():
    made = job()
    made.stop_waiting()
    stops = []
    made.on_stop(lambda: stops.append(1), lambda: None)
    assert stops == [1]


def test_a_job_as_a_last_line_asks_the_session_to_show_it(shell):
    shell.run("%%kling --bg -d 5 -o job\nA cat")
    job = shell["job"]
    shown = []
    job.shown_by(shown.append, lambda job: ({}, {}))
    assert shell.run("job") is job
    assert shown == [job]
    assert "<Job" not in shell.text


def test_in_a_terminal_a_job_is_its_line(shell):
    shell.run("%%kling --bg -d 5 -o job\nA cat")
    shell["job"].result(20)
    shell.run("job")
    assert "<Job" in shell.text
    assert "completed" in shell.text
