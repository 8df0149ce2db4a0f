"""A video for each line of a list, a few at a time.

**What it shows:** dynamic task mapping over prompts, a limit on the cost of each request, and a
pool that bounds how many are paid for at the same time.

A deferred task holds no worker slot, and Airflow's own limits do not count it
(apache/airflow#40528): fifty mapped tasks would be fifty running generations. A pool does count
it when it is made with `--include-deferred`:

```bash
airflow pools set kling 4 "Kling generations under way" --include-deferred
export KLING_POOL=kling
```

Without that variable the tasks run in the default pool.

**Needs:** the connection `kling_default`; see quick_start.py for the sandbox.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param, task

from kling_integrations.airflow import KlingVideoOperator

OUTPUT = os.environ.get("KLING_DEMO_OUTPUT", str(Path(tempfile.gettempdir()) / "kling"))

with DAG(
    "kling_batch_with_pool",
    schedule=None,
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
    params={
        "prompts": Param(
            ["A paper boat in the rain", "A fox in the snow", "A city that wakes up"],
            type="array",
            items={"type": "string"},
        ),
        "model": Param("v2.5-turbo-pro", type="string", description="An id, or an alias."),
        "max_cost_usd": Param(2.0, type="number", description="Refuse what costs more, in USD."),
        "output": Param(OUTPUT, type="string", description="Folder, or a URI such as s3://…"),
    },
) as dag:

    @task
    def prompts(params: dict | None = None) -> list[str]:
        return list((params or {})["prompts"])

    @task
    def summary(videos: list[dict]) -> dict:
        """What was made, and what each cost in USD: None where the gateway does not say."""
        return {
            "videos": [video["path"] for video in videos],
            "usd_spent": [video["usage"].get("usd_spent") for video in videos],
        }

    videos = KlingVideoOperator.partial(
        task_id="video",
        model="{{ params.model }}",
        max_cost_usd="{{ params.max_cost_usd }}",
        duration=5,
        output_path="{{ params.output }}/{{ run_id | replace(':', '-') }}/{{ ti.map_index }}.mp4",
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=15),
        pool=os.environ.get("KLING_POOL", "default_pool"),
        map_index_template="{{ task.prompt[:40] }}",
    ).expand(prompt=prompts())
    summary(videos.output)

if __name__ == "__main__":
    dag.test()
