"""Breaks the money path on purpose and sees whether the tests notice:

    python scripts/test_mutants.py [--each N] [--calls N] [--seed S] [MODULE …]

cosmic-ray (in .venv-mutants) changes conditions, operators and numbers of each module of MODULES in
a copy of what is checked in; N of these mutants, drawn by the seed, are tried with the tests named
here. It takes no statement away, so that is done here: as many calls whose value nobody uses (a
record that is written, a line that is logged, a lock that is released) are left out. What survives
is listed with its change. Exit code 1 if any does: some are equivalent, so read before you write a
test.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / ".venv-mutants"
PYTHON = ROOT / ".venv" / "bin" / "python"
GIT = shutil.which("git") or "git"

# Where a wrong line may cost money, and the tests that must notice.
MODULES = {
    "core/submission": ["tests/core/test_submission.py", "tests/core/storage/test_ledger.py"],
    "core/identity": ["tests/core/test_identity.py"],
    "core/recovery": ["tests/core/test_recovery.py"],
    "core/flows": [
        "tests/core/test_flows.py",
        "tests/core/http",
        "tests/core/storage/test_ledger.py",
    ],
    "core/waiting": ["tests/core/test_waiting.py", "tests/core/http"],
    "core/storage/sqlite_ledger": ["tests/core/storage/test_ledger.py"],
    "core/storage/team_ledger": ["tests/core/storage/test_team_ledger.py"],
    "core/storage/team_records": ["tests/core/storage/test_team_ledger.py"],
    "core/batch/plan": ["tests/core/batch"],
    "airflow/durable": [
        "tests/airflow/test_durable.py",
        "tests/airflow/test_submitting.py",
        "tests/airflow/test_siblings.py",
    ],
    "airflow/submitting": [
        "tests/airflow/test_submitting.py",
        "tests/airflow/test_earlier_tries.py",
        "tests/airflow/test_siblings.py",
    ],
    "airflow/siblings": ["tests/airflow/test_siblings.py"],
    "airflow/task_ledger": ["tests/airflow/test_task_ledger.py", "tests/airflow/test_durable.py"],
    "airflow/earlier_tries": ["tests/airflow/test_earlier_tries.py"],
    "airflow/record_places": ["tests/airflow/test_record_places.py"],
    "airflow/spending": ["tests/airflow/test_spending.py"],
    "airflow/stopping": ["tests/airflow/test_operators.py"],
    "airflow/delivery": ["tests/airflow/test_delivery.py"],
    "airflow/triggers": ["tests/airflow/test_triggers.py", "tests/airflow/test_modules.py"],
}

_LONGEST = 240.0  # seconds for the tests of one mutant
# What changes nothing that runs: `X | None` is mostly an annotation.
DULL = ("ReplaceBinaryOperator_BitOr", "RemoveDecorator")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=5, help="mutants of a module")
    parser.add_argument("--calls", type=int, help="calls left out in a module (default: as many)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("modules", nargs="*", choices=[*MODULES, []], metavar="MODULE")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    tried = survived = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        archive = Path(folder) / "source.zip"
        run([GIT, "archive", "-o", archive, "HEAD"], ROOT)
        shutil.unpack_archive(archive, copy)
        for module in options.modules or MODULES:
            began = time.monotonic()
            run(command(module), copy)  # a test that fails anyway notices everything
            calls = options.each if options.calls is None else options.calls
            results = try_module(module, copy, options.each, rng) if options.each else []
            results += try_without_calls(module, copy, calls, rng)
            alive = [result for result in results if result["test_outcome"] == "survived"]
            tried, survived = tried + len(results), survived + len(alive)
            seconds = time.monotonic() - began
            print(f"{module}: {len(results) - len(alive)} of {len(results)} ({seconds:.0f} s)")
            for result in alive:
                print(f"  SURVIVED\n{result['diff']}", flush=True)
    print(f"{tried - survived} of {tried} mutants were noticed")
    return 1 if survived else 0


def try_module(module: str, copy: Path, most: int, rng: random.Random) -> list[dict[str, str]]:
    path = f"kling_integrations/{module}.py"
    config = copy / "mutants.toml"
    config.write_text(
        "[cosmic-ray]\n"
        f"module-path = {json.dumps(path)}\n"
        f"timeout = {_LONGEST}\nexcluded-modules = []\n"
        f"test-command = {json.dumps(shlex.join(command(module)))}\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
    )
    session = copy / "mutants.sqlite"
    session.unlink(missing_ok=True)
    tool = TOOL / "bin" / "cosmic-ray"
    run([tool, "init", config.name, session.name], copy)
    with sqlite3.connect(session) as db:
        rows = db.execute("SELECT job_id, operator_name FROM mutation_specs ORDER BY 1").fetchall()
        jobs = sorted(job for job, name in rows if not any(dull in name for dull in DULL))
        chosen = set(rng.sample(jobs, min(most, len(jobs))))
        others = [(job,) for job, _ in rows if job not in chosen]
        db.executemany("DELETE FROM mutation_specs WHERE job_id = ?", others)
        db.executemany("DELETE FROM work_items WHERE job_id = ?", others)
    run([tool, "exec", config.name, session.name], copy)
    with sqlite3.connect(session) as db:
        db.row_factory = sqlite3.Row
        query = "SELECT test_outcome, diff FROM work_results"
        return [{**row, "test_outcome": row["test_outcome"].lower()} for row in db.execute(query)]


def command(module: str) -> list[str]:
    words = [str(PYTHON), "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    return [*words, "-m", "not slow and not exhaustive", *MODULES[module]]


def try_without_calls(
    module: str, copy: Path, most: int, rng: random.Random
) -> list[dict[str, str]]:
    path = copy / "kling_integrations" / f"{module}.py"
    whole = path.read_text()
    found = [
        node
        for node in ast.walk(ast.parse(whole))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    ]
    results = []
    for node in rng.sample(found, min(most, len(found))):
        lines = whole.splitlines(keepends=True)
        lines[node.lineno - 1 : node.end_lineno] = [" " * node.col_offset + "pass\n"]
        path.write_text("".join(lines))
        try:
            done = subprocess.run(
                command(module), check=False, cwd=copy, env=environment(copy), capture_output=True,
                timeout=_LONGEST,
            )  # fmt: skip
            outcome = "killed" if done.returncode else "survived"
        except subprocess.TimeoutExpired:
            outcome = "killed"
        finally:
            path.write_text(whole)
        diff = difflib.unified_diff(whole.splitlines(), "".join(lines).splitlines(), lineterm="")
        results.append({"test_outcome": outcome, "diff": "\n".join(diff)})
    return results


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder)}  # before the checkout that is installed


def run(command: Sequence[object], folder: Path) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
