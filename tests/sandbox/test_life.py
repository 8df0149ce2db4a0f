"""The life of a job, the records that tests read, and the gateway's other calls."""

import math
import socket
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import requests

from kling_integrations.core import catalog
from kling_integrations.sandbox import Sandbox


def test_a_job_is_queued_then_generating_then_completed(make):
    with make(speed=1000, seconds=300) as caller:
        id = caller.submit()
        seen = [caller.poll(id).json()["status"]]
        while seen[-1] != "completed":
            status = caller.poll(id).json()["status"]
            seen += [status] if status != seen[-1] else []
        assert seen == ["queued", "generating", "completed"]


def test_a_job_takes_its_gateway_seconds_divided_by_the_speed(make):
    with make(speed=100, seconds=30) as caller:
        before = time.monotonic()
        id = caller.submit()
        caller.sandbox.wait_for(lambda sandbox: sandbox.jobs[id].is_terminal)
        assert 0.3 <= time.monotonic() - before < 1.5
        job = caller.sandbox.jobs[id]
        assert job.finished_at - job.created == pytest.approx(0.3)


def test_the_speed_is_part_of_the_base_url():
    for speed, text in ((60, "x60"), (0.5, "x0.5"), (1000.0, "x1000"), (1e6, "x1000000")):
        with Sandbox(speed) as sandbox:
            assert sandbox.base_url == f"{sandbox.origin}/sandbox/{text}"
            assert requests.get(sandbox.base_url, timeout=5).ok


def test_the_client_reads_the_same_speed_from_the_url():
    from kling_integrations.core.settings import clock_for, is_sandbox

    with Sandbox(0.25) as sandbox:
        assert clock_for(sandbox.base_url).speed == sandbox.speed == 0.25
        assert is_sandbox(sandbox.base_url)


def test_a_documented_model_takes_about_its_documented_time(make):
    model = next(m for m in catalog.models() if m.id == "klingai/v2-master-text-to-video")
    with make(seconds=None) as caller:
        for duration in (5, 10):
            id = caller.submit(model=model.id, duration=duration)
            expected = model.expected_seconds(duration)
            assert expected is not None
            assert 0.8 * expected < caller.sandbox.jobs[id].seconds < 1.3 * expected


def test_a_seed_makes_ids_and_durations_repeatable(make):
    runs = []
    for seed in (1, 1, 2):
        with make(seconds=None, seed=seed) as caller:
            id = caller.submit()
            runs.append((id, caller.sandbox.jobs[id].seconds))
    assert runs[0] == runs[1] != runs[2]


def test_without_a_seed_no_id_comes_twice(make):
    ids = []
    for _ in range(2):
        with make(seed=None) as caller:
            ids.append(caller.submit())
    assert ids[0] != ids[1]


def test_seconds_may_be_a_function_of_model_and_payload(make):
    with make(seconds=lambda model, payload: 10.0 * payload["duration"]) as caller:
        ids = [caller.submit(duration=duration) for duration in (5, 10)]
        assert [caller.sandbox.jobs[id].seconds for id in ids] == [50, 100]


@pytest.mark.parametrize(
    ("kind", "status", "looks"),
    [
        ("moderation", "error", lambda e: "content policy" in e["message"]),
        ("provider", "error", lambda e: e["name"] == "Error"),
        ("credits", "error", lambda e: e["data"]["kind"] == "err_insufficent_credits"),
        ("string", "error", lambda e: isinstance(e, str)),
        ("null", "error", lambda e: e is None),
        ("failed", "failed", lambda e: e["message"]),
        ("face_detection", "error", lambda e: e["detail"][0]["type"] == "face_detection_error"),
    ],
)
def test_a_job_can_end_badly_in_every_documented_form(make, kind, status, looks):
    with make(fail=kind, seconds=0) as caller:
        body = caller.poll(caller.submit()).json()
        assert body["status"] == status
        assert looks(body["error"])
        assert not body.get("video")


