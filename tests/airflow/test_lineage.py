"""What OpenLineage is told: files, their hash and origin, figures, no secrets."""

from __future__ import annotations

import json
import sys
from uuid import UUID

import pytest

from kling_integrations.airflow.lineage import dataset_name, lineage_of

pytest.importorskip("airflow.providers.openlineage")

MADE = {
    "generation_id": "g1",
    "model": "klingai/v2.5-turbo/pro/image-to-video",
    "prompt": "A secret product",
    "path": "s3://aws@films/run/fox.mp4",
    "size": 1000,
    "sha256": "ab" * 32,
    "usd": 0.5,
    "elapsed_seconds": 105.0,
    "polls": 3,
    "sandbox": False,
    "parameters": {
        "image": "https://store.test/first.png?…",
        "tail_image": {"path": "s3://films/last.mp4", "task_id": "before"},
    },
}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/videos/a.mp4", ("file", "/videos/a.mp4")),
        ("file:///videos/a.mp4", ("file", "/videos/a.mp4")),
        ("s3://bucket/a/b.mp4", ("s3://bucket", "a/b.mp4")),
        ("s3://aws@bucket/a.mp4", ("s3://bucket", "a.mp4")),
        ("gs://bucket/a.mp4", ("gs://bucket", "a.mp4")),
    ],
)
def test_files_have_the_names_that_lineage_gives_them(address, expected):
    assert dataset_name(address) == expected


def emitted(lineage, folder) -> dict:
    """The event as the file transport writes it."""
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.transport.file import FileConfig, FileTransport

    path = folder / "events.json"
    client = OpenLineageClient(
        transport=FileTransport(FileConfig(log_file_path=str(path), append=True))
    )
    client.emit(
        RunEvent(
            eventType=RunState.COMPLETE,
            eventTime="2026-11-01T00:00:00Z",
            run=Run(
                runId=str(UUID("01938e9e-0000-7000-8000-000000000000")), facets=lineage.run_facets
            ),
            job=Job(namespace="airflow", name="films.video"),
            producer="https://kling.test",
            inputs=lineage.inputs,
            outputs=lineage.outputs,
        )
    )
    return json.loads(path.read_text().splitlines()[-1])


def test_the_event_names_the_file_its_hash_its_origin_and_its_price(tmp_path):
    event = emitted(lineage_of(MADE), tmp_path)
    (output,) = event["outputs"]
    assert (output["namespace"], output["name"]) == ("s3://films", "run/fox.mp4")
    assert output["facets"]["version"]["datasetVersion"] == "ab" * 32
    assert output["outputFacets"]["outputStatistics"]["size"] == 1000
    assert [(one["namespace"], one["name"]) for one in event["inputs"]] == [
        ("https://store.test", "first.png"),
        ("s3://films", "last.mp4"),
    ]
    facet = event["run"]["facets"]["kling"]
    assert (facet["model"], facet["seconds"], facet["usd"]) == (MADE["model"], 105.0, 0.5)
    assert facet["generation_id"] == "g1"


def test_the_prompt_and_signatures_are_left_out_unless_asked_for(tmp_path, monkeypatch):
    assert "secret" not in json.dumps(emitted(lineage_of(MADE), tmp_path))
    monkeypatch.setenv("AIRFLOW__KLING__LINEAGE_PROMPT", "True")
    event = emitted(lineage_of(MADE), tmp_path)
    assert event["run"]["facets"]["kling"]["prompt"] == "A secret product"


def test_airflows_extractor_gets_it_from_a_finished_task(sandbox, task, operator, tmp_path):
    from airflow.providers.openlineage.extractors.base import DefaultExtractor

    kept = []
    make = operator(deferrable=False)
    attempt = task(lambda: kept.append(make()) or kept[-1])
    made = attempt.run()
    lineage = DefaultExtractor(kept[-1]).extract_on_complete(None)
    event = emitted(lineage, tmp_path)
    assert event["outputs"][0]["name"] == made["path"]
    assert event["run"]["facets"]["kling"]["generation_id"] == made["generation_id"]


def test_a_task_that_delivered_nothing_tells_nothing(operator):
    assert operator()().get_openlineage_facets_on_complete(None) is None


@pytest.mark.thorough
def test_lineage_costs_nothing_where_nobody_asks():
    import subprocess

    code = (
        "import sys; from kling_integrations.airflow import KlingVideoOperator;"
        "print([name for name in sys.modules if 'openlineage' in name])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "openlineage.client" not in out.stdout


def test_a_table_tells_its_results_its_rows_and_how_many_became_videos(tmp_path):
    made = {"results_path": "s3://shop/r.parquet", "rows": 3, "completed": 2, "failed": 1, "usd": 1}
    lineage = lineage_of({**made, "rows_path": "s3://aws@shop/p.csv?v=1"})
    event = emitted(lineage, tmp_path)
    assert [(each["namespace"], each["name"]) for each in event["outputs"]] == [
        ("s3://shop", "r.parquet")
    ]
    assert [each["name"] for each in event["inputs"]] == ["p.csv"]
    facet = event["run"]["facets"]["kling"]
    assert (facet["rows"], facet["completed"], facet["failed"], facet["usd"]) == (3, 2, 1, 1)
    assert not lineage_of(made).inputs
