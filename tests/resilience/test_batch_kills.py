"""A batch in a shell that is killed again and again, while the gateway fails now and then."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.killed_batches import (
    check_each_paid_once,
    fail_now_and_then,
    is_whole,
    prompts,
    write_table,
)

from kling_integrations.core.storage.ledger import Ledger
from kling_integrations.core.submission import Entry, State
from kling_integrations.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kills", "rows"),
    [
        pytest.param(4, 40, marks=pytest.mark.slow),
        pytest.param(20, 120, marks=pytest.mark.exhaustive),
    ],
)
def test_killed_at_random_each_row_is_one_payment_and_one_result(tmp_path, kills, rows):
    dice, texts = random.Random(kills), prompts(rows)
    write_table(tmp_path / "p.jsonl", texts)
    with Sandbox(speed=100, seconds=60, size=(160, 90), fps=8, seed=kills) as sandbox:
        fail_now_and_then(sandbox)
        for number in range(kills):
            running = start(tmp_path, sandbox)
            due = sandbox.requests.total() + dice.randint(1, 40)  # at no special line
            with contextlib.suppress(TimeoutError):
                sandbox.wait_for(lambda _, n=due: sandbox.requests.total() >= n, 10)
            assert running.poll() is None, f"it ended before kill number {number + 1}"
            running.kill()
            running.communicate()
        said = ""
        for _ in range(4):  # rows that failed or are in doubt, until none is
            ended = start(tmp_path, sandbox, "--retry-failed", "--retry-uncertain")
            _, said = ended.communicate(timeout=300)
            if is_whole(tmp_path / "r.jsonl"):
                break
        print(said)
        check_each_paid_once(sandbox, texts, tmp_path / "r.jsonl")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("signals", "rows"),
    [
        pytest.param(6, 60, marks=pytest.mark.slow),
        pytest.param(64, 400, marks=pytest.mark.exhaustive),
    ],
)
def test_signalled_at_random_no_row_is_paid_twice_and_every_id_is_kept(tmp_path, signals, rows):
    dice, texts = random.Random(signals), prompts(rows)
    write_table(tmp_path / "p.jsonl", texts)
    with Sandbox(speed=100, seconds=60, size=(160, 90), fps=8, seed=signals) as sandbox:
        lost: set[str] = set()  # what a kill left: ids that no record has, intents without an id
        for number in range(signals):
            running = start(tmp_path, sandbox)
            due = sandbox.requests.total() + dice.randint(1, 30)
            with contextlib.suppress(TimeoutError):
                sandbox.wait_for(lambda _, n=due: sandbox.requests.total() >= n, 10)
            assert running.poll() is None, f"it ended before signal number {number + 1}"
            sent = dice.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL))
            running.send_signal(sent)
            _, said = running.communicate(timeout=60)
            assert "Traceback" not in said, (sent, said)
            assert running.returncode != 0
            records = entries(tmp_path)
            unknown = {job.id for job in sandbox.jobs.values()}
            unknown -= {entry.generation_id for entry in records}
            unknown |= {e.record.client_request_id for e in records if e.state is State.INTENT}
            if sent is signal.SIGKILL:
                lost |= unknown
            else:  # an end in order loses nothing
                assert unknown <= lost, (sent, said)
        ended = start(tmp_path, sandbox, "--retry-uncertain")
        _, said = ended.communicate(timeout=600)
        assert ended.returncode == 0, said
        check_each_paid_once(sandbox, texts, tmp_path / "r.jsonl")
        ids = {entry.generation_id for entry in entries(tmp_path)} - {None}
        assert ids == {job.id for job in sandbox.jobs.values()}


def entries(folder: Path) -> list[Entry]:
    return Ledger(folder / "home" / "ledger.sqlite3").history(10_000)


def start(folder: Path, sandbox: Sandbox, *words: str) -> subprocess.Popen[str]:
    line = ["batch", "p.jsonl", "-o", "out", "--results", "r.jsonl", "--at-once", "8", *words]
    return subprocess.Popen(
        [sys.executable, "-m", "kling_integrations", *line],
        cwd=folder,
        env={
            **os.environ,
            **sandbox.environment,
            "KLING_HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
