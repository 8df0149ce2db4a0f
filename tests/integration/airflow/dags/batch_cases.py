"""The DAG of the end-to-end test of a table."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from kling_integrations.airflow import KlingBatchOperator

OUT = Path(os.environ["KLING_E2E_OUT"])


def note_pid(context: Any) -> None:
    """So that the test can kill exactly this task's process."""
    (OUT / "table.pid").write_text(str(os.getpid()))


with DAG("table", schedule=None):
    KlingBatchOperator(
        task_id="videos",
        rows=[{"prompt": f"table {number}", "sku": number} for number in range(12)],
        output_path=f"{OUT}/table/",
        results_path=f"{OUT}/table/results.csv",
        at_once=4,
        timeout=30_000,
        deferrable=True,
        retries=4,
        retry_delay=timedelta(seconds=1),
        on_execute_callback=note_pid,
    )


def note_pid_in_folder(context: Any) -> None:
    Path(context["dag_run"].conf["folder"], "pid").write_text(str(os.getpid()))


with DAG("kills", schedule=None):
    folder = "{{ dag_run.conf['folder'] }}"
    KlingBatchOperator(
        task_id="videos",
        rows_path=f"{folder}/p.jsonl",
        output_path=f"{folder}/videos/",
        results_path=f"{folder}/results.jsonl",
        at_once=8,
        deferrable=True,
        on_ambiguous_submit="resubmit",
        retry_failed=True,
        retries=40,
        retry_delay=timedelta(seconds=1),
        on_execute_callback=note_pid_in_folder,
    )
