"""Records and faults over HTTP."""

import requests


def test_the_records_can_be_read_over_http(caller):
    id = caller.submit(prompt="y" * 1000)
    caller.poll(id)
    records = caller.get("/_jobs").json()
    assert records["sandbox"] is True
    assert records["paid"] == 1
    assert records["requests"] == {"submit": 1, "poll": 1}
    (job,) = records["jobs"]
    assert (job["id"], job["polls"], job["seconds"]) == (id, 1, None)
    assert "(1000 characters)" in job["payload"]["prompt"]
    assert records["posts"][0]["generation_id"] == id
    assert records == caller.sandbox.snapshot() | {"now": records["now"]}


def test_other_processes_arm_see_and_clear_faults_over_http(caller):
    id = caller.submit()
    url = f"{caller.sandbox.base_url}/_faults"
    armed = requests.post(url, json={"fault": "poll:503:2"}, timeout=5).json()
    assert (armed["kind"], armed["code"], armed["times"]) == ("status", 503, 2)
    body = {"moment": "poll", "kind": "odd-status", "times": None, "word": "paused"}
    assert requests.post(url, json=body, timeout=5).ok
    assert len(requests.get(url, timeout=5).json()["faults"]) == 2
    assert [caller.poll(id).status_code for _ in range(2)] == [503, 503]
    assert caller.poll(id).json()["status"] == "paused"
    requests.delete(url, timeout=5)
    assert caller.poll(id).json()["status"] == "queued"
    for wrong in ({"fault": "poll:explode"}, {"kind": "503"}, {"moment": 3, "kind": "503", "x": 1}):
        refused = requests.post(url, json=wrong, timeout=5)
        assert refused.status_code == 400
        assert refused.json()["message"]
