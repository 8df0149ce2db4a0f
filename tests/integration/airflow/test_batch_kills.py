"""A table in a real Airflow whose workers and triggerer are killed at random, again and again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.killed_batches import (
    check_each_paid_once,
    fail_now_and_then,
    prompts,
    write_table,
)

from demo.airflow_demo import LocalAirflow
from kling_integrations.sandbox import Sandbox

AGE = 3.0  # real seconds that a generation takes: sixty of the gateway's


class Killer:
    """A run of the DAG ``kills``, which ends its generations and whose processes it kills."""

    def __init__(self, airflow: LocalAirflow, gateway: Sandbox, out: Path, rows: int) -> None:
        self.airflow, self.gateway = airflow, gateway
        self.folder = out / f"kills{rows}"
        self.folder.mkdir()
        self.texts = prompts(rows, f"kills{rows}")
        write_table(self.folder / "p.jsonl", self.texts)
        self.run_id = airflow.trigger("kills", {"folder": str(self.folder)})
        self.seen: dict[str, float] = {}
        self.killed = {"worker": 0, "triggerer": 0}

    @property
    def task(self) -> dict[str, Any]:
        return self.airflow.tasks("kills", self.run_id)[0]

    def end_those_of_age(self) -> None:
        for job in list(self.gateway.jobs.values()):
            first = self.seen.setdefault(job.id, time.monotonic())
            if time.monotonic() - first > AGE:
                self.gateway.finish(job.id)

    def state(self) -> str:
        self.end_those_of_age()
        return str(self.task["state"])

    def after_requests(self, kind: str, more: int) -> None:
        """Waits until so many more requests of the kind have come, or for a while."""
        due, deadline = self.gateway.requests[kind] + more, time.monotonic() + 40
        while self.gateway.requests[kind] < due and time.monotonic() < deadline:
            self.end_those_of_age()
            time.sleep(0.01)

    def kill(self, what: str, more: int) -> None:
        self.after_requests("poll" if what == "triggerer" else "submit", more)
        if what == "triggerer":
            self.airflow.end("triggerer", signal.SIGKILL)
            self.airflow.run("triggerer")
            self.killed[what] += 1
            return
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
            self.killed[what] += 1


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("kills", "rows"),
    [
        pytest.param(3, 24, marks=pytest.mark.slow),
        pytest.param(20, 120, marks=pytest.mark.exhaustive),
    ],
)
def test_killed_at_random_each_row_is_one_payment_and_one_result(
    airflow: LocalAirflow, gateway: Sandbox, out: Path, kills: int, rows: int
):
    dice = random.Random(kills)
    run = Killer(airflow, gateway, out, rows)
    fail_now_and_then(gateway, match=f"kills{rows} ")
    try:
        while sum(run.killed.values()) < kills:
            assert run.state() not in ("success", "failed"), f"it ended after {run.killed}"
            what = "worker" if run.killed["worker"] <= run.killed["triggerer"] else "triggerer"
            run.kill(what, dice.randint(1, 8))
        over = airflow.until(
            lambda: run.state() in ("success", "failed") and run.state(), 600, "the end"
        )
    finally:
        gateway.clear_faults()
    print(run.killed, run.task["try_number"])
    assert over == "success"
    check_each_paid_once(gateway, run.texts, run.folder / "results.jsonl")
