"""A run's budget under racing workers, and what OpenLineage is told, in a real Airflow."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from demo.airflow_demo import LocalAirflow
from kling_integrations.sandbox import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def jobs(gateway, word):
    return [job for job in gateway.jobs.values() if str(job.prompt).startswith(word)]


def test_mapped_tasks_that_race_spend_no_more_than_the_run_may(airflow: LocalAirflow, gateway):
    run_id = airflow.trigger("budget")

    def states():
        return Counter(str(task["state"]) for task in airflow.tasks("budget", run_id))

    # Eight of half a dollar want to run, four at a time; there is a dollar and a half.
    airflow.until(lambda: states()["failed"] == 5 and states()["deferred"] == 3, 180, "the race")
    assert len(jobs(gateway, "budget")) == 3
    for job in jobs(gateway, "budget"):
        gateway.finish(job.id)
    airflow.finished("budget", run_id)
    assert states() == {"success": 3, "failed": 5}
    failed = [t for t in airflow.tasks("budget", run_id) if t["state"] == "failed"]
    airflow.clear("budget", run_id, "video")  # a clear pays for nothing more
    airflow.until(lambda: states() == {"success": 3, "failed": 5}, 180, "the clear")
    tried = [t for t in airflow.tasks("budget", run_id) if t["state"] == "failed"]
    assert min(t["try_number"] for t in tried) > max(t["try_number"] for t in failed)
    assert len(jobs(gateway, "budget")) == 3


def test_openlineage_is_told_files_and_figures_and_no_prompt(
    airflow: LocalAirflow, gateway: Sandbox, out: Path
):
    pytest.importorskip("airflow.providers.openlineage")
    run_id = airflow.trigger("lineage")

    def over():
        for job in jobs(gateway, "lineage"):
            gateway.finish(job.id)
        return airflow.run_state("lineage", run_id) in ("success", "failed")

    airflow.until(over, 200, "the end")
    folder = Path(os.path.dirname(json.loads(airflow.environment[TRANSPORT])["log_file_path"]))

    def events():
        texts = [file.read_text("utf-8") for file in folder.iterdir()]
        found = [json.loads(text) for text in texts]
        ended = [each for each in found if each["eventType"] == "COMPLETE"]
        return {each["job"]["name"]: each for each in ended}, "".join(texts)

    airflow.until(lambda: {"lineage.video", "lineage.table"} <= events()[0].keys(), 60, "events")
    ended, text = events()
    (video,) = ended["lineage.video"]["outputs"]
    assert (video["namespace"], video["name"]) == ("file", f"{out}/lineage/video.mp4")
    assert len(video["facets"]["version"]["datasetVersion"]) == 64
    figures = ended["lineage.video"]["run"]["facets"]["kling"]
    assert figures["usd"] == 0.5
    assert figures["generation_id"]
    (results,) = ended["lineage.table"]["outputs"]
    assert results["name"] == f"{out}/lineage/results.csv"
    assert ended["lineage.table"]["run"]["facets"]["kling"]["completed"] == 2
    assert "lineage secret" not in text
    assert "sandbox-secret-key" not in text


TRANSPORT = "AIRFLOW__OPENLINEAGE__TRANSPORT"
