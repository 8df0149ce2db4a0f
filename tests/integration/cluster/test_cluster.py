"""A worker and a triggerer of a distributed Airflow are killed: one POST per video, all finish."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo.airflow_demo import LocalAirflow
from kling_integrations.sandbox import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def posts(gateway: Sandbox, dag_id: str) -> int:
    return sum(post.body["prompt"] == dag_id for post in gateway.posts)


def job(gateway: Sandbox, dag_id: str) -> Any:
    return next((job for job in gateway.jobs.values() if job.prompt == dag_id), None)


def component_of(airflow: LocalAirflow, pid: int) -> str:
    """Which of the components is an ancestor of this process."""
    ancestors = {parent.pid for parent in psutil.Process(pid).parents()}
    return next(name for name, own in airflow.processes.items() if own.pid in ancestors)


def test_a_worker_killed_after_the_submit_and_a_triggerer_killed_while_deferred(
    airflow: LocalAirflow, gateway: Sandbox, out: Path
) -> None:
    deferred = ["deferred", "cleared", "marked", "triggerer_killed"]
    runs = {dag_id: airflow.trigger(dag_id) for dag_id in ["worker", *deferred]}

    # The worker that waits for its generation dies, with everything that it started.
    airflow.until(lambda: (found := job(gateway, "worker")) and found.polls, 120, "a poll")
    worker = component_of(airflow, int((out / "worker.pid").read_text()))
    airflow.end(worker, signal.SIGKILL)

    # So does one of the triggerers, with the triggers that it has.
    def all_deferred() -> bool:
        states = [airflow.tasks(dag_id, runs[dag_id])[0]["state"] for dag_id in deferred]
        return set(states) == {"deferred"}

    airflow.until(all_deferred, 120, "the others to be deferred")
    airflow.until(
        lambda: all(job(gateway, dag_id).polls for dag_id in deferred), 60, "all to be polled"
    )
    airflow.end("triggerer-1", signal.SIGKILL)
    before = {dag_id: job(gateway, dag_id).polls for dag_id in deferred}
    airflow.until(
        lambda: all(job(gateway, dag_id).polls > before[dag_id] for dag_id in deferred),
        90,
        "the other triggerer to poll for all of them",
    )
    gateway.finish()
    for dag_id, run_id in runs.items():
        assert airflow.finished(dag_id, run_id, 180) == "success", dag_id
        assert posts(gateway, dag_id) == 1
        assert (out / f"{dag_id}.mp4").read_bytes()[4:8] == b"ftyp"
    assert airflow.tasks("worker", runs["worker"])[0]["try_number"] == 2
