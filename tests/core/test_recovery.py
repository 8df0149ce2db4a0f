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

    def logs(call):
        query = parse_qs(urlsplit(call.url).query)
        offset = int(query["offset"][0])
        stamps.append((query["start"][0], query["end"][0]))
        rows = [{"client_request_id": None, "inference_id": f"x{offset}"}] * 100
        if offset == 100:
            rows = [{"client_request_id": asked, "inference_id": "-found"}]
        return Reply(200, {}, json.dumps(rows if key is None else {key: rows}).encode())

    monkeypatch.setattr(client, "exchange", logs)
    pauses(monkeypatch)
    [result] = client.recover()
    assert result.generation_id == "-found"
    start, end = (datetime.fromisoformat(text) for text in stamps[0])
    assert start < datetime.fromtimestamp(time.time(), UTC) < end
