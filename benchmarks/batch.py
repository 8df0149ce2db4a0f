"""What a batch costs on this machine: CPU and memory for each video, from the shell's command.

    python benchmarks/batch.py [--rows 10000] [--at-once 200] [--speed 600]

The gateway is the sandbox in a process of its own, with a ready-made clip instead of an encoder;
the batch is ``kling batch`` in another, whose CPU seconds (user and system, all threads) and
resident memory are read from /proc while it runs. Beside it stands the script that one would write
first: ``AsyncKlingClient.generate`` and ``save`` over all rows in one ``gather``, without a ledger,
results, budget or window. Exit code 1 where a row is missing or was posted twice.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 100  # gateway seconds of a job

GATEWAY = """
import sys, threading
sys.modules["av"] = None
from kling_integrations.sandbox import Sandbox
with Sandbox(speed=float(sys.argv[1]), seconds=float(sys.argv[2])) as sandbox:
    print(sandbox.base_url, flush=True)
    sys.stdin.read()
    print(len(sandbox.posts), sandbox.paid, dict(sandbox.requests), flush=True)
"""

NAIVE = """
import asyncio, json, sys
from pathlib import Path
from kling_integrations import AsyncKlingClient, VideoRequest

async def main():
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    at_once = asyncio.Semaphore(int(sys.argv[3]))
    async with AsyncKlingClient() as client:
        async def one(row):
            async with at_once:
                generation = await client.generate(VideoRequest(**row))
                await client.save(generation, sys.argv[2] + "/")
        await asyncio.gather(*(one(row) for row in rows))

asyncio.run(main())
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=10_000)
    options.add_argument("--at-once", type=int, default=200)
    options.add_argument("--speed", type=float, default=600.0)
    options.add_argument("--no-naive", action="store_true")
    args = options.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "p.jsonl")
        table.write_text(
            "".join(json.dumps({"prompt": f"number {n}"}) + "\n" for n in range(args.rows))
        )
        own = ["-m", "kling_integrations", "batch", str(table), "-o", f"{folder}/out"]
        own += ["--results", f"{folder}/r.jsonl", "--at-once", str(args.at_once)]
        wrong += measure("kling batch", own, args, folder)
        results = [json.loads(line) for line in Path(folder, "r.jsonl").read_text().splitlines()]
        done = sum(row["status"] == "completed" for row in results)
        print(f"{'':14} rows in {args.rows}, rows out {len(results)}, completed {done}")
        wrong += len(results) != args.rows or done != args.rows
        if not args.no_naive:
            naive = ["-c", NAIVE, str(table), f"{folder}/naive", str(args.at_once)]
            measure("naive script", naive, args, folder)
    return bool(wrong)


def measure(name: str, line: list[str], args: argparse.Namespace, folder: str) -> int:
    """Runs one against a fresh gateway; prints its figures. 1 where POSTs are not rows."""
    python = [sys.executable]
    gateway = subprocess.Popen(
        [*python, "-c", GATEWAY, str(args.speed), str(SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert gateway.stdin
    assert gateway.stdout
    base_url = gateway.stdout.readline().strip()
    env = {**os.environ, "AIML_BASE_URL": base_url, "AIML_API_KEY": "sandbox"}
    env |= {"KLING_HOME": f"{folder}/home", "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    errors = Path(folder, "errors")
    with errors.open("wb") as sink:
        running = subprocess.Popen([*python, *line], env=env, stdout=sink, stderr=sink)
        seen: list[tuple[float, float]] = []
        while running.poll() is None:
            seen += [found] if (found := look(running.pid)) else []
            time.sleep(0.5)
    wall = time.monotonic() - began
    gateway.stdin.close()
    posts, paid, requests = gateway.stdout.readline().split(maxsplit=2)
    gateway.wait()
    cpu = max((found[0] for found in seen), default=0.0)
    memory = [found[1] for found in seen]
    middle = memory[len(memory) // 2 :] or [0.0]
    print(
        f"{name:14} {1000 * cpu / args.rows:5.1f} ms CPU a video · {wall:6.1f} s · memory "
        f"{middle[0]:.0f} MB half-way, {max(memory, default=0.0):.0f} MB at most · POSTs {posts}, "
        f"paid {paid} · exit {running.returncode}"
    )
    print(f"{'':14} requests {requests.strip()}")
    if running.returncode:
        print(errors.read_text(errors="replace")[-2000:])
    return int(posts) != args.rows or int(paid) != args.rows


def look(pid: int) -> tuple[float, float] | None:
    """CPU seconds and resident MB of a process so far; None once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages: Any = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return None
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
