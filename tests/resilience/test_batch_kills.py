"""A batch in a shell that is killed again and again, while the gateway fails now and then."""

from __future__ import annotations

import contextlib
import os
import random
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
