"""``%kling batch`` in real kernels that are killed again and again: each row is paid for once."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from integration.jupyter.test_kernels import Kernel, error_of
from support.killed_batches import (
    check_each_paid_once,
    fail_now_and_then,
    is_whole,
    prompts,
    write_table,
)

from kling_integrations.sandbox import Sandbox

LINE = "table = %kling batch p.jsonl -o out --results r.jsonl --at-once 8 --yes"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kills", "rows"),
    [
        pytest.param(3, 30, marks=pytest.mark.slow),
        pytest.param(20, 120, marks=pytest.mark.exhaustive),
    ],
)
def test_killed_at_random_each_row_is_one_payment_and_one_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int, rows: int
):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    dice, texts = random.Random(kills), prompts(rows)
    write_table(tmp_path / "p.jsonl", texts)
    with Sandbox(speed=100, seconds=60, size=(160, 90), fps=8, seed=kills) as sandbox:
        fail_now_and_then(sandbox)
        for _ in range(kills):
            kernel = Kernel(tmp_path, sandbox.base_url)
            due = sandbox.requests.total() + dice.randint(1, 40)
            kernel.start(LINE)
            with contextlib.suppress(TimeoutError):
                sandbox.wait_for(lambda _, n=due: sandbox.requests.total() >= n, 30)
            kernel.kill()
            kernel.close()
        kernel = Kernel(tmp_path, sandbox.base_url)
        for _ in range(4):  # rows that failed or are in doubt, until none is
            kernel.run(f"{LINE} --retry-failed --retry-uncertain")
            if is_whole(tmp_path / "r.jsonl"):
                break
        assert kernel.value("len(table), set(table.status)") == f"({rows}, {{'completed'}})"
        kernel.close()
        check_each_paid_once(sandbox, texts, tmp_path / "r.jsonl")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_interrupted_batch_says_what_goes_on_and_the_next_one_pays_nothing_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    texts = prompts(6)
    write_table(tmp_path / "p.jsonl", texts)
    with Sandbox(speed=100, seconds=float("inf"), size=(160, 90), fps=8) as sandbox:
        kernel = Kernel(tmp_path, sandbox.base_url)
        running = kernel.start(LINE)
        sandbox.wait_for(lambda s: len(s.jobs) == 6, 30)
        kernel.interrupt()
        error = error_of(kernel.finish(running))
        assert error["ename"] == "StoppedWaiting"
        assert "6 generations go on" in error["evalue"]
        sandbox.finish()
        kernel.run(LINE)
        kernel.close()
        check_each_paid_once(sandbox, texts, tmp_path / "r.jsonl")
