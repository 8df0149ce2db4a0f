"""What importing costs: the package, the operators, the notebook extension.

    python benchmarks/imports.py [--rounds N]                      # about three minutes
    python -m venv /tmp/extensions && /tmp/extensions/bin/pip install -r benchmarks/extensions.txt
    python benchmarks/imports.py --extensions /tmp/extensions/bin/python       # beside others

How to read it: each row is a fresh interpreter that runs one line; *ms* is its CPU time (an import
does nothing but compute, and the clock on the wall counts the neighbours, too), the median over
rounds in which all rows take turns. *Over* is the median of the differences to the row that it
builds upon, within a round. Bytecode is compiled before. ``import asyncio`` tells how fast the
processor is just now. *Heavy* names what was loaded of aiohttp,
requests, PIL, av, IPython, numpy and Airflow: Airflow imports DAG files again and again, and a
notebook starts with `%load_ext`. "… and makes one" makes a KlingVideoOperator with opening files,
connecting and resolving names forbidden (but for Python's own imports): no I/O at parse time.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("aiohttp", "requests", "PIL", "av", "IPython", "numpy", "airflow")

SHELL = "from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance()"
OPERATORS = "from kling_integrations.airflow import KlingVideoOperator, KlingVideoSensor"
NO_IO = """
import sys
def forbid(event, args):
    if event.startswith("socket.") or event in ("open", "sqlite3.connect", "subprocess.Popen"):
        if event == "open" and str(args[0]).endswith((".py", ".pyc", ".so")):
            return
        raise SystemExit(f"I/O while an operator is made: {event} {args}")
sys.addaudithook(forbid)
KlingVideoOperator(task_id="teaser", prompt="A raccoon", model="v2.5-turbo-pro", duration=5)
"""

# name: (the line, the row that it builds upon, what it must reach)
ROWS = {
    "python -c pass": ("pass", None, ""),
    "import asyncio": ("import asyncio", "python -c pass", ""),
    "import kling_integrations": ("import kling_integrations", "python -c pass", "≤ 60 ms"),
    "… and its public names": (
        "import kling_integrations as k; [getattr(k, n) for n in k.__all__]",
        "python -c pass",
        "",
    ),
    "kling jobs": (
        "from kling_integrations.cli import main; main(['jobs'])",
        "python -c pass",
        "≤ 120 ms",
    ),
    "import airflow.sdk's BaseOperator, BaseSensorOperator, BaseHook": (
        "from airflow.sdk import BaseOperator, BaseSensorOperator, BaseHook",
        None,
        "",
    ),
    "… and the operators": (
        "from airflow.sdk import BaseOperator, BaseSensorOperator, BaseHook; " + OPERATORS,
        "import airflow.sdk's BaseOperator, BaseSensorOperator, BaseHook",
        "≤ 10 %",
    ),
    "… and makes one": (
        "from airflow.sdk import BaseOperator, BaseSensorOperator, BaseHook; " + OPERATORS + NO_IO,
        "… and the operators",
        "no I/O",
    ),
    "IPython's shell": (SHELL, None, ""),
    "%load_ext kling_integrations": (
        SHELL + "; s.run_line_magic('load_ext', 'kling_integrations')",
        "IPython's shell",
        "≤ 10 %",
    ),
}
# Other notebook extensions, in an environment of their own, and ours in the same one.
EXTENSIONS = {"IPython's shell": (SHELL, None, "")} | {
    f"%load_ext {name}": (
        f"{SHELL}; s.run_line_magic('load_ext', '{name}')",
        "IPython's shell",
        "",
    )
    for name in ("kling_integrations", "sql", "bigquery_magics", "jupyter_ai_magics")
}


NO_BYTECODE = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")


def run(python: str, line: str, environment: dict[str, str]) -> tuple[float, str]:
    """CPU milliseconds of a fresh interpreter, and what it printed last."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [python, "-c", line], env=environment, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = 1000.0 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:200])
    return took, (done.stdout.strip().splitlines() or [""])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--extensions", metavar="PYTHON", help="the Python that has the others")
    options = parser.parse_args()
    rows = EXTENSIONS if options.extensions else ROWS
    python = options.extensions or sys.executable
    times: dict[str, list[float]] = {name: [] for name in rows}
    loaded: dict[str, str] = {}
    missing: dict[str, str] = {}
    show = f"\nimport sys; print(' '.join(n for n in {HEAVY} if n in sys.modules) or '–')"
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **{name: text for name, text in os.environ.items() if name not in NO_BYTECODE},
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "AIRFLOW_HOME": home,
            "KLING_HOME": home,
            "IPYTHONDIR": home,
        }
        for name, (line, _, _) in rows.items():  # also compiles the bytecode
            try:
                loaded[name] = run(python, line.rstrip() + show, environment)[1]
            except RuntimeError as error:
                missing[name] = str(error)
        for _ in range(options.rounds):
            for name, (line, _, _) in rows.items():
                if name not in missing:
                    times[name].append(run(python, line, environment)[0])
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores; "
        f"{options.rounds} rounds\n"
    )
    print("| line | ms | over the row it builds upon | in % of it | to reach | heavy |")
    print("|---|---:|---:|---:|---|---|")
    for name, (_, below, reach) in rows.items():
        if name in missing:
            print(f"| {name} | skipped: {missing[name]} | | | {reach} | |")
            continue
        cells = [f"{statistics.median(times[name]):,.0f}", "", ""]
        if below and below not in missing:
            over = statistics.median(
                mine - base for mine, base in zip(times[name], times[below], strict=True)
            )
            cells[1:] = [
                f"{over:+.0f} ms",
                f"{100 * over / statistics.median(times[below]):+.0f} %",
            ]
        print(f"| {name} | {' | '.join(cells)} | {reach} | {loaded[name]} |")


if __name__ == "__main__":
    main()
