"""Any order of submits, crashes, retries, lost replies and lost ledgers: never paid twice."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from kling_integrations import (
    GenerationFailedError,
    KlingClient,
    KlingError,
    Ledger,
    LedgerError,
    Status,
    SubmissionUncertainError,
    VideoRequest,
    WaitTimeoutError,
)
from kling_integrations.core import submission
from kling_integrations.core.http import requests_transport as transport
from kling_integrations.core.schedule import JITTER
from kling_integrations.core.submission import Record, State
from kling_integrations.core.waiting import Patience
from kling_integrations.sandbox import Sandbox

LOST_REPLIES = ("drop-after", "hang-after", "no-id", "not-http")
DOUBTFUL = ("drop-before", "503", "redirect")
NAMED = ("502-after", "429-after", "400-after", "cut-json", "html")
REFUSED = ("400", "403")


class Crash(BaseException):
    """The end of the process, as far as the code that runs can tell."""


@contextlib.contextmanager
def crashing(place: str) -> Iterator[None]:
    """Ends a ledgered submit at one of its steps, as SIGKILL would: no handler gets to write."""
    undo: list[Any] = []

    def crash_in(owner: Any, name: str, *, after: bool) -> None:
        inner = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            if after:
                inner(*args, **kwargs)
            dead[0] = True
            raise Crash(place)

        undo.append((owner, name, inner))
        setattr(owner, name, step)

    dead = [False]
    match place:
        case "before the intent":
            crash_in(Record, "intent", after=False)
        case "after the intent":
            crash_in(Ledger, "claim", after=True)
        case "before the POST":
            crash_in(transport, "exchange", after=False)
        case "after the POST":
            crash_in(transport, "exchange", after=True)
        case "before the id is written":
            crash_in(Ledger, "advance", after=False)
        case "after the id is written":
            crash_in(Ledger, "advance", after=True)
    # A dead process writes nothing more.
    advance = Ledger.advance

    def only_alive(self: Ledger, record: Record) -> None:
        if dead[0]:
            raise Crash(place)
        advance(self, record)

    if not place.endswith("written"):
        undo.append((Ledger, "advance", advance))
        Ledger.advance = only_alive  # type: ignore[method-assign]
    try:
        yield
    finally:
        for owner, name, inner in reversed(undo):
            setattr(owner, name, inner)


CRASHES = (
    "before the intent",
    "after the intent",
    "before the POST",
    "after the POST",
    "before the id is written",
    "after the id is written",
)


class World(RuleBasedStateMachine):
    """One user, one ledger, a few wishes; ``intended`` counts what may be paid for each."""

    wishes = Bundle("wishes")
    gateway: Sandbox

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kling-world-"))
        self.gateway.clear_faults()
        self.before = set(self.gateway.jobs)
        self.intended: dict[str, int] = {}
        self.told: set[str] = set()  # ids and client request ids that an error or a result named
        self.forgotten: set[str] = set()  # paid before the ledger was lost
        self.ended: dict[str, State] = {}
        self.dice = 0
        submission.time = time  # type: ignore[attr-defined]

    def teardown(self) -> None:
        shutil.rmtree(getattr(self, "folder", "/nonexistent"), ignore_errors=True)

    # --- what a user and the world can do ---------------------------------------------------

    @rule(target=wishes)
    @precondition(lambda self: self.dice < 2)
    def wish(self) -> str:
        self.dice += 1
        prompt = f"{self.folder.name} {self.dice}"
        self.intended[prompt] = 0
        return prompt

    @rule(prompt=wishes)
    def generate(self, prompt: str) -> None:
        self._submit(prompt)

    @rule(prompt=wishes)
    def generate_to_the_end(self, prompt: str) -> None:
        self._submit(prompt, wait=True)

    @rule(prompt=wishes, fault=st.sampled_from(LOST_REPLIES + DOUBTFUL + NAMED + REFUSED))
    def generate_through_a_fault(self, prompt: str, fault: str) -> None:
        options = {"header": False} if fault == "503" else {}
        self.gateway.fault("submit", fault, match=prompt, **options)
        self._submit(prompt)
        self.gateway.clear_faults()

    @rule(prompt=wishes, place=st.sampled_from(CRASHES))
    def crash(self, prompt: str, place: str) -> None:
        with crashing(place), contextlib.suppress(Crash):
            self._submit(prompt)

    @rule(prompt=wishes)
    def pay_for_another(self, prompt: str) -> None:
        self._submit(prompt, new=True)

    @rule(prompt=wishes)
    def two_ask_at_once(self, prompt: str) -> None:
        self._expect_one(prompt, new=False)
        results: list[object] = []

        def work() -> None:
            results.append(self._call(prompt))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        in_doubt = {
            entry.prompt
            for entry in self.ledger.uncertain(self._base_url)
            if entry.record.state is State.INTENT
        }
        assert len(set(results)) == 1, results
        assert (None in results) == (prompt in in_doubt)

    @rule(prompt=wishes)
    def it_ends_badly(self, prompt: str) -> None:
        for job in self._jobs(prompt):
            if not job.is_terminal:
                self.gateway.finish(job.id, fail="provider")

    @rule(prompt=wishes)
    def it_ends_badly_and_that_is_seen(self, prompt: str) -> None:
        self.it_ends_badly(prompt)
        for job in self._jobs(prompt):
            if job.fail and self.ledger.entry(self._base_url, job.id):
                with KlingClient("k", self._base_url, ledger=self.ledger) as client:
                    with pytest.raises(GenerationFailedError):
                        client.wait(job.id)

    @rule(prompt=wishes)
    def it_ends_well(self, prompt: str) -> None:
        for job in self._jobs(prompt):
            self.gateway.finish(job.id)

    @rule()
    def look_up_what_is_open(self) -> None:
        with KlingClient("k", self.gateway.base_url, ledger=self.ledger) as client:
            found = client.recover()
        for each in found:
            if each.generation_id:
                job = self.gateway.jobs[each.generation_id]
                assert job.client_request_id == each.entry.record.client_request_id

    @rule()
    def the_clock_is_set_back(self) -> None:
        real = time.time
        self.skew = getattr(self, "skew", 0.0) + 3600
        skew = self.skew
        # Only what records read: everything else runs on the monotonic clock.
        submission.time = _Clock(lambda: real() - skew)  # type: ignore[attr-defined]

    @rule()
    def the_ledger_is_lost(self) -> None:
        """A user who deletes it gives up its protection, so the counting starts anew."""
        for file in self.folder.glob("ledger*"):
            file.unlink()
        for prompt in self.intended:
            self.forgotten |= {job.id for job in self._jobs(prompt)}
            self.intended[prompt] = 0
        self.ended = {}

    # --- what must hold ----------------------------------------------------------------------

    @invariant()
    def nothing_is_paid_that_nobody_intended(self) -> None:
        for prompt, intended in getattr(self, "intended", {}).items():
            paid = [job for job in self._jobs(prompt) if job.id not in self.forgotten]
            assert len(paid) <= intended, (prompt, paid)

    @invariant()
    def every_paid_id_is_known_to_the_ledger_or_told(self) -> None:
        if not hasattr(self, "folder"):
            return
        uncertain = {
            entry.record.client_request_id for entry in self.ledger.uncertain(self._base_url)
        }
        for prompt in self.intended:
            for job in self._jobs(prompt):
                if job.id in self.forgotten:
                    continue
                known = self.ledger.entry(self._base_url, job.id) is not None
                assert known or job.client_request_id in uncertain, (prompt, job)

    @invariant()
    def a_terminal_state_is_never_left(self) -> None:
        if not hasattr(self, "folder"):
            return
        for entry in self.ledger.history(1000):
            key = entry.record.client_request_id
            before = self.ended.get(key)
            if before is not None:
                assert entry.record.state is before, (before, entry)
            if entry.record.state in (State.COMPLETED, State.FAILED, State.REFUSED):
                self.ended[key] = entry.record.state

    # --- the machine ---------------------------------------------------------------------------

    @property
    def _base_url(self) -> str:
        return self.gateway.base_url

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger.sqlite3")

    def _jobs(self, prompt: str) -> list[Any]:
        return [
            job
            for id, job in self.gateway.jobs.items()
            if id not in self.before and job.prompt == prompt
        ]

    def _expect_one(self, prompt: str, new: bool) -> None:
        """How much may be paid for after this call: one, and one more for each that was asked
        for on purpose or that ended without being billed."""
        unbilled = sum(
            job.is_terminal and job.fail is not None and job.id not in self.forgotten
            for job in self._jobs(prompt)
        )
        if new:
            self.intended[prompt] += 1
        self.intended[prompt] = max(self.intended[prompt], 1 + unbilled)

    def _submit(self, prompt: str, *, new: bool = False, wait: bool = False) -> None:
        self._expect_one(prompt, new)
        self._call(prompt, new=new, wait=wait)

    def _call(self, prompt: str, *, new: bool = False, wait: bool = False) -> str | None:
        patience = Patience(first=0.1, most=1.0)
        client = KlingClient(
            "k", self._base_url, ledger=self.ledger, timeout=0.3, patience=patience
        )
        with client:
            try:
                generation = client.submit(VideoRequest(prompt=prompt), new=new)
                if wait:
                    generation = client.wait(generation.id, timeout=30)
            except SubmissionUncertainError as error:
                assert error.client_request_id
                assert "client.recover()" in str(error)
                return None
            except (GenerationFailedError, WaitTimeoutError) as error:
                assert error.generation_id in self.gateway.jobs
                return None
            except LedgerError:
                raise
            except KlingError:
                return None
        assert generation.id in self.gateway.jobs
        assert not wait or generation.status is Status.COMPLETED
        return generation.id


class _Clock:
    """``time`` as the records see it."""

    def __init__(self, now: Any) -> None:
        self.time = now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.fixture
def world() -> Iterator[type[World]]:
    with Sandbox(speed=1000, seconds=float("inf"), size=(160, 90), fps=8) as sandbox:
        World.gateway = sandbox
        yield World
    submission.time = time


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "examples", [80, pytest.param(800, marks=(pytest.mark.slow, pytest.mark.exhaustive))]
)
def test_no_interleaving_pays_twice_or_loses_what_was_paid(world, examples):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        world,
        settings=settings(
            max_examples=examples,
            stateful_step_count=16,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- the schedule's own two promises ------------------------------------------------------------


def test_a_wait_never_sleeps_past_its_deadline_nor_asks_faster_than_its_floor():
    import random

    from hypothesis import given

    from kling_integrations.core.generation import Generation
    from kling_integrations.core.payloads import Reply
    from kling_integrations.core.protocol import Endpoint, Trouble
    from kling_integrations.core.schedule import Schedule
    from kling_integrations.core.waiting import Ask, Sleep, waiting

    bodies = st.sampled_from(
        [
            Reply(200, {}, b'{"status": "queued"}'),
            Reply(200, {}, b'{"status": "generating"}'),
            Reply(200, {}, b'{"status": "paused"}'),
            Reply(503, {"retry-after": "7"}, b""),
            Reply(404, {}, b""),
            Reply(429, {"retry-after": "1e9"}, b""),
            Trouble("no reply"),
        ]
    )

    @settings(max_examples=200, deadline=None)
    @given(
        replies=st.lists(bodies, min_size=1, max_size=60),
        timeout=st.floats(0, 4000),
        elapsed=st.none() | st.floats(0, 1e8),
        interval=st.none() | st.floats(1, 100),
        finished=st.lists(st.floats(1, 1e6), max_size=5),
        lateness=st.floats(0, 5),
        seed=st.integers(0, 2**32),
    )
    def check(replies, timeout, elapsed, interval, finished, lateness, seed):
        schedule = Schedule.expecting("v2.5-turbo-pro", duration=5, finished=finished)
        if interval:
            schedule = schedule.every(interval)
        clock = [1000.0]
        steps = waiting(
            Endpoint("https://api.example", "k"),
            Generation("gen-1", Status.UNKNOWN),
            schedule=schedule,
            now=lambda: clock[0],
            elapsed=elapsed,
            timeout=timeout,
            patience=Patience(),
            rng=random.Random(seed),
        )
        deadline = clock[0] + timeout
        outcome, asked, well = None, None, False
        queue = list(replies)
        try:
            while True:
                action = steps.send(outcome)
                outcome = None
                match action:
                    case Sleep(seconds):
                        assert seconds > 0
                        assert clock[0] + seconds <= deadline + 1e-6
                        clock[0] += seconds
                    case Ask():
                        if asked is not None and well and clock[0] < deadline - 1e-6:
                            assert clock[0] - asked >= schedule.floor * (1 - JITTER) - 1e-6
                        clock[0] += lateness
                        asked = clock[0]
                        outcome = queue.pop(0) if queue else Reply(200, {}, b'{"status": "queued"}')
                        well = isinstance(outcome, Reply) and outcome.status == 200
        except KlingError as error:
            assert error.generation_id == "gen-1"

    check()
