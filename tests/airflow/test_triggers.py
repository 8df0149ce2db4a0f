"""KlingVideoTrigger: one event, one session, nothing but looking."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from kling_integrations import KlingClient, VideoRequest
from kling_integrations.airflow import KlingVideoTrigger
from kling_integrations.airflow.events import from_event
from kling_integrations.airflow.exceptions import task_error
from kling_integrations.airflow.shared_client import _of_loop, shared_client
from kling_integrations.airflow.triggers import KlingPauseTrigger
from kling_integrations.core.errors import (
    AuthenticationError,
    GenerationFailedError,
    NextStep,
    Verb,
    WaitTimeoutError,
)


def trigger_of(generation_id: str, **kwargs: Any) -> KlingVideoTrigger:
    kwargs.setdefault("end_time", time.time() + 60)
    kwargs.setdefault("submitted_at", time.time())
    return KlingVideoTrigger(generation_id, **kwargs)


async def events_of(trigger: KlingVideoTrigger) -> list[Any]:
    return [event.payload async for event in trigger.run()]


def test_a_pause_survives_the_trip_and_ends_at_its_moment():
    path, kwargs = KlingPauseTrigger(time.time() + 0.2).serialize()
    assert path == "kling_integrations.airflow.triggers.KlingPauseTrigger"
    again = KlingPauseTrigger(**json.loads(json.dumps(kwargs)), added_later=1)
    (event,) = asyncio.run(events_of(again))
    assert time.time() >= again.until
    assert event == {"paused_until": again.until}


# --- what is stored ----------------------------------------------------------------------------


def test_every_argument_survives_the_trip_through_the_database():
    trigger = trigger_of("id:1/2", kling_conn_id="other", expected=100.0, pace=7.0, floor=3.0)
    path, kwargs = trigger.serialize()
    assert path == "kling_integrations.airflow.triggers.KlingVideoTrigger"
    again = KlingVideoTrigger(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (path, kwargs)


def test_the_arguments_are_ids_and_numbers():
    _, kwargs = trigger_of("id").serialize()
    assert {type(value) for value in kwargs.values()} <= {str, float}


def test_rows_that_the_first_release_wrote_load_for_ever():
    trigger = KlingVideoTrigger(
        **{
            "generation_id": "f3e1…:klingai/v2.5-turbo/pro/text-to-video",
            "kling_conn_id": "kling_default",
            "end_time": 1790000000.5,
            "submitted_at": 1789996400.5,
            "expected": 160.0,
            "spread": 0.25,
            "doubt": 0.1,
            "floor": 2.0,
            "ceiling": 60.0,
            "pace": 10.0,
        }
    )
    assert trigger.end_time == 1790000000.5
    assert trigger.schedule.numbers()["expected"] == 160.0


def test_a_row_with_the_id_alone_and_one_of_a_newer_version_load():
    assert KlingVideoTrigger(generation_id="x").end_time > time.time()
    assert KlingVideoTrigger(generation_id="x", something_new=1).generation_id == "x"


# --- the event ---------------------------------------------------------------------------------


async def test_it_yields_one_event_without_any_address(sandbox, submitted):
    (event,) = await events_of(trigger_of(submitted))
    result = from_event(json.loads(json.dumps(event)))
    assert result.generation_id == submitted
    assert result.error is None
    assert result.elapsed == pytest.approx(60, abs=60)
    assert "http" not in json.dumps(event)


async def test_a_failure_comes_back_as_the_same_error(sandbox, submitted):
    sandbox.finish(fail="moderation")
    (event,) = await events_of(trigger_of(submitted))
    error = from_event(json.loads(json.dumps(event))).error
    assert isinstance(error, GenerationFailedError)
    assert error.kind == "moderation"


async def test_the_deadline_is_wall_clock_so_a_restart_does_not_extend_it(sandbox, submitted):
    (event,) = await events_of(trigger_of(submitted, end_time=time.time() - 5))
    error = from_event(event).error
    assert isinstance(error, WaitTimeoutError)
    assert error.next_steps == (NextStep(Verb.WAIT, submitted),)
    assert str(task_error(error)).endswith(
        f"so does KlingVideoSensor(task_id=\"pick_up\", generation_id='{submitted}')"
    )
    assert sandbox.requests["poll"] == 1  # one last look


async def test_a_finish_seen_at_the_deadline_is_a_finish(sandbox, submitted):
    sandbox.finish()
    (event,) = await events_of(trigger_of(submitted, end_time=time.time() - 5))
    assert from_event(event).error is None


async def test_a_refused_key_and_a_missing_connection_are_events_and_not_raised(
    sandbox, submitted, connect, monkeypatch
):
    connect(sandbox, key="bad")
    (event,) = await events_of(trigger_of(submitted))
    assert isinstance(from_event(event).error, AuthenticationError)
    monkeypatch.setenv("AIRFLOW_CONN_NO_KEY", "kling://localhost")
    (event,) = await events_of(trigger_of(submitted, kling_conn_id="no_key"))
    assert "no API key" in str(from_event(event).error)


async def test_it_logs_when_something_changes_and_not_at_each_poll(sandbox, submitted, logged):
    sandbox.fault("poll", "503", 3)
    trigger = trigger_of(submitted, floor=2.0, ceiling=2.0)
    await events_of(trigger)
    lines = [line for line in logged().splitlines() if submitted in line]
    assert 3 <= len(lines) <= 6
    assert sandbox.requests["poll"] > len(lines)


# --- one session -------------------------------------------------------------------------------


async def test_fifty_triggers_share_one_session_that_ends_with_the_last(sandbox):
    sandbox.seconds = 900
    with KlingClient(api_key="sandbox", base_url=sandbox.base_url) as client:
        ids = [client.submit(VideoRequest(prompt=f"{n}")).id for n in range(50)]
    before = sandbox.connections
    waits = asyncio.gather(*(events_of(trigger_of(each, floor=12.0, ceiling=12.0)) for each in ids))
    sessions = set()
    while not waits.done():
        await asyncio.sleep(0.01)
        for shared in _of_loop.get(asyncio.get_running_loop(), {}).values():
            sessions.add(id(shared.client))
    assert all(from_event(event).error is None for (event,) in await waits)
    assert len(sessions) == 1
    # Kept alive: far more polls than connections, though all ask at the same time.
    assert sandbox.connections - before <= 50
    assert sandbox.requests["poll"] >= 150
    assert not _of_loop[asyncio.get_running_loop()]


async def test_the_last_one_closes_the_session(sandbox, submitted):
    async with shared_client("kling_default") as client:
        await client.get(submitted)
        session = client._here().session(fresh=False)
        assert not session.closed
    assert session.closed


async def test_another_key_is_another_session(sandbox, connect):
    async with shared_client("kling_default") as first:
        connect(sandbox, key="sandbox-rotated")
        async with shared_client("kling_default") as second:
            assert first is not second
        async with shared_client("kling_default") as third:
            assert third is not second  # the last one had left it


async def test_a_cancelled_trigger_leaves_the_session(sandbox, submitted):
    sandbox.clear_faults()
    running = asyncio.ensure_future(events_of(trigger_of(submitted, floor=60.0, ceiling=60.0)))
    loop = asyncio.get_running_loop()
    while not _of_loop.get(loop):
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not _of_loop[loop]


async def test_waiting_does_not_hold_the_event_loop(sandbox):
    with KlingClient(api_key="sandbox", base_url=sandbox.base_url) as client:
        ids = [client.submit(VideoRequest(prompt=f"{n}")).id for n in range(30)]
    sandbox.fault("poll", "slow", None, seconds=0.2)
    waits = asyncio.gather(*(events_of(trigger_of(each)) for each in ids))
    naps = []
    while not waits.done():
        began = time.perf_counter()
        await asyncio.sleep(0.01)
        naps.append(time.perf_counter() - began)
    await waits
    naps.sort()
    assert naps[len(naps) // 2] < 0.1  # a blocking poll would make each nap 0.2 s or more


# --- on_kill -----------------------------------------------------------------------------------

with_on_kill = pytest.mark.skipif(
    not hasattr(BaseTrigger, "on_kill"), reason="Airflow calls it from 3.3 on"
)


@with_on_kill
@pytest.mark.parametrize(
    ("state", "billed_alarm"),
    [("failed", True), ("success", True), ("deferred", False), ("running", False), (None, False)],
)
async def test_on_kill_alarms_only_when_nothing_waits_any_more(
    monkeypatch, logged, state, billed_alarm
):
    """Airflow also calls it on a mere move to another triggerer, and late after a clear."""
    from airflow.sdk.execution_time import task_runner as runner

    def states(**asked: Any) -> dict[str, Any]:
        assert asked["run_ids"] == ["run"]
        return {"run": {"video": state}}

    monkeypatch.setattr(runner.RuntimeTaskInstance, "get_task_states", staticmethod(states))
    trigger = trigger_of("an-id")
    trigger._task_instance = SimpleNamespace(
        dag_id="dag", run_id="run", task_id="video", map_index=-1
    )
    await trigger.on_kill()
    lines = logged()
    assert "an-id" in lines
    assert ("was marked" in lines) is billed_alarm
    # Which generation the next attempt waits for is its own decision: a clear may have changed it.
    assert "another triggerer waits" not in lines
    assert "KlingVideoSensor(task_id=" in lines
    if state in ("deferred", "running"):
        assert "unless a clear finds that its input has changed" in lines


async def test_on_kill_without_a_task_instance_or_an_answer_still_names_the_id(monkeypatch, logged):
    await trigger_of("an-id").on_kill()
    assert "an-id" in logged()


@with_on_kill
async def test_on_kill_finds_the_state_of_a_mapped_task(monkeypatch, logged):
    from airflow.sdk.execution_time import task_runner as runner

    monkeypatch.setattr(
        runner.RuntimeTaskInstance,
        "get_task_states",
        staticmethod(lambda **asked: {"run": {"video_7": "failed"}}),
    )
    trigger = trigger_of("an-id")
    trigger._task_instance = SimpleNamespace(
        dag_id="dag", run_id="run", task_id="video", map_index=7
    )
    await trigger.on_kill()
    assert "was marked failed" in logged()


@with_on_kill
async def test_on_kill_of_a_removed_task_says_nothing_of_a_clear(monkeypatch, logged):
    from airflow.sdk.execution_time import task_runner as runner

    states = {"run": {"video": "removed"}}
    monkeypatch.setattr(runner.RuntimeTaskInstance, "get_task_states", lambda **_: states)
    trigger = trigger_of("an-id")
    trigger._task_instance = SimpleNamespace(
        dag_id="dag", run_id="run", task_id="video", map_index=-1
    )
    await trigger.on_kill()
    lines = logged()
    assert "an-id" in lines
    assert "lear" not in lines.split("The task is removed")[1]
