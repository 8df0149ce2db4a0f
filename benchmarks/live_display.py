"""What the live display of a notebook costs: messages, bytes, CPU of the kernel, time to appear.

    python benchmarks/live_display.py [--package PATH …] [--jobs 100]      # about five minutes

Each ``--package`` is a checkout whose package is measured (default: this one); several take turns,
so that one run compares them. A real kernel runs so many generations in the background against a
sandbox that never finishes them (gateway time passes as in reality), each with its card and its
strip. Read from the kernel's iopub channel: messages per second and bytes (JSON of content,
metadata and headers), CPU time of the kernel's process, the time from a cell's start to its live
display, and what `%load_ext` takes. A grid of so many generations in one cell, and the board of a
batch of 1,000 rows of which three end in a second, are measured in the same way. The neighbours of
this machine count in the times, not in the messages.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from queue import Empty
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kling_integrations.sandbox import Sandbox  # noqa: E402

Heard = tuple[Counter[str], Counter[str], float]
LIVE = ("comm_open", "comm_msg", "comm_close", "display_data", "update_display_data")


class Kernel:
    """One kernel with the package of a checkout, and what it says."""

    def __init__(self, package: Path, base_url: str) -> None:
        from jupyter_client.manager import start_new_kernel

        self._folder = tempfile.TemporaryDirectory()
        here = Path(self._folder.name)
        hidden = ("AIMLAPI_API_KEY", "AIMLAPI_KEY", "CI")
        env = {name: value for name, value in os.environ.items() if name not in hidden}
        env |= {
            "AIML_BASE_URL": base_url, "AIML_API_KEY": "sk-not-for-show",
            "KLING_HOME": str(here / "home"), "PYTHONPATH": str(package),
            "JPY_SESSION_NAME": str(here / "live.ipynb"),
        }  # fmt: skip
        self._manager, self.client = start_new_kernel(env=env, cwd=str(here))
        import psutil

        self.process = psutil.Process(self._manager.provisioner.pid)

    def run(self, code: str, seconds: float = 120.0) -> float:
        """Runs a cell to its end; real seconds until it displayed something live."""
        started, shown = time.perf_counter(), math.nan
        wanted = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=seconds)
            kind = message["msg_type"]
            if kind == "error":
                raise SystemExit("\n".join(message["content"]["traceback"]))
            if kind == "display_data" and math.isnan(shown) and _is_live(message["content"]):
                shown = time.perf_counter() - started
            idle = kind == "status" and message["content"]["execution_state"] == "idle"
            if idle and message["parent_header"].get("msg_id") == wanted:
                return shown

    def listen(self, seconds: float) -> Heard:
        """Messages and bytes by type, and CPU seconds, while time passes."""
        number: Counter[str] = Counter()
        size: Counter[str] = Counter()
        cpu = sum(self.process.cpu_times()[:2])
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                message = self.client.get_iopub_msg(timeout=left)
            except Empty:
                break
            number[message["msg_type"]] += 1
            size[message["msg_type"]] += bytes_of(message)
        return number, size, sum(self.process.cpu_times()[:2]) - cpu

    def close(self) -> None:
        self.client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._folder.cleanup()


def bytes_of(message: dict[str, Any]) -> int:
    parts = ("header", "parent_header", "metadata", "content")
    text = sum(len(json.dumps(message[part], default=str)) for part in parts)
    return text + sum(len(each) for each in message["buffers"])


def _is_live(content: dict[str, Any]) -> bool:
    data = content["data"]
    return any("widget-view" in name for name in data) or "<progress" in str(data.get("text/html"))


def row(package: Path, what: str, seconds: float, heard: Heard) -> None:
    number, size, cpu = heard
    messages = sum(number[kind] for kind in LIVE)
    total = sum(size[kind] for kind in LIVE)
    each = f"{total / messages:,.0f}" if messages else "–"
    print(
        f"| {package.name} | {what} | {messages / seconds:.1f} | {each} | "
        f"{total / seconds / 1000:.1f} | {100 * cpu / seconds:.1f} |",
        flush=True,
    )


BATCH = """
import threading, time
from kling_integrations.core.batch.results import Result, RowStatus
from kling_integrations.core.batch.tally import Tally
from kling_integrations.jupyter.display.batch_board import Board
from kling_integrations.jupyter.frontend import choose_ui
from kling_integrations.sandbox import Sandbox
import kling_integrations as kling
tally = Tally(1000, limit=50, running=50, spent=24.0, max_cost=500.0, expected=170.0)
board = Board(choose_ui(), sandbox=True)
end, row = time.monotonic() + {seconds}, 0
while time.monotonic() < end:
    if time.monotonic() - (end - {seconds}) > row * 0.3:
        row += 1
        tally.end(Result(row, f"id{{row}}", RowStatus.COMPLETED, path="{video}"))
    board.update(tally)
    time.sleep(0.1)
"""


def first_display(package: Path, base_url: str) -> tuple[float, float, float]:
    """Seconds of ``%load_ext``, to the first live display of a kernel, and to its next one."""
    kernel = Kernel(package, base_url)
    started = time.perf_counter()
    kernel.run("%load_ext kling_integrations")
    loaded = time.perf_counter() - started
    first = kernel.run("%%kling -d 5 --bg -o one\nA cat")
    following = kernel.run("%%kling -d 5 --bg -o two\nA dog")
    kernel.close()
    return loaded, first, following


def running(package: Path, base_url: str, code: str, settle: float, seconds: float) -> Heard:
    """What a kernel says while what the code has started goes on."""
    kernel = Kernel(package, base_url)
    kernel.run("%load_ext kling_integrations\n%config KlingMagics.at_once = 200")
    kernel.run(code) if settle else kernel.client.execute(code)
    kernel.listen(settle)
    heard = kernel.listen(seconds)
    kernel.close()
    return heard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, action="append")
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--settle", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    packages = [path.resolve() for path in args.package or [ROOT]]
    video = ROOT / "kling_integrations" / "sandbox" / "video" / "ready_made.mp4"
    many = "\n".join(
        f"get_ipython().run_cell_magic('kling', '-d 5 --bg -o j{n}', 'Cat {n}')"
        for n in range(args.jobs)
    )
    flags = f"-d 5 --takes {args.jobs} --bg --yes --max-cost 1000 -o grid"
    grid = f"get_ipython().run_cell_magic('kling', {flags!r}, 'A fox')"
    with Sandbox(speed=1, seconds=lambda *_: math.inf, size=(320, 180), fps=8, seed=1) as sandbox:
        times: dict[Path, list[tuple[float, float, float]]] = {each: [] for each in packages}
        for _ in range(args.rounds):
            for package in packages:
                times[package].append(first_display(package, sandbox.base_url))
        print("| package | %load_ext, ms | first live display, ms | the next, ms |")
        print("|---|---:|---:|---:|")
        for package in packages:
            medians = [1000 * statistics.median(each) for each in zip(*times[package], strict=True)]
            print(f"| {package.name} | {' | '.join(f'{each:.0f}' for each in medians)} |")
        print()
        print("| package | what runs | messages/s | bytes each | kB/s | CPU of the kernel, % |")
        print("|---|---|---:|---:|---:|---:|")
        batch = BATCH.format(seconds=args.seconds, video=video)
        for what, code, settle in (
            (f"{args.jobs} background jobs", many, args.settle),
            (f"a grid of {args.jobs}", grid, args.settle),
            ("a batch of 1,000 rows", batch, 0),
        ):
            for package in packages:
                heard = running(package, sandbox.base_url, code, settle, args.seconds)
                row(package, what, args.seconds, heard)


if __name__ == "__main__":
    main()
