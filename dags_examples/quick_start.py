"""A prompt becomes a video: one task, deferred while the gateway works.

**What it shows:** KlingVideoOperator with its record of the payment, waiting in the triggerer, and
a small manifest as the result.

**Needs:** the connection `kling_default`. Without a key or money, start the sandbox and point the
connection at it:

```bash
kling sandbox
export AIRFLOW_CONN_KLING_DEFAULT=kling://:any-key@127.0.0.1:8765/sandbox/x60
```

To go live, its password is a key from the AI/ML API dashboard, and its host stays empty:

```bash
export AIRFLOW_CONN_KLING_DEFAULT='{"conn_type": "kling", "password": "KEY"}'
```

**Running it again:** a retry or a clear goes on with the video that is paid for. For another one,
start a new run, change the input and clear the task, or set `on_clear="regenerate"` and clear it.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

from kling_integrations.airflow import KlingVideoOperator

OUTPUT = os.environ.get("KLING_DEMO_OUTPUT", str(Path(tempfile.gettempdir()) / "kling"))

with DAG(
    "kling_quick_start",
    schedule=None,
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
    params={
        "prompt": Param(
            "A cheerful white raccoon running through a sequoia forest",
            type="string",
            description="What the video should show.",
        ),
        "duration": Param(5, enum=[5, 10], description="Seconds of video."),
        "model": Param("v2.5-turbo-pro", type="string", description="An id, or an alias."),
        "max_cost_usd": Param(2.0, type="number", description="Refuse what costs more, in USD."),
        "output": Param(OUTPUT, type="string", description="Folder, or a URI such as s3://…"),
    },
) as dag:
    KlingVideoOperator(
        task_id="make_video",
        model="{{ params.model }}",
        max_cost_usd="{{ params.max_cost_usd }}",
        prompt="{{ params.prompt }}",
        duration="{{ params.duration }}",
        output_path="{{ params.output }}/{{ run_id | replace(':', '-') }}.mp4",
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=15),
        doc_md="Submits once, whatever happens; waits in the triggerer; saves on the worker.",
    )

if __name__ == "__main__":
    dag.test()
