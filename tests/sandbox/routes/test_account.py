"""Balance and request logs."""

from datetime import UTC, datetime, timedelta

import pytest


def test_a_generation_costs_money_and_a_failed_one_gives_it_back(make):
    with make(balance=10.0) as caller:
        id = caller.submit()
        held = 10.0 - caller.get("/v2/billing").json()["current_balance"]
        assert held == pytest.approx(caller.sandbox.jobs[id].usd)
        caller.sandbox.finish(id, fail="provider")
        assert caller.get("/v2/billing").json() == {"current_balance": 10.0, "currency": "USD"}
        assert caller.get("/v1/billing/balance").json()["balance"] == 20_000_000


def test_the_logs_tie_a_client_request_id_to_the_generation(caller):
    caller.session.headers["X-Client-Request-Id"] = "lost-and-found"
    ended, running = caller.submit(), caller.submit()
    failed = caller.submit()
    caller.sandbox.finish(ended)
    caller.sandbox.finish(failed, fail="provider")
    page = caller.get("/v2/logs?period=1h").json()
    rows = {row["inference_id"]: row for row in page["data"]}
    assert list(rows) == [failed, ended]  # newest first, and none that still runs
    assert running not in rows
    assert rows[ended]["client_request_id"] == "lost-and-found"
    assert (rows[ended]["status"], rows[failed]["status"]) == ("succeeded", "failed")
    assert rows[ended]["cost"]["usd"] > 0
    assert rows[failed]["cost"] == {"usd": 0, "credits": 0}
    assert page["pagination"] == {"limit": 50, "offset": 0, "total": 2, "has_more": False}


def test_the_logs_can_show_what_runs(make):
    with make(logs_show_running=True) as caller:
        id = caller.submit()
        assert [r["inference_id"] for r in caller.get("/v2/logs?period=1d").json()["data"]] == [id]


def test_the_logs_are_paged_filtered_and_private_to_their_key(make):
    with make(seconds=0) as caller:
        ids = [caller.submit() for _ in range(5)]
        other = caller.submit(model="klingai/video-v2-6-pro-text-to-video")

        def rows(query):
            return [row["inference_id"] for row in caller.get(f"/v2/logs?{query}").json()["data"]]

        assert rows("period=1h&limit=2") == [other, ids[4]]
        assert rows("period=1h&limit=2&offset=4") == [ids[1], ids[0]]
        assert rows("period=1h&model=klingai/video-v2-6-pro-text-to-video") == [other]
        assert rows("period=1h&status=failed") == []
        now = datetime.now(UTC)
        begin, end = (
            (now - timedelta(minutes=5)).isoformat(),
            (now + timedelta(minutes=5)).isoformat(),
        )
        found = caller.get("/v2/logs", params={"start": begin, "end": end}).json()["data"]
        assert len(found) == 6
        long_ago = {"start": "2026-01-01", "end": "2026-01-02T00:00:00Z"}
        assert caller.get("/v2/logs", params=long_ago).json()["data"] == []
        caller.session.headers["Authorization"] = "Bearer another"
        assert rows("period=1h") == []


@pytest.mark.parametrize(
    "query",
    [
        "",
        "period=soon",
        "period=1h&start=2026-01-01&end=2026-01-02",
        "start=2026-01-01",
        "start=2026-01-02&end=2026-01-01",
        "start=2026-01-01&end=2026-06-01",
        "period=1h&limit=101",
        "period=1h&limit=0",
        "period=1h&offset=-1",
        "period=1h&status=succeeded,failed",
    ],
)
def test_the_logs_refuse_what_the_documents_exclude(shared, query):
    assert shared.get(f"/v2/logs?{query}").status_code == 400


def test_the_logs_allow_200_calls_in_a_minute_of_gateway_time(make):
    with make(speed=1) as caller:
        codes = [caller.get("/v2/logs?period=1h").status_code for _ in range(201)]
        assert codes == [200] * 200 + [429]