def test_a_word_in_the_prompt_makes_a_job_fail(make):
    with make(seconds=0) as caller:
        assert caller.poll(caller.submit(prompt="x [fail:moderation]")).json()["status"] == "error"
        assert caller.poll(caller.submit(prompt="x")).json()["status"] == "completed"


def test_fail_may_be_a_function(make):
    with make(seconds=0, fail=lambda _, body: "string" if "dog" in body["prompt"] else None) as it:
        assert it.poll(it.submit(prompt="a dog")).json()["error"] == "Generation failed"
        assert it.poll(it.submit(prompt="a cat")).json()["status"] == "completed"


def test_finish_ends_a_job_at_this_moment_well_or_badly(caller):
    good, bad = caller.submit(), caller.submit()
    assert caller.poll(good).json()["status"] == "queued"
    caller.sandbox.finish(good)
    caller.sandbox.finish(bad, fail="provider")
    assert caller.poll(good).json()["status"] == "completed"
    assert caller.poll(bad).json()["status"] == "error"
    with pytest.raises(ValueError, match="unknown failure"):
        caller.sandbox.finish(fail="boredom")


def test_every_submit_is_recorded_whether_accepted_or_not(caller):
    caller.post({"model": "nothing"}, headers={"X-Client-Request-Id": "first"})
    id = caller.submit(prompt="second")
    refused, accepted = caller.sandbox.posts
    assert (refused.accepted, refused.status, refused.generation_id) == (False, 404, None)
    assert refused.client_request_id == "first"
    assert refused.body == {"model": "nothing"}
    assert (accepted.accepted, accepted.status, accepted.generation_id) == (True, 201, id)
    assert accepted.time == pytest.approx(time.time(), abs=5)
    assert accepted.headers["Content-Type"] == "application/json"
    assert caller.sandbox.paid == 1
    assert caller.sandbox.requests == {"submit": 2}


def test_polls_are_counted_and_lateness_is_what_a_poll_came_after_the_end(make):
    with make(speed=100, seconds=20) as caller:
        id = caller.submit()
        caller.poll(id)
        job = caller.sandbox.jobs[id]
        assert (job.polls, job.first_seen_finished, job.lateness) == (1, None, None)
        while job.clock.now() < job.end + 10:  # 0.3 s in all
            caller.get("/")
        caller.poll(id)
        first = job.lateness
        assert first >= 10
        assert job.first_seen_finished == pytest.approx(job.finished_at + first / 100, abs=0.001)
        caller.poll(id)
        assert job.lateness == first
        assert job.polls == 3


def test_a_poll_that_went_wrong_does_not_count_as_having_told_of_the_end(caller):
    id = caller.submit()
    caller.sandbox.finish(id)
    caller.sandbox.fault("poll", "status")
    assert caller.poll(id).status_code == 503
    assert caller.sandbox.jobs[id].first_seen_finished is None
    caller.poll(id)
    assert caller.sandbox.jobs[id].first_seen_finished is not None


def test_wait_for_wakes_when_it_happens_and_says_what_it_saw_when_not(caller):
    thread = threading.Timer(0.05, caller.post)
    thread.start()
    post = caller.sandbox.wait_for(lambda sandbox: sandbox.posts)[0]
    assert post.path.endswith("/v2/video/generations")
    thread.join()
    with pytest.raises(TimeoutError, match="'submit': 1"):
        caller.sandbox.wait_for(lambda sandbox: sandbox.paid == 2, timeout=0.05)


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


def test_connections_are_counted(caller):
    for _ in range(3):
        caller.get("/")
    assert caller.sandbox.connections == 1
    requests.get(caller.sandbox.base_url, timeout=5)
    assert caller.sandbox.connections == 2


