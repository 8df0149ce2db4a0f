"""What a video of a table costs in a real Airflow: CPU of all its processes, memory of the worker.

    python benchmarks/batch_airflow.py [--rows 2000] [--at-once 200] [--mapped 40] [--others 20]

Scheduler, DAG processor, triggerer, API server and the tasks they start run on this machine against
the sandbox in a process of its own. CPU seconds (user and system, ended children included) are read
from /proc between the trigger of a run and its end; what these processes burn while nothing happens
is measured before, and both figures are printed. All the while ``--others`` tasks wait in the
triggerer for an hour to come (Airflow's own DateTimeTrigger), and a trigger beside them measures
how late the loop is for a timer of 10 ms. A task that only sleeps says what a worker's process
has anyway. Beside the table run the single operator, mapped over ``--mapped`` prompts, and the
script that one would write first (as in batch.py). Exit code 1 where a row is missing or was posted
twice.
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from batch import NAIVE, look  # noqa: E402

from demo.airflow_demo import LocalAirflow  # noqa: E402

SECONDS = 60  # gateway seconds of a job

GATEWAY = """
import sys
sys.modules["av"] = None
from kling_integrations.sandbox import Sandbox
with Sandbox(speed=float(sys.argv[1]), seconds=float(sys.argv[2])) as sandbox:
    print(sandbox.base_url, flush=True)
    for _ in sys.stdin:
        print(len(sandbox.posts), sandbox.paid, sandbox.requests["poll"], flush=True)
"""

BESIDE = """
import asyncio, os, time
from datetime import datetime, timedelta, timezone
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

class Waits(BaseOperator):
    def __init__(self, number=0, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context):
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        self.defer(trigger=DateTimeTrigger(moment=later), method_name="execute")

class Probes(BaseOperator):
    def execute(self, context):
        file = os.environ["KLING_BENCH_OUT"] + "/lags"
        self.defer(trigger=Probe(file=file), method_name="execute")

class Probe(BaseTrigger):
    def __init__(self, file):
        super().__init__()
        self.file = file

    def serialize(self):
        return "bench_beside.Probe", {"file": self.file}

    async def run(self):
        lags, written = [], time.monotonic()
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            lags.append(f"{time.time():.3f} {time.monotonic() - began - 0.01:.5f}\\n")
            if began - written > 2.0:
                with open(self.file, "a") as stream:
                    stream.write("".join(lags))
                lags, written = [], time.monotonic()
        yield TriggerEvent({})
"""

DAGS = """
import os, time
from datetime import timedelta
from airflow.sdk import DAG, task
from bench_beside import Probes, Waits
from kling_integrations.airflow import KlingBatchOperator, KlingVideoOperator
OUT = os.environ["KLING_BENCH_OUT"]
with DAG("table", schedule=None):
    KlingBatchOperator(
        task_id="videos", rows_path=OUT + "/p.jsonl", output_path=OUT + "/videos/",
        results_path=OUT + "/results.jsonl", at_once=int(os.environ["KLING_BENCH_AT_ONCE"]),
        deferrable=True, retries=3, retry_delay=timedelta(seconds=2),
    )
with DAG("mapped", schedule=None, max_active_tasks=32):
    KlingVideoOperator.partial(
        task_id="videos", output_path=OUT + "/mapped/{{ ti.map_index }}.mp4", deferrable=True,
        retries=3, retry_delay=timedelta(seconds=2),
    ).expand(prompt=[f"mapped {n}" for n in range(int(os.environ["KLING_BENCH_MAPPED"]))])
with DAG("bare", schedule=None):
    @task
    def sleep():
        time.sleep(4)
    sleep()
