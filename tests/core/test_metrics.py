"""Live percentiles: taken where they help, and never in the way."""

import asyncio
import json
import time

import pytest
from support.raw_gateway import http

from kling_integrations import AsyncKlingClient, KlingClient, Ledger, Status, StoppedWaiting
from kling_integrations.core import metrics, protocol
from kling_integrations.core.generation import Generation
from kling_integrations.core.http import requests_transport as transport
from kling_integrations.core.protocol import Reply, Trouble

MODEL = "klingai/v2.5-turbo/pro/text-to-video"


@pytest.fixture(autouse=True)
def _nothing_known():
    metrics.forget()
    yield
    metrics.forget()


def answer(*models, status=200):
    return Reply(status, {}, json.dumps({"window_seconds": 300, "models": models}).encode())


def entry(alias=MODEL, **figures):
    return {"alias": alias, "metrics": {"duration_ms": figures}}


def looked_up(sandbox):
    return sandbox.requests["models"]


# --- reading -----------------------------------------------------------------------------------


def test_milliseconds_of_the_model_that_was_asked_for_become_seconds():
    reply = answer(entry("klingai/other", p50=1), entry(p50=170_500, p90="200000", p99=None))
    assert protocol.read_metrics(reply, MODEL) == {"p50": 170.5, "p90": 200.0}


@pytest.mark.parametrize(
    "outcome",
    [
        Trouble("connection lost"),
        Reply(200, {}, b"<html>"),
        Reply(200, {}, b"[]"),
        Reply(500, {}, answer(entry(p50=170_000)).body),
        answer(),
        answer("words", None, {"alias": MODEL}, {"alias": MODEL, "metrics": {"duration_ms": 3}}),
        answer(entry(p50=0, p90=-4, p99=float("nan"))),
        Reply(200, {}, b'{"models": {"alias": 3}}'),
    ],
    ids=str,
)
def test_whatever_else_comes_is_nothing_known(outcome):
    assert protocol.read_metrics(outcome, MODEL) == {}


# --- caching -----------------------------------------------------------------------------------


def test_one_asks_in_ten_minutes_also_after_a_failure(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    assert metrics.claim("here", MODEL)
    assert not metrics.claim("here", MODEL)
    assert metrics.claim("there", MODEL)
    assert metrics.claim("here", "another")
    metrics.remember("here", MODEL, Trouble("no reply"))
    now += metrics.FRESH - 1
    assert not metrics.claim("here", MODEL)
    assert metrics.known("here", MODEL) == {}
    now += 2
    assert metrics.claim("here", MODEL)


def test_what_was_fetched_is_known_until_it_is_stale(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    metrics.remember("here", MODEL, answer(entry(p50=90_000)))
    now += metrics.FRESH - 1
    assert metrics.known("here", MODEL) == {"p50": 90.0}
    assert metrics.known("there", MODEL) == {}
    now += 2
    assert metrics.known("here", MODEL) == {}


# --- both clients ------------------------------------------------------------------------------


def expectations(front, base_url, request, **options):
    """What each wait of one client expected, seconds."""
    seen = []
    front.run(base_url, "generate", request, on_update=lambda p: seen.append(p.expected), **options)
    return seen


def test_they_are_not_fetched_unless_asked_for(front, sandbox, raccoon):
    assert 150 < expectations(front, sandbox.base_url, raccoon)[0] < 200
    assert looked_up(sandbox) == 0


def test_they_replace_the_documented_seconds(front, sandbox, raccoon):
    seen = expectations(front, sandbox.base_url, raccoon, live_percentiles=True)
    assert seen[0] == pytest.approx(104, abs=6)  # the sandbox's jobs take 100 s, and it says so
    assert looked_up(sandbox) == 1
    expectations(front, sandbox.base_url, raccoon, live_percentiles=True)
    assert looked_up(sandbox) == 1


def test_the_environment_can_ask_for_them(front, sandbox, raccoon, monkeypatch):
    monkeypatch.setenv("KLING_LIVE_PERCENTILES", "1")
    expectations(front, sandbox.base_url, raccoon)
    assert looked_up(sandbox) == 1


def test_own_finishes_know_better(front, sandbox, raccoon, tmp_path):
    ledger = Ledger(tmp_path / "ledger.db")
    expectations(front, sandbox.base_url, raccoon, ledger=ledger)
    expectations(front, sandbox.base_url, raccoon, ledger=ledger, new=True, live_percentiles=True)
    assert ledger.finished(sandbox.base_url, raccoon.model, raccoon.duration)
    assert looked_up(sandbox) == 0


def test_a_gateway_without_them_is_waited_for_as_documented(front, gateway, raccoon):
    taken = http("200 OK", b'{"id": "g1", "status": "queued"}')
    unknown = http("404 Not Found", b'{"message": "Cannot GET /models/metrics"}')
    body = {"id": "g1", "status": "completed", "video": {"url": "https://cdn/x.mp4"}}
    done = http("200 OK", json.dumps(body).encode())
    mute = gateway(taken, unknown, done)
    got = front.run(
        mute.base_url, "generate", raccoon, live_percentiles=True, on_update=lambda progress: None
    )
    assert got.status is Status.COMPLETED


async def test_many_waits_that_start_together_fetch_once(sandbox, raccoon):
    seen = []
    async with AsyncKlingClient("sandbox", sandbox.base_url, live_percentiles=True) as client:
        waits = (client.generate(raccoon, on_update=lambda p: seen.append(p)) for _ in range(20))
        await asyncio.gather(*waits)
    assert looked_up(sandbox) == 1
    assert all(progress.expected - progress.queued < 110 for progress in seen)


def test_a_slow_answer_is_given_up(front, sandbox, raccoon, monkeypatch):
    monkeypatch.setattr(metrics, "TIMEOUT", 0.1)
    sandbox.fault("models", "hang")
    begin = time.monotonic()
    seen = expectations(front, sandbox.base_url, raccoon, live_percentiles=True)
    assert 150 < seen[0] < 200
    assert time.monotonic() - begin < 30  # the exchange itself may take 60


def test_an_interrupt_during_the_fetch_names_the_generation(sandbox, raccoon, monkeypatch):
    with KlingClient("sandbox", sandbox.base_url, live_percentiles=True) as client:
        generation = client.submit(raccoon)

        def interrupt(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(transport, "exchange", interrupt)
        with pytest.raises(StoppedWaiting) as stopped:
            client.wait(generation.id)
    assert stopped.value.generation_id == generation.id


def test_an_unknown_model_is_not_asked_about(sandbox):
    with KlingClient("sandbox", sandbox.base_url, live_percentiles=True) as client:
        assert client._memory.wonders(Generation(id="elsewhere", status=Status.UNKNOWN)) is None
