"""What a video of a table costs in a real Airflow: CPU of all its processes, memory of the worker.

    python benchmarks/batch_airflow.py [--rows 2000] [--at-once 200] [--mapped 60]

Scheduler, DAG processor, triggerer, API server and the tasks they start run on this machine against
the sandbox in a process of its own. CPU seconds (user and system, ended children included) are read
from /proc between the trigger of a run and its end; what these processes burn while nothing happens
is measured before, and both figures are printed. ``--mapped N`` runs the single operator, mapped
over N prompts, beside it. Exit code 1 where a row is missing or was posted twice.
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

from demo.airflow_demo import LocalAirflow  # noqa: E402

SECONDS = 60  # gateway seconds of a job

GATEWAY = """
import sys
sys.modules["av"] = None
from kling_integrations.sandbox import Sandbox
with Sandbox(speed=float(sys.argv[1]), seconds=float(sys.argv[2])) as sandbox:
    print(sandbox.base_url, flush=True)
    for _ in sys.stdin:
        print(len(sandbox.posts), sandbox.paid, flush=True)
"""

DAGS = """
import os
from datetime import timedelta
from airflow.sdk import DAG
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
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=2000)
    options.add_argument("--at-once", type=int, default=200)
    options.add_argument("--mapped", type=int, default=60)
    options.add_argument("--speed", type=float, default=6.0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return run(args, Path(folder))


def run(args: argparse.Namespace, folder: Path) -> int:
    gateway = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(args.speed), str(SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert gateway.stdin
    assert gateway.stdout
    base_url = gateway.stdout.readline().strip()
    lines = (json.dumps({"prompt": f"number {n}"}) + "\n" for n in range(args.rows))
    (folder / "p.jsonl").write_text("".join(lines))
    (folder / "dags").mkdir()
    (folder / "dags" / "bench.py").write_text(DAGS)
    connection = {"conn_type": "kling", "password": "sandbox", "host": base_url}
    settings = {
        "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
        "KLING_BENCH_OUT": str(folder),
        "KLING_BENCH_AT_ONCE": str(args.at_once),
        "KLING_BENCH_MAPPED": str(max(1, args.mapped)),
        "KLING_HOME": str(folder / "home"),
    }
    wrong = 0
    try:
        with LocalAirflow(folder / "dags", folder / "airflow", settings) as airflow:
            airflow.until(lambda: airflow._knows("table"), 90, "the DAGs")
            time.sleep(5)
            began, before = time.monotonic(), cpu(airflow)
            time.sleep(15)
            idle = (cpu(airflow) - before) / (time.monotonic() - began)
            print(f"idle: {idle:.2f} CPU-s a second over all processes of Airflow")
            posts = measure(airflow, "table", args.rows, idle, gateway)
            results = [json.loads(x) for x in (folder / "results.jsonl").read_text().splitlines()]
            done = sum(row["status"] == "completed" for row in results)
            print(f"rows in {args.rows}, rows out {len(results)}, completed {done}, POSTs {posts}")
            wrong = not (posts == len(results) == done == args.rows)
            if args.mapped:
                measure(airflow, "mapped", args.mapped, idle, gateway)
    finally:
        gateway.stdin.close()
        gateway.wait()
    return int(wrong)


def measure(
    airflow: LocalAirflow, dag_id: str, videos: int, idle: float, gateway: subprocess.Popen[str]
) -> int:
    """Runs a DAG to its end and prints its figures; the POSTs so far at the gateway."""
    assert gateway.stdin
    assert gateway.stdout
    began, before = time.monotonic(), cpu(airflow)
    run_id = airflow.trigger(dag_id)
    most = 0.0
    state = ""
    while state not in ("success", "failed"):
        state = airflow.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"]
        most = max([most, *worker_memory(airflow)])
        time.sleep(0.5)
    wall, used = time.monotonic() - began, cpu(airflow) - before
    gateway.stdin.write("\n")
    gateway.stdin.flush()
    posts, _ = map(int, gateway.stdout.readline().split())
    print(
        f"{dag_id}: {state}, {videos} videos in {wall:.0f} s · {used / videos:.3f} CPU-s a video, "
        f"{(used - idle * wall) / videos:.3f} beyond idle · worker {most:.0f} MB at most"
    )
    return posts


def processes(airflow: LocalAirflow) -> dict[int, list[str]]:
    """Fields of /proc/PID/stat after the name, of all processes in Airflow's sessions."""
    sessions = {str(process.pid) for process in airflow.processes.values()}
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] in sessions:
            found[int(path.parent.name)] = fields
    return found


def cpu(airflow: LocalAirflow) -> float:
    """Seconds so far, those of ended children included."""
    ticks = sum(sum(map(int, fields[11:15])) for fields in processes(airflow).values())
    return ticks / os.sysconf("SC_CLK_TCK")


def worker_memory(airflow: LocalAirflow) -> list[float]:
    """Private MB (what no other process shares) of the processes that run a task."""
    found = []
    for pid in processes(airflow):
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            if b"airflow worker" not in name or b"<idle>" in name:
                continue
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private"))
        found.append(private / 1000)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