with DAG("beside", schedule=None, max_active_tasks=100):
    Probes(task_id="probe")
    Waits.partial(task_id="waits").expand(number=list(range(int(os.environ["KLING_BENCH_OTHERS"]))))
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=2000)
    options.add_argument("--at-once", type=int, default=200)
    options.add_argument("--mapped", type=int, default=40)
    options.add_argument("--others", type=int, default=20)
    options.add_argument("--speed", type=float, default=4.0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return run(args, Path(folder))


class Gateway:
    """The sandbox in a process of its own."""

    def __init__(self, speed: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, str(speed), str(SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.base_url = self._line()

    def counts(self) -> list[int]:
        """POSTs, generations paid for, polls so far."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [int(word) for word in self._line().split()]

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def run(args: argparse.Namespace, folder: Path) -> int:
    gateway = Gateway(args.speed)
    lines = (json.dumps({"prompt": f"number {n}"}) + "\n" for n in range(args.rows))
    (folder / "p.jsonl").write_text("".join(lines))
    (folder / "dags").mkdir()
    (folder / "dags" / "bench.py").write_text(DAGS)
    (folder / "lib").mkdir()
    (folder / "lib" / "bench_beside.py").write_text(BESIDE)
    connection = {"conn_type": "kling", "password": "sandbox", "host": gateway.base_url}
    settings = {
        "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
        "KLING_BENCH_OUT": str(folder),
        "KLING_BENCH_AT_ONCE": str(args.at_once),
        "KLING_BENCH_MAPPED": str(max(1, args.mapped)),
        "KLING_BENCH_OTHERS": str(max(1, args.others)),
        "KLING_HOME": str(folder / "home"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "lib")]),
    }
    wrong = False
    try:
        with LocalAirflow(folder / "dags", folder / "airflow", settings) as airflow:
            beside = airflow.trigger("beside")

            def waiting() -> bool:
                states = [each["state"] for each in airflow.tasks("beside", beside)]
                return states == ["deferred"] * (max(1, args.others) + 1)

            airflow.until(waiting, 300, "the tasks beside it to wait")
            time.sleep(10)
            idle = measure_idle(airflow, folder)
            bench = Bench(airflow, folder, gateway, idle)
            bench.measure("bare", 1)
            posts = bench.measure("table", args.rows)
            results = [json.loads(x) for x in (folder / "results.jsonl").read_text().splitlines()]
            done = sum(row["status"] == "completed" for row in results)
            print(f"rows in {args.rows}, rows out {len(results)}, completed {done}, POSTs {posts}")
            wrong = not (posts == len(results) == done == args.rows)
            if args.mapped:
                bench.measure("mapped", args.mapped)
        naive(args, folder, gateway.base_url)
    finally:
        gateway.close()
    return int(wrong)


def measure_idle(airflow: LocalAirflow, folder: Path) -> float:
    """CPU-s a second while nothing but the waiting happens."""
    began, moment, before = time.monotonic(), time.time(), cpu(airflow)
    time.sleep(20)
    idle = (cpu(airflow) - before) / (time.monotonic() - began)
    print(f"idle: {idle:.2f} CPU-s a second over all processes of Airflow · {lag(folder, moment)}")
    return idle


class Bench:
    """Runs DAGs to their ends and prints their figures."""

    def __init__(self, airflow: LocalAirflow, folder: Path, gateway: Gateway, idle: float) -> None:
        self.airflow, self.folder, self.gateway, self.idle = airflow, folder, gateway, idle

    def measure(self, dag_id: str, videos: int) -> int:
        """The POSTs that the run sent."""
        airflow = self.airflow
        posted, _, polled = self.gateway.counts()
        began, moment, before = time.monotonic(), time.time(), by_component(airflow)
        run_id = airflow.trigger(dag_id)
        most, state = (0.0, 0.0), ""
        while state not in ("success", "failed"):
            state = airflow.run_state(dag_id, run_id)
            most = max([most, *worker_memory(airflow)])
            time.sleep(0.5)
        wall, after = time.monotonic() - began, by_component(airflow)
        used = sum(after.values()) - sum(before.values())
        posts, _, polls = self.gateway.counts()
        print(
            f"{dag_id}: {state}, {videos} videos in {wall:.0f} s · {used / videos:.3f} CPU-s a "
            f"video, {(used - self.idle * wall) / videos:.3f} beyond idle · worker {most[0]:.0f} "
            f"MB resident at most, {most[1]:.0f} of it private · {lag(self.folder, moment)}"
        )
        parts = (f"{name} {after[name] - before[name]:.1f}" for name in sorted(after))
        print(f"  CPU-s: {', '.join(parts)} · polls {polls - polled}", flush=True)
        return posts - posted


def naive(args: argparse.Namespace, folder: Path, base_url: str) -> None:
    """The script over as many rows, in a process of its own."""
    line = ["-c", NAIVE, str(folder / "p.jsonl"), str(folder / "naive"), str(args.at_once)]
    env = {**os.environ, "AIML_BASE_URL": base_url, "AIML_API_KEY": "sandbox"}
    env |= {"KLING_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    running = subprocess.Popen([sys.executable, *line], env=env)
    seen: list[tuple[float, float]] = []
    while running.poll() is None:
        seen += [found] if (found := look(running.pid)) else []
        time.sleep(0.2)
    used, memory = max(each[0] for each in seen), max(each[1] for each in seen)
    print(
        f"naive script: exit {running.returncode}, {args.rows} videos in "
        f"{time.monotonic() - began:.0f} s · {used / args.rows:.3f} CPU-s a video · "
        f"{memory:.0f} MB resident at most"
    )


def lag(folder: Path, since: float) -> str:
    """How late the triggerer's loop was for the probe since a moment (Unix seconds)."""
    time.sleep(3)  # the probe writes every other second
    pairs = (map(float, line.split()) for line in (folder / "lags").read_text().splitlines())
    late = sorted(lag for moment, lag in pairs if moment >= since)
    p99 = late[int(0.99 * (len(late) - 1))]
    return f"loop lag of the triggerer p99 {1000 * p99:.0f} ms, at most {1000 * late[-1]:.0f} ms"


def processes(airflow: LocalAirflow) -> dict[int, tuple[str, list[str]]]:
    """The component and the fields of /proc/PID/stat after the name, of all Airflow's processes."""
    sessions = {str(process.pid): name for name, process in airflow.processes.items()}
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] in sessions:
            found[int(path.parent.name)] = (sessions[fields[3]], fields)
    return found


def by_component(airflow: LocalAirflow) -> dict[str, float]:
    """CPU seconds so far, those of ended children included."""
    found = dict.fromkeys(airflow.processes, 0.0)
    for name, fields in processes(airflow).values():
        found[name] += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return found


def cpu(airflow: LocalAirflow) -> float:
    return sum(by_component(airflow).values())


def worker_memory(airflow: LocalAirflow) -> list[tuple[float, float]]:
    """Resident MB of the processes that run a task, and how much of it no other process shares."""
    found = []
    for pid in processes(airflow):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            if b"airflow worker" not in name or b"<idle>" in name:
                continue
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        words = [line.split() for line in rollup[1:]]
        private = sum(int(each[1]) for each in words if each[0].startswith("Private"))
        resident = sum(int(each[1]) for each in words if each[0] == "Rss:")
        found.append((resident / 1000, private / 1000))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
