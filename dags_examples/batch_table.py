"""A table of prompts becomes a table of videos, in one task; and in chunks, over the workers.

**What it shows:** `KlingBatchOperator`. The worker submits as many rows as may run at once and is
free again; one trigger polls them all and wakes a worker when half of them have ended. A row that
fails is a row of the results, a retry or a clear goes on where the table stands, and XCom holds
counts and paths only.

`kling_batch_chunks` maps the same operator over parts of the table, for a Celery or Kubernetes
executor whose workers shall share the downloads. Each part has its own results and its own limit.

The results belong to a run, because their path holds its `run_id`: another run makes new videos.

**Needs:** the connection `kling_default`; see quick_start.py for the sandbox.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param, task

from kling_integrations.airflow import KlingBatchOperator

OUTPUT = os.environ.get("KLING_DEMO_OUTPUT", str(Path(tempfile.gettempdir()) / "kling"))
RUN = "{{ params.output }}/{{ run_id | replace(':', '-') }}"
PARAMS = {
    "prompts": Param(
        ["A paper boat in the rain", "A fox in the snow", "A city that wakes up"],
        type="array",
        items={"type": "string"},
    ),
    "output": Param(OUTPUT, type="string", description="Folder, or a URI such as s3://…"),
}
COMMON = {
    "defaults": {"model": "v2.5-turbo-pro", "duration": 5},
    "at_once": 20,
    "deferrable": True,
    "retries": 3,
    "retry_delay": timedelta(seconds=15),
}


@task
def table(params: dict | None = None) -> list[dict]:
    """Columns that are no parameter of a video are carried through to the results."""
    prompts = (params or {})["prompts"]
    return [{"prompt": prompt, "sku": f"A{number}"} for number, prompt in enumerate(prompts)]


with DAG(
    "kling_batch_table", schedule=None, catchup=False, tags=["kling"], doc_md=__doc__, params=PARAMS
) as dag:
    KlingBatchOperator(
        task_id="videos",
        rows=table(),
        output_path=f"{RUN}/videos/",
        results_path=f"{RUN}/results.csv",
        max_cost_usd=50.0,
        **COMMON,
    )

with DAG(
    "kling_batch_chunks",
    schedule=None,
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
    params=PARAMS,
) as chunks_dag:

    @task
    def chunks(rows: list[dict], size: int = 2) -> list[list[dict]]:
        return [rows[at : at + size] for at in range(0, len(rows), size)]

    KlingBatchOperator.partial(
        task_id="videos",
        output_path=f"{RUN}/videos/",
        results_path=RUN + "/results-{{ ti.map_index }}.csv",
        max_cost_usd=10.0,
        **COMMON,
    ).expand(rows=chunks(table()))

if __name__ == "__main__":
    dag.test()
