"""A batch that is killed again and again, by a gateway that fails in every twentieth request."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kling_integrations.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
ROWS, KILLS = 120, 20

FAULTS = {
    "submit": ("drop-before", "drop-after", "429", "garbage"),
    "poll": ("503", "drop-before", "html"),
    "download": ("cut", "503"),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1])
def test_killed_twenty_times_each_row_is_one_payment_and_one_result(tmp_path, seed):
    dice = random.Random(seed)
    table = tmp_path / "p.jsonl"
    table.write_text("".join(json.dumps({"prompt": f"number {n}"}) + "\n" for n in range(ROWS)))
    with Sandbox(speed=100, seconds=60, size=(160, 90), fps=8, seed=seed) as sandbox:
        for moment, kinds in FAULTS.items():
            for kind in kinds:
                sandbox.fault(moment, kind, None, share=0.05 / len(kinds))
        kills = 0
        while kills < KILLS:
            running = start(tmp_path, sandbox)
            begun = sandbox.requests.total()
            more = dice.randint(1, 40)  # it dies after so many requests: at no special line
            with contextlib.suppress(TimeoutError):
                sandbox.wait_for(lambda _, n=begun + more: sandbox.requests.total() >= n, 10)
            killed = running.poll() is None
            running.kill()
            running.communicate()
            kills += killed
            assert killed or kills > 5, "it ended before it could be killed"
            if not killed:
                break
        rows = []
        for _ in range(4):  # rows that failed or are in doubt, until none is
            ended = start(tmp_path, sandbox, "--retry-failed", "--retry-uncertain")
            _, said = ended.communicate(timeout=300)
            rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
            if all(row["status"] == "completed" and row["path"] for row in rows):
                break
        assert [row["prompt"] for row in rows] == [f"number {n}" for n in range(ROWS)], said
        assert Counter(row["status"] for row in rows) == {"completed": ROWS}, said
        paid = Counter(job.prompt for job in sandbox.jobs.values())
        assert set(paid.values()) == {1}
        assert len(paid) == ROWS
        assert all(Path(row["path"]).stat().st_size == row["size"] for row in rows)
        assert {row["generation_id"] for row in rows} == set(sandbox.jobs)
        print(f"{kills} kills, {dict(sandbox.requests)}")


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
