"""A language model writes the prompt, a function decides the rest, a video is made.

**What it shows:** `@task.kling`. The function returns a prompt, or a dictionary of
KlingVideoOperator's arguments; all else (record of the payment, retries, deferral, mapping) is the
operator's. What the function returns is never rendered as a template, so a model's words cannot
read a Variable. A retry runs the function again, and still goes on with what is paid for.

The writer is a plain function here, so that the DAG runs anywhere. With
`apache-airflow-providers-common-ai` installed and a connection to a model, name the connection and
`@task.llm` writes instead:

```bash
export KLING_LLM_CONN=pydanticai_default
```

**Needs:** the connection `kling_default`; see quick_start.py for the sandbox.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param, task

OUTPUT = os.environ.get("KLING_DEMO_OUTPUT", str(Path(tempfile.gettempdir()) / "kling"))
LLM = os.environ.get("KLING_LLM_CONN")

with DAG(
    "kling_prompt_from_function",
    schedule=None,
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
    params={
        "product": Param("a brass desk lamp", type="string", description="What to advertise."),
        "model": Param("v2.5-turbo-pro", type="string", description="An id, or an alias."),
        "max_cost_usd": Param(2.0, type="number", description="Refuse what costs more."),
        "output": Param(OUTPUT, type="string", description="Folder, or a URI such as s3://…"),
    },
) as dag:
    if LLM:

        @task.llm(
            llm_conn_id=LLM,
            system_prompt="Describe one shot of a commercial in two sentences, without text in it.",
        )
        def write(params: dict | None = None) -> str:
            return f"The product: {(params or {})['product']}."

    else:

        @task
        def write(params: dict | None = None) -> str:
            return (
                f"A slow orbit around {(params or {})['product']} on a walnut table. Morning light "
                "moves over it, dust glitters in the air."
            )

    @task.kling(
        model="{{ params.model }}",
        max_cost_usd="{{ params.max_cost_usd }}",
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=15),
    )
    def film(shot: str, params: dict | None = None, run_id: str | None = None) -> dict:
        folder = f"{(params or {})['output']}/{str(run_id).replace(':', '-')}"
        return {
            "prompt": shot.strip(),
            "duration": 10 if len(shot) > 300 else 5,
            "output_path": f"{folder}/film.mp4",
        }

    film(write())

if __name__ == "__main__":
    dag.test()
