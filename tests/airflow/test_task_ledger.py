"""``KlingHook().client`` in a task of one's own: a retry gets what an earlier attempt paid for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from kling_integrations import KlingClient, VideoRequest
from kling_integrations.airflow import KlingHook
from kling_integrations.core.errors import (
    GenerationFailedError,
    LedgerError,
    ServerError,
    SubmissionUncertainError,
)

from .conftest import Store

REQUEST = VideoRequest(prompt="A fox")


@pytest.fixture
def attempt(monkeypatch) -> Callable[[Any], Any]:
    """``with attempt(store) as client``: an attempt of a task, in a process of its own."""
    from airflow.sdk.definitions._internal import contextmanager as current
    from airflow.sdk.execution_time import task_runner  # noqa: F401 (the context is set here)

    runs: dict[int, Any] = {}  # a store belongs to one task instance

    @contextmanager
    def running(store: Any, tried: int = 1, run_id: str | None = None) -> Iterator[KlingClient]:
        runs.setdefault(id(store), (f"run-{len(runs)}", store))
        run_id = run_id or runs[id(store)][0]
        ti = SimpleNamespace(dag_id="dag", run_id=run_id, task_id="task", try_number=tried)
        context: Any = {"ti": ti}
        if store is not None:
            context["task_state_store"] = store
        current._CURRENT_CONTEXT.append(context)
        try:
            with KlingHook().client as client:
                yield client
        finally:
            current._CURRENT_CONTEXT.pop()

    return running


def test_a_retry_gets_the_same_generation_and_pays_once(sandbox, attempt):
    store = Store()
    with attempt(store) as client:
        running = client.submit(REQUEST)
    with attempt(store) as client:
        assert client.generate(REQUEST).id == running.id
    with attempt(store) as client:  # finished by now
        assert client.generate(REQUEST).id == running.id
    assert len(sandbox.posts) == 1


def test_a_run_of_its_own_pays_for_its_own(sandbox, attempt):
    for store in (Store(), Store()):
        with attempt(store) as client:
            client.generate(REQUEST)
    assert len(sandbox.posts) == 2


def test_one_task_makes_several_videos_each_once(sandbox, attempt):
    store = Store()
    requests = [VideoRequest(prompt=prompt) for prompt in ("a", "b")]
    ids = []
    for _ in range(2):
        with attempt(store) as client:
            ids += [client.generate(request).id for request in requests]
            ids += [client.generate(requests[0], take=2).id]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == len(sandbox.posts) == 3


def test_another_one_is_paid_for_when_it_is_asked_for(sandbox, attempt):
    store = Store()
    with attempt(store) as client:
        first = client.generate(REQUEST).id
        second = client.submit(REQUEST, new=True).id
    (record,) = store.get("kling_submissions").values()
    assert record["generation_id"] == second
    assert record["replaced"] == [first]


def test_a_failed_generation_is_submitted_anew(sandbox, attempt):
    store = Store()
    sandbox.fails = "provider"
    with attempt(store) as client, pytest.raises(GenerationFailedError):
        client.generate(REQUEST)
    sandbox.fails = None
    with attempt(store) as client:
        client.generate(REQUEST)
    assert len(sandbox.posts) == 2


def test_an_uncertain_submission_is_refused_until_it_is_looked_up(sandbox, attempt):
    store = Store()
    sandbox.fault("submit", "drop-after")
    for _ in range(2):
        with attempt(store) as client, pytest.raises(SubmissionUncertainError):
            client.generate(REQUEST)
    sandbox.finish()
    with attempt(store) as client:
        (recovered,) = client.recover()
        assert client.generate(REQUEST).id == recovered.generation_id
    assert len(sandbox.posts) == 1


@pytest.fixture
def lost(monkeypatch, tmp_path, attempt, slower_sandbox):
    """A later try of a task on another machine, which has no record of the tries before it."""

    def on_machine(number: int, **more: Any) -> Any:
        monkeypatch.setenv("KLING_HOME", str(tmp_path / f"machine-{number}"))
        return attempt(Store(), tried=number, run_id="lost", **more)

    return on_machine


def test_a_try_without_any_record_finds_what_an_earlier_one_made(slower_sandbox, lost):
    with lost(1) as client:
        first, again = client.generate(REQUEST).id, client.generate(REQUEST, take=2).id
    with lost(3) as client:
        assert client.generate(REQUEST).id == first
        assert client.generate(REQUEST, take=2).id == again
        assert client.generate(VideoRequest(prompt="Another fox")).id not in (first, again)
    assert len(slower_sandbox.posts) == 3


def test_a_try_without_any_record_pays_anew_for_what_failed(slower_sandbox, lost):
    slower_sandbox.fails = "provider"
    with lost(1) as client, pytest.raises(GenerationFailedError):
        client.generate(REQUEST)
    slower_sandbox.fails = None
    with lost(2) as client:
        client.generate(REQUEST)
    assert len(slower_sandbox.posts) == 2


def test_a_try_without_any_record_submits_nothing_while_the_log_is_out_of_reach(
    slower_sandbox, lost
):
    with lost(1) as client:
        client.generate(REQUEST)
    slower_sandbox.fault("logs", "503", None)
    with lost(2) as client, pytest.raises(ServerError, match="log is out of reach"):
        client.generate(REQUEST)
    assert len(slower_sandbox.posts) == 1


def test_every_post_of_a_try_has_an_id_of_its_own(sandbox, attempt):
    with attempt(Store()) as client:
        for _ in range(4):
            client.submit(REQUEST, new=True)
    assert len({post.client_request_id for post in sandbox.posts}) == 4


@pytest.mark.parametrize("stored", [[1], {"a": "b"}, "text"])
def test_an_unreadable_record_stops_it_before_it_pays(sandbox, attempt, stored):
    store = Store()
    store.set("kling_submissions", stored)
    with attempt(store) as client, pytest.raises(LedgerError):
        client.submit(REQUEST)
    assert sandbox.posts == []


@pytest.mark.parametrize("failing", ["get", "set"])
def test_a_store_that_fails_stops_it_before_it_pays(sandbox, attempt, failing):
    store = Store()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the API server is away")

    setattr(store, failing, fail)
    with attempt(store) as client, pytest.raises(LedgerError, match="away"):
        client.submit(REQUEST)
    assert sandbox.posts == []


def test_outside_of_a_task_there_is_no_ledger(sandbox):
    assert KlingHook().client.ledger is None


def test_before_3_3_and_after_a_clear_on_3_4_the_other_store_knows(sandbox, attempt):
    with attempt(None) as client:
        first = client.generate(REQUEST).id
    with attempt(None) as client:
        assert client.generate(REQUEST).id == first
    store = Store()
    with attempt(store) as client:
        second = client.generate(REQUEST).id
    store.rows.clear()
    with attempt(store) as client:
        assert client.generate(REQUEST).id == second
    assert len(sandbox.posts) == 2


def test_records_of_the_first_release_are_gone_on_with(sandbox, attempt, home):
    store = Store()
    with attempt(store) as client:
        first = client.generate(REQUEST).id
    rows = store.get("kling_submissions")
    for row in rows.values():
        for name in ("revision", "attempt", "try_number", "since"):
            row.pop(name, None)
    store.rows = {"kling_submissions": json.dumps(rows)}
    (home / "ledger.sqlite3").unlink()
    with attempt(store) as client:
        assert client.generate(REQUEST).id == first
        client.generate(VideoRequest(prompt="A bear"))
    assert len(sandbox.posts) == 2
    store.rows.clear()
    with attempt(store) as client:
        assert client.generate(REQUEST).id == first
    assert len(sandbox.posts) == 2


def test_what_is_paid_for_is_gone_on_with_while_one_store_is_away(sandbox, attempt):
    store = Store()
    with attempt(store) as client:
        first = client.generate(REQUEST).id

    def away(*_: Any, **__: Any) -> None:
        raise RuntimeError("the API server is away")

    store.get = store.set = away
    with attempt(store) as client:
        assert client.generate(REQUEST).id == first
        with pytest.raises(LedgerError, match="away"):
            client.submit(VideoRequest(prompt="A bear"))
    assert len(sandbox.posts) == 1


def test_threads_of_one_task_lose_no_record(sandbox, attempt):
    from concurrent.futures import ThreadPoolExecutor

    store, counter = Store(), itertools.count()
    with attempt(store) as client, ThreadPoolExecutor(8) as pool:
        requests = [VideoRequest(prompt=f"number {next(counter)}") for _ in range(16)]
        ids = {generation.id for generation in pool.map(client.submit, requests)}
    assert {r["generation_id"] for r in store.get("kling_submissions").values()} == ids
    assert len(ids) == 16
