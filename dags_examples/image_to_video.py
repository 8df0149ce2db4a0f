"""A picture that an earlier task made begins to move.

**What it shows:** an image from an upstream task as the first frame. The operator takes a URL, a
path on the worker, or anything that ObjectStoragePath reads (`s3://…`); the picture itself is read
when it is submitted and appears in no XCom and no rendered template. On several workers, put it
where all of them can read it.

**Needs:** the connection `kling_default`; see quick_start.py for the sandbox. Pillow, for drawing.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, ObjectStoragePath, Param, task

from kling_integrations.airflow import KlingVideoOperator

OUTPUT = os.environ.get("KLING_DEMO_OUTPUT", str(Path(tempfile.gettempdir()) / "kling"))

with DAG(
    "kling_image_to_video",
    schedule=None,
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
    params={
        "prompt": Param("The sun rises over the hills, the light turns warm", type="string"),
        "model": Param("v2.5-turbo-pro", type="string", description="An id, or an alias."),
        "max_cost_usd": Param(2.0, type="number", description="Refuse what costs more, in USD."),
        "output": Param(OUTPUT, type="string", description="Folder, or a URI such as s3://…"),
    },
) as dag:

    @task
    def draw(params: dict | None = None, run_id: str | None = None) -> str:
        """Hills before sunrise; returns where the picture is."""
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", (1280, 720), "#1b2a49")
        pen = ImageDraw.Draw(picture)
        for depth, colour in enumerate(("#33415c", "#2b3550", "#1f2740")):
            top = 380 + depth * 90
            pen.ellipse((-400 + depth * 300, top, 1300 + depth * 250, top + 900), fill=colour)
        path = ObjectStoragePath((params or {})["output"]) / f"{str(run_id).replace(':', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            picture.save(file, "PNG")
        return str(path)

    KlingVideoOperator(
        task_id="animate",
        model="{{ params.model }}",  # with an image the alias means image-to-video
        max_cost_usd="{{ params.max_cost_usd }}",
        prompt="{{ params.prompt }}",
        image=draw(),
        duration=5,
        output_path="{{ params.output }}/{{ run_id | replace(':', '-') }}.mp4",
        deferrable=True,
        retries=2,
        retry_delay=timedelta(seconds=15),
    )

if __name__ == "__main__":
    dag.test()
