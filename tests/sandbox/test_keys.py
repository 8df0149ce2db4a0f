"""Which API keys are accepted, and that none is kept."""

import pytest
import requests


@pytest.mark.parametrize("header", [None, "Bearer ", "Basic abc", "Bearer a-bad-key"])
def test_a_missing_or_wrong_key_is_401_in_the_problem_envelope(caller, header):
    url = caller.url
    headers = {} if header is None else {"Authorization": header}
    for reply in (
        requests.post(url, json={}, headers=headers, timeout=10),
        requests.get(url, params={"generation_id": "1"}, headers=headers, timeout=10),
        requests.get(f"{caller.sandbox.base_url}/v2/billing", headers=headers, timeout=10),
    ):
        assert reply.status_code == 401
        body = reply.json()
        assert (body["title"], body["status"]) == ("Unauthorized", 401)
        assert body["error"]["name"] == "UnauthorizedException"
        assert body["requestId"] == reply.headers["x-request-id"]
        assert body["instance"].startswith("/sandbox/")


def test_a_broke_key_is_403_with_the_gateways_own_spelling(caller):
    caller.session.headers["Authorization"] = "Bearer broke"
    reply = caller.post()
    assert reply.status_code == 403
    assert reply.json()["error"]["data"]["kind"] == "err_insufficent_credits"
    assert caller.get("/v2/billing").json()["current_balance"] == 0
    assert caller.sandbox.paid == 0


def test_the_key_is_kept_in_no_record(caller):
    caller.session.headers["Authorization"] = "Bearer very-secret"
    caller.poll(caller.submit())
    assert "very-secret" not in caller.get("/_jobs").text
    assert "very-secret" not in repr(caller.sandbox.posts) + repr(caller.sandbox.jobs)
