"""Runs the whole suite in two lanes side by side and sums up.

The first lane works on two cores; the second mostly waits: real Airflow, then kernels and browser.
Each lane is one pytest, so a failure reads as usual.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The cluster of Celery, Redis and PostgreSQL has a command of its own: make test-cluster.
WAITING = ("tests/integration/airflow", "tests/integration/jupyter")
LANES = {
    "the rest": [
        "-n",
        "2",
        "tests",
        *(f"--ignore={at}" for at in (*WAITING, "tests/integration/cluster")),
    ],
    "Airflow, kernels, browser": [*WAITING],
}


def main() -> int:
    began = time.monotonic()
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    running = []
    for name, arguments in LANES.items():
        log = (build / f"test-{name.split()[-1]}.log").open("w+")
        command = [sys.executable, "-m", "pytest", "-q", "--durations=10", *arguments]
        print(f"{name}: pytest {' '.join(arguments)} > build/{Path(log.name).name}", flush=True)
        lane = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        running.append((name, lane, log))
    passed = failed = skipped = 0
    bad = False
    for name, lane, log in running:
        code = lane.wait()
        log.seek(0)
        text = log.read()
        print(f"\n=== {name} ===\n{text}", flush=True)
        bad |= code != 0
        closing = text.strip().splitlines()[-1] if text.strip() else ""
        passed += _count(closing, "passed")
        failed += _count(closing, "failed") + _count(closing, r"errors?")
        skipped += _count(closing, "skipped")
    print(f"in {time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if bad or not passed else 0


def _count(line: str, word: str) -> int:
    found = re.search(rf"(\d+) {word}", line)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
