"""What a client does for a verb, without a client: the actions of a flow, carried out by hand."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest

from kling_integrations import (
    KlingWarning,
    LedgerError,
    RateLimitedError,
    ServerError,
    StoppedWaiting,
    VideoRequest,
)
from kling_integrations.core.flows import Flows
from kling_integrations.core.payloads import Reply
from kling_integrations.core.protocol import Endpoint, Sent, Trouble
from kling_integrations.core.settings import Clock
from kling_integrations.core.storage.team_ledger import LEASE
from kling_integrations.core.submission import Action, Decision, Record, State
from kling_integrations.core.waiting import Ask, OnDisk, Patience, Sleep, submitting

REQUEST = VideoRequest(prompt="a")
TAKEN = Reply(200, {}, b'{"id": "gen-1", "status": "queued"}')


class Lock:
    def __init__(self, log: list[str], busy: int = 0) -> None:
        self.log, self.busy, self.held = log, busy, False

    def try_acquire(self) -> bool:
        self.busy -= 1
        self.held = self.busy < 0
        self.log.append("lock" if self.held else "lock is taken")
        return self.held

    def release(self) -> None:
        assert self.held
        self.held = False
        self.log.append("release")


class Records:
    """A ledger that only writes down what it was asked for."""

    def __init__(self, busy: int = 0, full: bool = False) -> None:
        self.log: list[str] = []
        self.full = full
        self.held = Lock(self.log, busy)

    def lock(self, request: VideoRequest) -> Lock:
        return self.held

    def claim(self, request: VideoRequest, base_url: str, **_: Any) -> tuple[Decision, Record]:
        self.log.append("intent")
        return Decision(Action.SUBMIT, "new"), Record.intent(request)

    def advance(self, record: Record) -> None:
        if self.full:
            raise LedgerError("The disk is full.")
        self.log.append(f"{record.state} {record.generation_id}")


def submit(records: Records, *outcomes: Any, stop: bool = False) -> Any:
    """Drives a submit; each POST gets the next outcome. Returns what the flow returns."""
    flow = Flows(
        Endpoint("https://gateway.example", "key"),
        Clock(),
        Patience(),
        records,  # type: ignore[arg-type]
    ).submit(REQUEST)
    answers = iter(outcomes)
    result, raised = None, None
    while True:
        try:
            action = flow.send(result) if raised is None else flow.throw(raised)
        except StopIteration as done:
            return done.value
        result = raised = None
        try:
            match action:
                case OnDisk(work):
                    result = work()
                case Ask(call):
                    records.log.append(call.method)
                    result = next(answers)
                    if isinstance(result, BaseException):
                        raise result
                case Sleep():
                    if stop:
                        raise StoppedWaiting()
                    records.log.append("sleep")
        except BaseException as error:
            raised = error


def test_the_intent_is_written_before_the_post_and_the_id_right_after_it():
    records = Records()
    assert submit(records, TAKEN).id == "gen-1"
    assert records.log == ["lock", "intent", "POST", "submitted gen-1", "release"]


def test_a_taken_lock_is_asked_for_again_and_nothing_is_decided_meanwhile():
    records = Records(busy=2)
    submit(records, TAKEN)
    waits = ["lock is taken", "sleep", "lock is taken", "sleep"]
    assert records.log == [*waits, "lock", "intent", "POST", "submitted gen-1", "release"]


def test_after_two_seconds_the_user_hears_what_is_waited_for():
    records = Records(busy=41)
    with pytest.warns(KlingWarning, match="Another process is submitting the same request") as seen:
        submit(records, TAKEN)
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        submit(Records(busy=30), TAKEN)


def test_an_interrupt_while_the_lock_is_taken_releases_nothing_and_writes_nothing():
    records = Records(busy=2)
    with pytest.raises(StoppedWaiting):
        submit(records, stop=True)
    assert records.log == ["lock is taken"]


def test_a_refusal_closes_the_record_and_releases_the_lock():
    records = Records()
    with pytest.raises(Exception, match="key"):
        submit(records, Reply(401, {}, b"{}"))
    assert records.log == ["lock", "intent", "POST", "refused None", "release"]


def test_a_post_in_doubt_leaves_the_intent_open():
    records = Records()
    with pytest.raises(Exception, match="may have been taken"):
        submit(records, Trouble("connection lost", Sent.MAYBE))
    assert records.log == ["lock", "intent", "POST", "release"]


def test_an_interrupt_between_two_posts_closes_the_record():
    records = Records()
    with pytest.raises(StoppedWaiting):
        submit(records, Reply(429, {}, b"{}"), stop=True)
    assert records.log == ["lock", "intent", "POST", "refused None", "release"]


def test_an_interrupt_while_an_error_that_names_an_id_is_confirmed_keeps_the_id():
    records = Records()
    with pytest.raises(StoppedWaiting) as caught:
        submit(
            records,
            Reply(500, {"x-inference-id": "gen-7"}, b"{}"),
            Reply(404, {}, b'{"message": "not found"}'),
            stop=True,
        )
    assert caught.value.generation_id == "gen-7"
    assert records.log == ["lock", "intent", "POST", "GET", "submitted gen-7", "release"]


def test_what_a_carrier_raises_in_the_post_leaves_the_intent_open():
    records = Records()
    with pytest.raises(MemoryError):
        submit(records, MemoryError())
    assert records.log == ["lock", "intent", "POST", "release"]


def test_a_flow_that_is_dropped_in_the_post_releases_the_lock_and_keeps_the_intent():
    records = Records()
    flow = Flows(
        Endpoint("https://gateway.example", "key"),
        Clock(),
        Patience(),
        records,  # type: ignore[arg-type]
    ).submit(REQUEST)
    action = next(flow)
    while isinstance(action, OnDisk):
        action = flow.send(action.work())
    assert isinstance(action, Ask)
    flow.close()
    assert records.log == ["lock", "intent", "release"]


def test_an_id_that_cannot_be_written_down_is_named_in_the_error():
    records = Records(full=True)
    with pytest.raises(LedgerError, match=r"gen-1 was submitted.*disk is full") as caught:
        submit(records, TAKEN)
    assert caught.value.generation_id == "gen-1"
    assert records.log == ["lock", "intent", "POST", "release"]


def test_a_refusal_is_what_is_raised_also_where_the_record_cannot_be_closed():
    records = Records(full=True)
    with pytest.raises(Exception, match="key") as caught:
        submit(records, Reply(401, {}, b"{}"))
    assert not isinstance(caught.value, LedgerError)
    assert "disk is full" in "".join(caught.value.__notes__)


def test_nothing_submitted_is_a_closed_record():
    records = Records()
    refused = [Trouble("connection refused", Sent.NO)] * 50
    clock = iter(range(0, 10_000, 5))
    records_clock = Clock()
    records_clock.now = lambda: float(next(clock))  # type: ignore[method-assign]
    flows = Flows(
        Endpoint("https://gateway.example", "key"),
        records_clock,
        Patience(),
        records,  # type: ignore[arg-type]
    )
    flow = flows.submit(REQUEST)
    answers = iter(refused)
    action = next(flow)
    with pytest.raises(ServerError, match="Nothing was submitted"):
        while True:
            action = flow.send(
                action.work()
                if isinstance(action, OnDisk)
                else next(answers)
                if isinstance(action, Ask)
                else None
            )
    assert records.log[-2:] == [f"{State.REFUSED} None", "release"]


# --- a lease -----------------------------------------------------------------------------------


def leave_after(seconds, lease, monkeypatch):
    """A submit whose POST gets its turn so long after its intent, by both clocks."""
    records, moment = Records(), [0.0]
    records.lease = lease
    clock = Clock()
    monkeypatch.setattr(clock, "now", lambda: moment[0])
    flow = Flows(
        Endpoint("https://gateway.example", "key"),
        clock,
        Patience(),
        records,  # type: ignore[arg-type]
    ).submit(REQUEST)
    action = flow.send(None)
    while not isinstance(action, Ask):
        assert isinstance(action, OnDisk)
        action = flow.send(action.work())
    moment[0] = seconds
    try:
        if action.before:
            action.before()
    except RateLimitedError as lapsed:
        with pytest.raises(RateLimitedError, match="Nothing was submitted"):
            action = flow.throw(lapsed)
            while True:
                action = flow.send(action.work())
        return records.log
    return "leaves"


@pytest.mark.parametrize(
    ("seconds", "lease", "leaves"),
    [(10.0, 300.0, True), (239.0, 300.0, True), (241.0, 300.0, False), (1e6, None, True)],
)
def test_a_post_leaves_only_while_others_cannot_take_its_intent_for_one_left_behind(
    monkeypatch, seconds, lease, leaves
):
    came = leave_after(seconds, lease, monkeypatch)
    if leaves:
        assert came == "leaves"
    else:
        assert came[-2:] == ["refused None", "release"]


@pytest.mark.parametrize("pause", [1, 90, 101, 110, 119, 120])
def test_the_tries_of_one_submit_end_long_before_a_lease_does(pause):
    moment, left = [0.0], []
    flow = submitting(
        Endpoint("https://gateway.example", "key"),
        REQUEST,
        "kling-1",
        now=lambda: moment[0],
        patience=Patience(),
        rng=random.Random(1),
    )
    with pytest.raises(RateLimitedError):
        action = flow.send(None)
        while True:
            if isinstance(action, Ask):
                left.append(moment[0])
                moment[0] += 1.0
                action = flow.send(Reply(429, {"retry-after": str(pause)}, b"{}"))
            else:
                moment[0] += action.seconds
                action = flow.send(None)
    assert left
    assert left[-1] < 0.8 * LEASE
