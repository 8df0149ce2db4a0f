"""A DAG that runs whenever another one has made a video.

**What it shows:** the operator announces its file as an event of the task's outlets, with the
file's address and the generation's id; a second DAG is scheduled on that asset and reads them.

Start `kling_teaser`; `kling_after_teaser` follows by itself.

**Needs:** the connection `kling_default`; see quick_start.py for the sandbox.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, Param, task

from kling_integrations.airflow import KlingVideoOperator

OUTPUT = os.environ.get("KLING_DEMO_OUTPUT", str(Path(tempfile.gettempdir()) / "kling"))
TEASER = Asset("kling_teaser_video")

with DAG(
    "kling_teaser",
    schedule=None,
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
    params={
        "prompt": Param("A product on a turntable, soft light", type="string"),
        "model": Param("v2.5-turbo-pro", type="string", description="An id, or an alias."),
        "max_cost_usd": Param(2.0, type="number", description="Refuse what costs more, in USD."),
        "output": Param(OUTPUT, type="string", description="Folder, or a URI such as s3://…"),
    },
) as dag:
    KlingVideoOperator(
        task_id="make_teaser",
        model="{{ params.model }}",
        prompt="{{ params.prompt }}",
        max_cost_usd="{{ params.max_cost_usd }}",
        duration=5,
        output_path="{{ params.output }}/teaser/{{ run_id | replace(':', '-') }}.mp4",
        outlets=[TEASER],
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=15),
    )

with DAG(
    "kling_after_teaser", schedule=[TEASER], catchup=False, tags=["kling"], doc_md=__doc__
) as follow_up:

    @task
    def publish(triggering_asset_events: dict | None = None) -> list[dict]:
        """The events that started this run: where the files are, and of which generation."""
        events = [event for group in (triggering_asset_events or {}).values() for event in group]
        return [dict(event.extra) for event in events]

    publish()

if __name__ == "__main__":
    dag.test()
