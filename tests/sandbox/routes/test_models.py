"""The list of models and their metrics."""

import requests

from kling_integrations.core import catalog


def test_the_model_list_needs_no_key_finds_other_spellings_and_has_an_etag(caller):
    url = f"{caller.sandbox.base_url}/v1/models"
    everything = requests.get(url, timeout=5)
    assert len(everything.json()["data"]) == len(catalog.models())
    assert "pricing" not in everything.json()["data"][0]
    again = requests.get(url, headers={"If-None-Match": everything.headers["ETag"]}, timeout=5)
    assert (again.status_code, again.content) == (304, b"")
    other = requests.get(url, params={"id": "kling-video/v2/master/text-to-video"}, timeout=5)
    assert [m["id"] for m in other.json()["data"]] == ["klingai/v2-master-text-to-video"]


def test_the_metrics_are_the_times_of_the_jobs_that_ended_here(make):
    with make(seconds=30, speed=10_000) as caller:
        id = caller.submit()
        caller.sandbox.wait_for(lambda sandbox: sandbox.jobs[id].is_terminal)
        job = caller.sandbox.jobs[id]
        body = caller.get(f"/models/metrics?aliases={job.model}").json()
        (model,) = body["models"]
        assert model["alias"] == job.model
        assert model["metrics"]["duration_ms"] == dict.fromkeys(("p50", "p75", "p90", "p99"), 30000)
