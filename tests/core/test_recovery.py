"""A submission without a known outcome is looked up in the gateway's log."""

import json
import sqlite3
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from kling_integrations import (
    KlingClient,
    Ledger,
    ServerError,
    SubmissionUncertainError,
    VideoRequest,
)
from kling_integrations.core.payloads import Reply
from kling_integrations.core.waiting import Patience
from kling_integrations.sandbox import Sandbox

QUICK = Patience(first=0.01, most=0.02)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite3")


@pytest.fixture
def client(sandbox, ledger):
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger, patience=QUICK) as made:
        yield made


def lose(client, sandbox, prompt="A cat", fault="drop-after"):
    """Submits; the reply gets lost."""
    sandbox.fault("submit", fault)
    with pytest.raises(SubmissionUncertainError):
        client.submit(VideoRequest(prompt=prompt))


def pauses(monkeypatch):
    """Real seconds that the client sleeps from here on, without sleeping."""
    seconds = []
    monkeypatch.setattr("kling_integrations.core.http.client.time.sleep", seconds.append)
    return seconds


def test_a_lost_generation_is_found_and_attached(client, sandbox, ledger):
    lose(client, sandbox)
    sandbox.finish()
    [result] = client.recover()
    [generation_id] = sandbox.jobs
    assert result.generation_id == generation_id
    assert client.generate(VideoRequest(prompt="A cat")).id == generation_id
    assert len(sandbox.posts) == 1
    assert client.recover() == []


def test_what_is_not_listed_stays_as_it_was(client, sandbox, ledger):
    lose(client, sandbox, fault="drop-before")
    [result] = client.recover()
    assert result.generation_id is None
    assert "not listed" in result.reason
    with pytest.raises(SubmissionUncertainError):
        client.submit(VideoRequest(prompt="A cat"))


def test_a_generation_that_still_runs_is_not_guessed(ledger):
    endless = Sandbox(speed=1000, seconds=float("inf"), size=(160, 90), fps=8)
    with endless, KlingClient("sandbox", endless.base_url, ledger=ledger) as client:
        lose(client, endless)
        [result] = client.recover()
        assert result.generation_id is None
        assert "still runs is probably not listed" in result.reason
        endless.finish()
        [result] = client.recover()
        assert result.generation_id == next(iter(endless.jobs))


def test_others_in_the_log_are_not_mistaken_for_it(client, sandbox, ledger):
    other = client.submit(VideoRequest(prompt="A cat"), client_request_id=None)
    lose(client, sandbox, "A dog", fault="drop-before")
    sandbox.finish()
    assert [result.generation_id for result in client.recover()] == [None]
    assert other.id in sandbox.jobs


def test_it_is_found_on_a_later_page(client, sandbox, ledger, monkeypatch):
    lose(client, sandbox)
    with KlingClient("sandbox", sandbox.base_url) as crowd:
        for number in range(205):
            crowd.submit(VideoRequest(prompt=f"number {number}"))
    sandbox.finish()
    naps = pauses(monkeypatch)
    [result] = client.recover()
    assert result.generation_id == next(iter(sandbox.jobs))
    assert sandbox.requests["logs"] == 3
    assert len(naps) == 2  # the log may be asked 200 times a minute


def test_several_are_found_in_one_walk_through_the_log(client, sandbox, ledger):
    for prompt in ("A cat", "A dog", "A fish"):
        lose(client, sandbox, prompt)
    sandbox.finish()
    results = client.recover()
    assert {result.generation_id for result in results} == set(sandbox.jobs)
    assert sandbox.requests["logs"] == 1


def test_the_window_is_around_the_submission(client, sandbox, ledger):
    lose(client, sandbox)
    sandbox.finish()
    with sqlite3.connect(ledger.path) as db:  # as if it had been two days ago
        db.execute("UPDATE submissions SET created_at = created_at - 172800")
    [result] = client.recover()
    assert result.generation_id is None
    assert "probably not taken" in result.reason


def test_a_generation_that_was_paid_past_is_found_all_the_same(client, sandbox, ledger):
    lose(client, sandbox)
    lost = next(iter(sandbox.jobs))
    newer = client.submit(VideoRequest(prompt="A cat"), new=True)
    sandbox.finish()
    assert [result.generation_id for result in client.recover()] == [lost]
    assert client.submit(VideoRequest(prompt="A cat")).id == newer.id  # the newer one stands


def test_a_limit_of_requests_is_waited_out_once(client, sandbox, ledger, monkeypatch):
    lose(client, sandbox)
    sandbox.finish()
    sandbox.fault("logs", "429")
    naps = pauses(monkeypatch)
    [result] = client.recover()
    assert result.generation_id
    assert naps[0] == pytest.approx(client.clock.real(60))


def test_trouble_with_the_log_is_told_and_changes_nothing(client, sandbox, ledger):
    lose(client, sandbox)
    sandbox.finish()
    sandbox.fault("logs", "503")
    with pytest.raises(ServerError, match="the logs"):
        client.recover()
    assert len(ledger.uncertain(client.endpoint.base_url)) == 1


def test_nothing_uncertain_asks_nothing(client, sandbox, ledger):
    client.submit(VideoRequest(prompt="A cat"))
    assert client.recover() == []
    assert sandbox.requests["logs"] == 0


