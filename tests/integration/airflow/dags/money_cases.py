"""The DAGs of the end-to-end tests of a run's budget and of lineage."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG

from kling_integrations.airflow import KlingBatchOperator, KlingVideoOperator

OUT = Path(os.environ["KLING_E2E_OUT"])

with DAG("budget", schedule=None, default_args={"max_usd_per_run": 1.5}):
    KlingVideoOperator.partial(
        task_id="video",
        duration=5,
        record_path=(OUT / "shelf").as_uri(),
        deferrable=True,
        timeout=30_000,
    ).expand(prompt=[f"budget {number}" for number in range(8)])

with DAG("lineage", schedule=None):
    video = KlingVideoOperator(
        task_id="video",
        prompt="lineage secret",
        duration=5,
        output_path=f"{OUT}/lineage/video.mp4",
        deferrable=True,
        timeout=30_000,
    )
    table = KlingBatchOperator(
        task_id="table",
        rows=[{"prompt": f"lineage secret {number}"} for number in range(2)],
        output_path=f"{OUT}/lineage/table/",
        results_path=f"{OUT}/lineage/results.csv",
        deferrable=True,
        timeout=30_000,
    )
    video >> table
