"""Starts the sandbox, runs the quick-start notebook in a real kernel and the quick-start DAG in a
real Airflow (deferred, through the triggerer), and tells what was made.

No key, no money: the sandbox is the gateway's stand-in on loopback.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "demo"
SPEED = 30


def run_notebook(base_url: str) -> Path:
    """Executes notebooks/quick_start.ipynb; returns the path of its HTML rendering."""
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    name = "quick_start"
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}).execute(
        env={**os.environ, **environment(base_url)}
    )
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    html, _ = HTMLExporter().from_notebook_node(notebook)
    page = FOLDER / f"{name}.html"
    page.write_text(html, encoding="utf-8")
    return page


def environment(base_url: str) -> dict[str, str]:
    return {
        "AIML_BASE_URL": base_url,
        "AIML_API_KEY": "sandbox",
        "KLING_HOME": str(FOLDER / "home"),
    }


def say(text: str = "") -> None:
    print(text, flush=True)


def main() -> int:
    from demo.airflow_demo import run_quick_start
    from kling_integrations.sandbox import Sandbox

    began = time.monotonic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with Sandbox(speed=SPEED) as sandbox, ThreadPoolExecutor() as pool:
        say(f"The sandbox stands in for the gateway: {sandbox.base_url}")
        say(f"Its jobs live {SPEED} times as fast; all seconds below are the gateway's.")
        say("Running the notebook in a kernel, and the DAG in Airflow (its start takes longest) …")
        dag = pool.submit(run_quick_start, sandbox.base_url, FOLDER)
        page = run_notebook(sandbox.base_url)
        say(f"The notebook is done after {time.monotonic() - began:.0f} s.")
        manifest: dict[str, Any] = dag.result()
        say(f"The DAG is done after {time.monotonic() - began:.0f} s.\n")
        say("What was made:")
        videos = sorted((FOLDER / "kling_outputs").glob("*.mp4"))
        for video in [*videos, Path(str(manifest["path"]).removeprefix("file://"))]:
            say(f"  video     {video}")
        say(f"  notebook  {page}")
        say(f"\n{'generation':<40} {'took':>7} {'requests':>9} {'noticed late':>13}")
        for job in sandbox.jobs.values():
            late = "not at all" if job.lateness is None else f"{job.lateness:.1f} s"
            say(f"{job.id[:38]:<40} {job.seconds:>5.0f} s {job.polls:>9} {late:>13}")
        say(f"\n{len(sandbox.posts)} submits, {sandbox.paid} sandbox generations, nothing paid.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
