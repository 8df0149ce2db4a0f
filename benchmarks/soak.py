"""Hours of it: shell, cells, operators, triggers and scripts against a gateway that misbehaves.

    python benchmarks/soak.py --minutes 10 [--share 0.1] [--fronts sync async shell cell …]

Each front works in a process of its own, one video after the other, as a user would: the same call
again after trouble; after a submission in doubt a look into the gateway's log, and a new one only
when it is not there. A tenth of all calls goes wrong, and the scripts, the shell and the cells are
killed (SIGKILL) every few seconds and started anew on the same video. The verdict: no video paid
for twice, none lost, none half, nothing left over, no key elsewhere, memory flat. Exit code 1 says
that one of these did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from kling_integrations import KlingClient, KlingError, Ledger  # noqa: E402
from kling_integrations.sandbox import Sandbox  # noqa: E402

KILLED = ("sync", "async", "shell", "cell")  # these keep their record on a disk of their own
FRONTS = (*KILLED, "operator", "trigger")
SPEED = 300.0
TRIES = 60
SUBMIT_FAULTS = ("drop-after", "drop-before", "503", "502-after", "not-http", "429", "cut-json")
POLL_FAULTS = ("drop-before", "500", "503", "404", "429", "html", "cut", "garbage", "odd-status")
FILE_FAULTS = ("cut", "drop-before", "503", "html", "expired", "short", "no-range")


# --- a worker: one front, one video after the other ----------------------------------------------


def work(name: str, base_url: str, folder: Path) -> None:
    """Until it is told to stop; goes on where an earlier life was killed."""
    from resilience.fronts import FRONTS as DOORS
    from resilience.fronts import KEY, Limits, Wish

    warnings.simplefilter("ignore")
    os.environ |= {
        "KLING_HOME": str(folder / "home"),
        "AIML_API_KEY": KEY,
        "AIML_BASE_URL": base_url,
    }
    # A worker that keeps its records itself: the ledger's shelf is not asked for it.
    gateway: Any = SimpleNamespace(base_url=base_url, speed=SPEED, jobs={})
    state = folder / "number"
    number = int(state.read_text()) if state.exists() else 0
    log = (folder / "log").open("a", buffering=1)
    with Limits(exchange=3.0):
        while not (folder / "stop").exists():
            state.write_text(str(number))
            prompt = f"{name} {number}"
            target = folder / "out" / f"{number}.mp4"
            wish = Wish(gateway, folder / "home", target, prompt)
            front = DOORS[name](wish)
            try:
                for _ in range(TRIES):
                    ending = front.call()
                    if ending.verdict == "done":
                        break
                    log.write(json.dumps({"verdict": ending.verdict}) + "\n")
                    if ending.verdict == "uncertain":
                        settle(name, wish, front, log)
                else:
                    log.write(json.dumps({"gave up": prompt}) + "\n")
            finally:
                front.close()
            usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            log.write(json.dumps({"done": prompt, "kilobytes": usage}) + "\n")
            number += 1


def settle(name: str, wish: Any, front: Any, log: Any) -> None:
    """What `kling recover` and `--new` do: the user decides, and only when nothing is listed."""
    from resilience.fronts import KEY

    if name in ("operator", "trigger"):
        # A task looks into the log by itself; what is not listed is cleared by hand here.
        time.sleep(300 / SPEED)
        if front.call().verdict == "uncertain":
            front.rows.clear()
            log.write(json.dumps({"new": wish.prompt}) + "\n")
        return
    time.sleep(300 / SPEED)  # until it is finished, and so in the gateway's log
    ledger = Ledger()
    try:
        with KlingClient(KEY, wish.sandbox.base_url) as client:
            found = client.recover()
    except KlingError:
        return
    if any(each.generation_id is None and each.entry.prompt == wish.prompt for each in found):
        log.write(json.dumps({"new": wish.prompt}) + "\n")
        with KlingClient(KEY, wish.sandbox.base_url, ledger=ledger) as client:
            try:
                client.submit(wish.request, new=True)
            except KlingError as error:
                log.write(json.dumps({"verdict": type(error).__name__}) + "\n")


# --- the soak ------------------------------------------------------------------------------------


@dataclass
class Worker:
    name: str
    folder: Path
    base_url: str
    kills: int = 0
    process: subprocess.Popen[str] | None = None
    crashes: list[str] = field(default_factory=list)

    def start(self) -> None:
        words = ["--work", self.name, "--base", self.base_url, "--folder", str(self.folder)]
        with (self.folder / "errors").open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, __file__, *words], stderr=errors, stdout=subprocess.DEVNULL
            )

    def keep_alive(self, dice: random.Random, every: float) -> None:
        """Kills it now and then, starts it again; a death of its own is a finding."""
        assert self.process
        code = self.process.poll()
        if code is not None:
            if code not in (0, -signal.SIGKILL):
                self.crashes.append((self.folder / "errors").read_text()[-2000:])
            self.start()
        elif self.name in KILLED and dice.random() < 1 / every:
            self.process.kill()
            self.process.wait()
            self.kills += 1
            self.start()

    def stop(self) -> None:
        (self.folder / "stop").touch()
        assert self.process
        try:
            code = self.process.wait(timeout=90)
            if code:
                self.crashes.append((self.folder / "errors").read_text()[-2000:])
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.crashes.append("it did not end")

    @property
    def log(self) -> list[dict[str, Any]]:
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]


def soak(minutes: float, share: float, fronts: list[str], folder: Path) -> list[str]:
    dice = random.Random()
    with Sandbox(speed=SPEED, size=(160, 90), fps=8, cdn_host="localhost") as gateway:
        for moment, kinds in (
            ("submit", SUBMIT_FAULTS),
            ("poll", POLL_FAULTS),
            ("download", FILE_FAULTS),
        ):
            for place, kind in enumerate(kinds):
                # The first that fits strikes: each takes its part of what those before it left.
                part = share / len(kinds) / (1 - share * place / len(kinds))
                gateway.fault(moment, kind, times=None, share=part)
        workers = []
        for name in fronts:
            (folder / name / "out").mkdir(parents=True)
            workers.append(Worker(name, folder / name, gateway.base_url))
            workers[-1].start()
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            time.sleep(0.5)
            for worker in workers:
                worker.keep_alive(dice, every=12)
        stopping = [threading.Thread(target=worker.stop) for worker in workers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        return verdict(gateway, workers)


def verdict(gateway: Sandbox, workers: list[Worker]) -> list[str]:
    """Prints the figures; returns what went wrong."""
    import av

    problems = []
    paid = Counter(job.prompt for job in gateway.jobs.values())
    print("| front | videos | kills | paid | in doubt | asked anew | trouble told | MB |")
    print("|---|---|---|---|---|---|---|---|")
    for worker in workers:
        log = worker.log
        done = [row["done"] for row in log if "done" in row]
        anew = Counter(row["new"] for row in log if "new" in row)
        told = Counter(row["verdict"] for row in log if "verdict" in row)
        sizes = [row["kilobytes"] for row in log if "kilobytes" in row]
        mine = {prompt: n for prompt, n in paid.items() if prompt.startswith(f"{worker.name} ")}
        for prompt, count in mine.items():
            if count > 1 + anew[prompt]:
                problems.append(f"{prompt}: paid {count} times, {anew[prompt]} asked for anew")
        problems += [f"{worker.name} gave up: {row['gave up']}" for row in log if "gave up" in row]
        problems += [f"{worker.name} crashed: {words}" for words in worker.crashes]
        for prompt in done:
            path = worker.folder / "out" / f"{prompt.split()[1]}.mp4"
            try:
                with av.open(str(path)) as video:
                    whole = sum(1 for _ in video.decode(video=0)) == 40
            except Exception as error:
                whole = bool(problems.append(f"{prompt}: {error}"))
            if not whole:
                problems.append(f"{prompt}: the file is not the whole video")
        known = {f"{prompt.split()[1]}.mp4" for prompt in done}
        left = {path.name for path in (worker.folder / "out").iterdir()} - known
        # The last video may be under way, and a kill may leave a hidden part.
        if len([name for name in left if not name.endswith(".part")]) > 1:
            problems.append(f"{worker.name} left {sorted(left)}")
        if len(sizes) > 20 and sizes[-1] > 1.5 * sizes[len(sizes) // 2] + 20_000:
            problems.append(f"{worker.name}: {sizes[len(sizes) // 2]} kB grew to {sizes[-1]}")
        if not done:
            problems.append(f"{worker.name} made no video at all")
        trouble = sum(told.values())
        print(
            f"| {worker.name} | {len(done)} | {worker.kills} | {sum(mine.values())} | "
            f"{told['uncertain']} | {sum(anew.values())} | {trouble} | "
            f"{max(sizes, default=0) // 1024} |"
        )
    if gateway.leaked_keys:
        problems.append(f"{gateway.leaked_keys} keys reached another host")
    print(
        f"\nrequests: {dict(gateway.requests)}; posts: {len(gateway.posts)}; paid: {gateway.paid}"
    )
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--share", type=float, default=0.1, help="of the calls that go wrong")
    parser.add_argument("--fronts", nargs="+", choices=FRONTS, default=list(FRONTS))
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.base, args.folder)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="kling-soak-"))
    try:
        problems = soak(args.minutes, args.share, args.fronts, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print("VERDICT: " + ("nothing paid twice, nothing lost" if not problems else "broken"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
