"""A person looks at the video before it is published.

**What it shows:** KlingReviewOperator between a video and what publishes it. The question waits
without a worker slot, in the task's tab *Required Action*; the video is in its tab *Video*.
*Approve* announces the asset. *Reject* skips what comes after. *Again* pays for another take, with
the prompt that the reviewer typed, at most `max_takes` in all and within `max_cost_usd`; then it
asks again.

**Needs:** Airflow 3.1 or newer, for *Again* 3.3; the connection `kling_default`; see
quick_start.py for the sandbox.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, Param, task

from kling_integrations.airflow import KlingReviewOperator, KlingVideoOperator

OUTPUT = os.environ.get("KLING_DEMO_OUTPUT", str(Path(tempfile.gettempdir()) / "kling"))
APPROVED = Asset("kling_approved_video")

with DAG(
    "kling_review_before_publishing",
    schedule=None,
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
    params={
        "prompt": Param("A paper boat sails down a rainy street", type="string"),
        "model": Param("v2.5-turbo-pro", type="string", description="An id, or an alias."),
        "max_cost_usd": Param(2.0, type="number", description="For each video, and all retakes."),
        "output": Param(OUTPUT, type="string", description="Folder, or a URI such as s3://…"),
    },
) as dag:
    folder = "{{ params.output }}/{{ run_id | replace(':', '-') }}"
    video = KlingVideoOperator(
        task_id="film",
        model="{{ params.model }}",
        prompt="{{ params.prompt }}",
        duration=5,
        max_cost_usd="{{ params.max_cost_usd }}",
        output_path=f"{folder}/film.mp4",
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=15),
    )
    review = KlingReviewOperator(
        task_id="review",
        video=video.output,
        output_path=f"{folder}/film.mp4",
        max_takes=3,
        max_cost_usd="{{ params.max_cost_usd }}",
        response_timeout=timedelta(days=2),
        on_timeout="reject",
        outlets=[APPROVED],
        retries=2,
        retry_delay=timedelta(seconds=15),
    )

    @task
    def publish(made: dict) -> dict:
        """Where the approved video is, and who approved it; put your own publishing here."""
        return {"path": made["path"], "by": made["review"]["by"], "note": made["review"]["note"]}

    publish(review.output)

if __name__ == "__main__":
    dag.test()
