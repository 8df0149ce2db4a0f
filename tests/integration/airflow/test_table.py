"""A table in a real Airflow whose triggerer and worker are killed: each row is paid for once."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from demo.airflow_demo import LocalAirflow
from kling_integrations.airflow import version_compat
from kling_integrations.sandbox import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


def test_a_table_outlives_a_killed_triggerer_and_a_killed_worker(
    airflow: LocalAirflow, gateway: Sandbox, out: Path
):
    def jobs():
        return [job for job in gateway.jobs.values() if str(job.prompt).startswith("table ")]

    def state():
        return airflow.tasks("table", run_id)[0]["state"]

    gateway.fault("submit", "slow", 4, seconds=3, match="table 5")
    run_id = airflow.trigger("table")
    airflow.until(lambda: state() == "deferred" and len(jobs()) == 4, 90, "the first window")
    airflow.end("triggerer", signal.SIGKILL)
    airflow.run("triggerer")
    for job in jobs():
        gateway.finish(job.id)

    def fifth_is_posted():
        return any(post.body["prompt"] == "table 5" for post in gateway.posts)

    airflow.until(fifth_is_posted, 120, "the second window")
    with suppress(ProcessLookupError):  # in the middle of its round
        os.kill(int((out / "table.pid").read_text()), signal.SIGKILL)

    def over():
        for job in jobs():
            gateway.finish(job.id)
        return state() in ("success", "failed")

    airflow.until(over, 300, "the end of the table")
    if state() == "failed" and not version_compat.FOREVER:  # 3.0 retries no killed task
        airflow.clear("table", run_id, "videos")
        airflow.until(over, 300, "the end of the table")
    assert state() == "success"
    rows = [json.loads(line) for line in (out / "table" / "results.jsonl").read_text().splitlines()]
    assert [row["sku"] for row in rows] == list(range(12))
    assert {row["status"] for row in rows} == {"completed"}
    assert Counter(job.prompt for job in jobs()) == {f"table {n}": 1 for n in range(12)}
    assert all(Path(row["path"]).exists() for row in rows)