@pytest.mark.parametrize("key", ["data", "logs", "items", None])
def test_pages_of_several_shapes_are_walked(client, sandbox, ledger, key, monkeypatch):
    lose(client, sandbox)
    [entry] = ledger.uncertain(client.endpoint.base_url)
    asked = entry.record.client_request_id
    stamps = []

    def answers(call):
        if "/logs" not in call.url:
            polled.append(call.url)
            return Reply(200, {}, b'{"id": "-found", "status": "generating"}')
        query = parse_qs(urlsplit(call.url).query)
        offset = int(query["offset"][0])
        stamps.append((query["start"][0], query["end"][0]))
        rows = [{"client_request_id": None, "inference_id": f"x{offset}"}] * 100
        if offset == 100:
            rows = [{"client_request_id": asked, "inference_id": "-found"}]
        return Reply(200, {}, json.dumps(rows if key is None else {key: rows}).encode())

    polled = []
    monkeypatch.setattr(client, "exchange", answers)
    pauses(monkeypatch)
    [result] = client.recover()
    assert result.generation_id == "-found"
    assert len(polled) == 1
    start, end = (datetime.fromisoformat(text) for text in stamps[0])
    assert start < datetime.fromtimestamp(time.time(), UTC) < end


def logged(client, monkeypatch, rows, known, gateway_clock=0.0):
    """A gateway whose log has these rows, and which knows these generations."""
    from email.utils import formatdate

    windows = []

    def answers(call):
        query = parse_qs(urlsplit(call.url).query)
        headers = {"date": formatdate(time.time() + gateway_clock, usegmt=True)}
        if "/logs" in call.url:
            start, end = (datetime.fromisoformat(query[name][0]) for name in ("start", "end"))
            windows.append((start, end))
            here = [row for row in rows if start <= row["created"] <= end]
            shown = [{**row, "created": row["created"].isoformat()} for row in here]
            return Reply(200, headers, json.dumps({"data": shown}).encode())
        if query["generation_id"][0] in known:
            body = {"id": query["generation_id"][0], "status": "generating"}
            return Reply(200, headers, json.dumps(body).encode())
        return Reply(404, headers, b'{"message": "not found"}')

    monkeypatch.setattr(client, "exchange", answers)
    pauses(monkeypatch)
    return windows


def row_of(entry, generation_id, status, seconds=0.0):
    created = datetime.fromtimestamp(entry.record.created_at + seconds, UTC)
    return {
        "client_request_id": entry.record.client_request_id,
        "inference_id": generation_id,
        "status": status,
        "created": created,
    }


def test_a_refused_try_before_the_accepted_one_is_not_taken_for_it(
    client, sandbox, ledger, monkeypatch
):
    lose(client, sandbox)
    [entry] = ledger.uncertain(client.base_url)
    rows = [row_of(entry, "refused-429", "failed"), row_of(entry, "paid", "succeeded", 30)]
    logged(client, monkeypatch, rows, known={"refused-429", "paid"})
    [result] = client.recover()
    assert result.generation_id == "paid"


def test_a_listed_id_that_the_gateway_does_not_know_is_not_attached(
    client, sandbox, ledger, monkeypatch
):
    lose(client, sandbox)
    [entry] = ledger.uncertain(client.base_url)
    windows = logged(client, monkeypatch, [row_of(entry, "gone", "failed")], known=set())
    [result] = client.recover()
    assert result.generation_id is None
    assert len(windows) == 1  # the clocks agree: there is no second walk
    assert len(ledger.uncertain(client.base_url)) == 1


def test_an_id_of_the_log_that_would_forge_a_line_is_passed_over(
    client, sandbox, ledger, monkeypatch
):
    lose(client, sandbox)
    [entry] = ledger.uncertain(client.base_url)
    odd = "x\nINFO Generation y was paid"
    logged(client, monkeypatch, [row_of(entry, odd, "succeeded")], known={odd})
    assert [result.generation_id for result in client.recover()] == [None]


@pytest.mark.parametrize("apart", [-7200.0, 7200.0])
def test_clocks_that_are_hours_apart_do_not_hide_the_row(
    client, sandbox, ledger, monkeypatch, apart
):
    lose(client, sandbox)
    [entry] = ledger.uncertain(client.base_url)
    rows = [row_of(entry, "paid", "succeeded", apart)]
    windows = logged(client, monkeypatch, rows, known={"paid"}, gateway_clock=apart)
    [result] = client.recover()
    assert result.generation_id == "paid"
    assert len(windows) == 2


def test_a_submission_is_found_by_its_client_request_id(client, sandbox, ledger):
    lose(client, sandbox)
    sandbox.finish()
    [entry] = ledger.uncertain(client.base_url)
    asked, moment = entry.record.client_request_id, entry.record.created_at
    assert client.find_submission(asked, moment) == next(iter(sandbox.jobs))
    assert client.find_submission("kling-other", moment) is None


@pytest.mark.parametrize("status", ["403", "404"])
def test_a_listed_success_that_cannot_be_looked_at_is_not_known_to_be_absent(
    client, sandbox, ledger, status
):
    """A key without rights, a gateway that has not caught up: it may well be paid for."""
    lose(client, sandbox)
    sandbox.finish()
    sandbox.fault("poll", status, None)
    [result] = client.recover()
    assert result.generation_id is None
    assert not result.is_complete
    record = result.entry.record
    with pytest.raises(ServerError):
        client.find_submission(record.client_request_id, record.created_at)
    sandbox.clear_faults()
    assert client.recover()[0].generation_id in sandbox.jobs


def test_the_log_of_one_key_says_nothing_about_a_post_with_another(client, sandbox, ledger):
    lose(client, sandbox, fault="drop-before")
    with sqlite3.connect(ledger.path) as db:
        db.execute("UPDATE submissions SET key_hash = 'other123'")
    [result] = client.recover()
    assert not result.is_complete
    assert "other123" in result.reason
