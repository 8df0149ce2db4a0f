"""The life of a job on the scaled clock."""

import time

import pytest


def test_a_job_is_queued_then_generating_then_completed(make):
    with make(speed=200, seconds=120) as caller:  # queued for 60 ms, to be seen by a slow machine
        id = caller.submit()
        seen = [caller.poll(id).json()["status"]]
        while seen[-1] != "completed":
            status = caller.poll(id).json()["status"]
            seen += [status] if status != seen[-1] else []
        assert seen == ["queued", "generating", "completed"]


def test_a_job_takes_its_gateway_seconds_divided_by_the_speed(make):
    with make(speed=100, seconds=30) as caller:
        before = time.monotonic()
        id = caller.submit()
        caller.sandbox.wait_for(lambda sandbox: sandbox.jobs[id].is_terminal)
        assert 0.3 <= time.monotonic() - before < 1.5
        job = caller.sandbox.jobs[id]
        assert job.finished_at - job.created == pytest.approx(0.3)


def test_polls_are_counted_and_lateness_is_the_time_from_the_end_to_the_first_poll_after_it(make):
    with make(speed=100) as caller:
        id = caller.submit()
        caller.poll(id)
        job = caller.sandbox.jobs[id]
        assert (job.polls, job.first_seen_finished, job.lateness) == (1, None, None)
        caller.sandbox.finish(id)
        while job.clock.now() < job.end + 10:  # 0.1 s in all
            caller.get("/")
        caller.poll(id)
        first = job.lateness
        assert first >= 10
        assert job.first_seen_finished == pytest.approx(job.finished_at + first / 100, abs=0.001)
        caller.poll(id)
        assert job.lateness == first
        assert job.polls == 3
