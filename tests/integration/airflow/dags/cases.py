"""The DAGs of the end-to-end tests: one task each, saved where the test looks."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, Param, task

from kling_integrations.airflow import KlingRetryPolicy, KlingVideoOperator, KlingVideoSensor

OUT = Path(os.environ["KLING_E2E_OUT"])


class NotedVideoOperator(KlingVideoOperator):
    """Notes its process, so that the test can kill exactly that (3.0 has no callback for it)."""

    def execute(self, context: Any) -> Any:
        (OUT / f"{context['dag'].dag_id}.pid").write_text(str(os.getpid()))
        return super().execute(context)


COMMON: dict[str, Any] = {
    "task_id": "video",
    "prompt": "{{ dag.dag_id }}",
    "output_path": f"{OUT}/{{{{ dag.dag_id }}}}.mp4",
    "timeout": 30_000,
    "retry_delay": timedelta(seconds=1),
}

with DAG("worker", schedule=None):
    NotedVideoOperator(**COMMON, deferrable=False, retries=1)

with DAG("worker_killed_in_post", schedule=None):
    NotedVideoOperator(**COMMON, deferrable=False, retries=1)

with DAG("settled", schedule=None):
    NotedVideoOperator(**COMMON, deferrable=True, retries=1)

# Renders to something else with each try, as a presigned address does.
with DAG("drifting", schedule=None):
    NotedVideoOperator(
        **COMMON, deferrable=False, retries=1, negative_prompt="try {{ ti.try_number }}"
    )

# Retries, as a user has: a scheduler that is late takes a trigger's quick event for a failure now
# and then ("TI was not in the running state"). The retry attaches; what counts are the POSTs.
for name in ("deferred", "triggerer_killed", "outage", "cleared", "marked"):
    with DAG(name, schedule=None):
        KlingVideoOperator(**COMMON, deferrable=True, retries=2)

with DAG("download", schedule=None):
    KlingVideoOperator(
        **COMMON,
        deferrable=True,
        retries=4,
        retry_policy=KlingRetryPolicy(download=timedelta(seconds=1)),
        outlets=[Asset("kling_e2e")],
    )

with DAG("pair", schedule=None):
    submit = KlingVideoOperator(
        **{**COMMON, "task_id": "submit", "output_path": None},
        wait_for_completion=False,
        retries=0,
    )
    KlingVideoSensor(
        task_id="wait",
        generation_id=submit.output,
        output_path=f"{OUT}/pair.mp4",
        mode="reschedule",
        poke_interval=40,
    )

with DAG("follow_up", schedule=[Asset("kling_e2e")]):
    KlingVideoSensor(
        task_id="wait",
        generation_id="{{ triggering_asset_events.values() | first | first | "
        "attr('extra') | attr('get') ('generation_id') }}",
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )

with DAG("fifty", schedule=None, params={"count": Param(50)}):
    KlingVideoOperator.partial(
        task_id="video",
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=1),
        timeout=60_000,
    ).expand(prompt=[f"number {number}" for number in range(50)])

# No file, so no folder beside it: the record is the worker's own.
with DAG("without_output", schedule=None):
    KlingVideoOperator(**{**COMMON, "output_path": None}, deferrable=True, retries=2)

# A list whose order changes between the run and its clear, with the records at a place of its own.
with DAG("reordered", schedule=None):

    @task
    def letters() -> list[str]:
        prompts: list[str] = json.loads((OUT / "reordered.json").read_text())
        return prompts

    KlingVideoOperator.partial(
        task_id="video",
        record_path=f"{OUT}/records",
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=1),
        timeout=30_000,
    ).expand(prompt=letters())
