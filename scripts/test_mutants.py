"""Breaks the money path on purpose and sees whether the tests notice:

    python scripts/test_mutants.py [--each N] [--seed S] [MODULE …]

cosmic-ray (in .venv-mutants) makes the mutants of each module of MODULES in a copy of what is
checked in; N of them, drawn by the seed, are tried with the tests named here. What survives is
listed with its change. Exit code 1 if any does: some are equivalent, so read before you write a
test.
"""

from __future__ import annotations

import argparse
import json
import os
import random
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
    "airflow/durable": ["tests/airflow/test_durable.py", "tests/airflow/test_submitting.py"],
    "airflow/submitting": [
        "tests/airflow/test_submitting.py",
        "tests/airflow/test_earlier_tries.py",
    ],
    "airflow/siblings": ["tests/airflow/test_siblings.py"],
}

# What changes nothing that runs: `X | None` is mostly an annotation.
DULL = ("ReplaceBinaryOperator_BitOr", "RemoveDecorator")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=5, help="mutants of a module")
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
            results = try_module(module, copy, options.each, rng)
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
    words = [PYTHON, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    marks = ["-m", "'not slow and not exhaustive'"]
    config = copy / "mutants.toml"
    config.write_text(
        "[cosmic-ray]\n"
        f"module-path = {json.dumps(path)}\n"
        "timeout = 240.0\nexcluded-modules = []\n"
        f"test-command = {json.dumps(' '.join(map(str, [*words, *marks, *MODULES[module]])))}\n"
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


def run(command: Sequence[object], folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(folder)}  # before the checkout that is installed
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
