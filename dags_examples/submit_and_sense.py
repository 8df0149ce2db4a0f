"""Submit in one task, wait in another.

**What it shows:** an operator that only submits (its worker is free after a second) and a sensor
that waits for the id, deferred, and saves the video. Between the two, other tasks can use the id.

Use the pair where waiting and submitting have different retries, owners or pools; else the
operator alone does both (see quick_start.py).

**Needs:** the connection `kling_default`; see quick_start.py for the sandbox.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

from kling_integrations.airflow import KlingVideoOperator, KlingVideoSensor

OUTPUT = os.environ.get("KLING_DEMO_OUTPUT", str(Path(tempfile.gettempdir()) / "kling"))

with DAG(
    "kling_submit_and_sense",
    schedule=None,
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
    params={
        "prompt": Param("Waves against a lighthouse at dusk, slow motion", type="string"),
        "model": Param("v2.6-pro", type="string", description="An id, or an alias."),
        "max_cost_usd": Param(2.0, type="number", description="Refuse what costs more, in USD."),
        "output": Param(OUTPUT, type="string", description="Folder, or a URI such as s3://…"),
    },
) as dag:
    submit = KlingVideoOperator(
        task_id="submit",
        model="{{ params.model }}",
        max_cost_usd="{{ params.max_cost_usd }}",
        prompt="{{ params.prompt }}",
        duration=5,
        wait_for_completion=False,
        doc_md="Pays, and returns the generation's id.",
    )
    KlingVideoSensor(
        task_id="wait",
        generation_id=submit.output,
        output_path="{{ params.output }}/{{ run_id | replace(':', '-') }}.mp4",
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=15),
        doc_md="Pays nothing, so it may be retried and cleared at will.",
    )

if __name__ == "__main__":
    dag.test()