def test_a_paused_sandbox_refuses_and_a_resumed_one_knows_its_jobs(caller):
    id = caller.submit()
    caller.sandbox.pause()
    for _ in range(2):  # the open connection is gone, and a new one is refused
        with pytest.raises(requests.ConnectionError):
            caller.poll(id)
    caller.sandbox.pause()  # twice is harmless
    caller.sandbox.resume()
    caller.sandbox.resume()
    assert caller.poll(id).json()["id"] == id


def test_nobody_else_gets_the_port_while_the_sandbox_pauses(make):
    with make() as caller:  # no connection yet whose remains would hold the port
        caller.sandbox.pause()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", caller.sandbox.port))


def test_a_pause_breaks_off_those_who_wait_for_a_reply(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "hang")
    broken = []

    def ask():
        try:
            caller.poll(id)
        except requests.ConnectionError as error:
            broken.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    caller.sandbox.wait_for(lambda sandbox: sandbox.requests["poll"])
    caller.sandbox.pause()
    thread.join(5)
    assert broken
    caller.sandbox.resume()


def test_a_taken_port_is_an_error_at_the_start(caller):
    with pytest.raises(OSError, match="in use"):
        Sandbox(port=caller.sandbox.port).start()


def test_a_stopped_sandbox_keeps_its_records_and_stops_again_harmlessly(make):
    with make() as caller:
        caller.submit()
    assert caller.sandbox.paid == 1
    caller.sandbox.stop()
    with pytest.raises(RuntimeError, match="started before"):
        caller.sandbox.start()


def test_wrong_options_are_refused_in_a_sentence():
    for options, words in (
        ({"speed": 0}, "speed is between"),
        ({"fail": "boredom"}, "unknown failure 'boredom': one of moderation"),
        ({"era": "1999"}, "unknown era '1999': one of 2025"),
        ({"faults": ["poll:nonsense"]}, "unknown fault 'nonsense'"),
    ):
        with pytest.raises(ValueError, match=words):
            Sandbox(**options)


# --- money, logs, models ------------------------------------------------------------------------


def test_a_generation_costs_money_and_a_failed_one_gives_it_back(make):
    with make(balance=10.0) as caller:
        id = caller.submit()
        held = 10.0 - caller.get("/v2/billing").json()["current_balance"]
        assert held == pytest.approx(caller.sandbox.jobs[id].usd)
        caller.sandbox.finish(id, fail="provider")
        assert caller.get("/v2/billing").json() == {"current_balance": 10.0, "currency": "USD"}
        assert caller.get("/v1/billing/balance").json()["balance"] == 20_000_000


def test_a_submit_that_costs_more_than_is_left_is_403(make):
    with make(balance=0.75) as caller:
        caller.submit()
        assert caller.post().status_code == 403
        caller.sandbox.finish(fail="provider")
        assert caller.post().ok


def test_the_price_list_foretells_the_bill_and_says_that_it_is_invented(make):
    with make(seconds=0) as caller:
        model = "klingai/video-v3-pro-text-to-video"
        entry = caller.get(f"/v1/models?id={model}&include=pricing").json()["data"][0]
        pricing = entry["pricing"]
        assert "Invented" in pricing["note"]
        loud = next(v for v in pricing["variants"] if v["when"] == {"generate_audio": True})
        id = caller.submit(model=model, duration=5)
        spent = caller.poll(id).json()["meta"]["usage"]["usd_spent"]
        assert spent == pytest.approx(loud["price"] / loud["per"] * 5)
        assert caller.poll(id).headers["x-aimlapi-usd-spent"] == f"{spent:.9f}"


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


def test_a_thousand_waiting_jobs_cost_little(make):
    """Generous: a poll that grew with the number of jobs would take far longer."""
    with make() as caller:
        ids = [caller.submit() for _ in range(1000)]
        before = time.process_time()
        for id in ids:
            assert caller.poll(id).ok
        assert time.process_time() - before < 6  # this side and the sandbox, for 1,000 polls
        assert math.isinf(caller.sandbox.jobs[ids[0]].seconds)
