"""What is cut off: cancelled, interrupted, forked, on a loop that has ended. It pays for nothing
later, leaves no doubt where nothing left, and never mixes up two generations."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
import warnings
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from support.raw_gateway import http

from kling_integrations import (
    AsyncKlingClient,
    InvalidRequestError,
    KlingClient,
    KlingError,
    KlingWarning,
    Ledger,
    Status,
    StoppedWaiting,
    SubmissionUncertainError,
    VideoRequest,
)
from kling_integrations.core.errors import SubmittingEndedError
from kling_integrations.core.submission import State
from kling_integrations.core.waiting import Patience
from kling_integrations.sandbox import Sandbox

SLOW_DOWN = "submit:429:*:retry_after=0.3"


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite3")


async def posted(sandbox, count=1):
    while len(sandbox.posts) < count:
        await asyncio.sleep(0.005)


def states(ledger):
    return [entry.state for entry in ledger.history()]


# --- cancelled ---------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [False, True])
async def test_a_submit_cancelled_between_two_posts_sends_none_later(ledger, raccoon, recorded):
    with Sandbox(speed=1, faults=[SLOW_DOWN]) as sandbox:
        client = AsyncKlingClient("sandbox", sandbox.base_url, ledger=ledger if recorded else None)
        submit = asyncio.ensure_future(client.submit(raccoon))
        await posted(sandbox)
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
        await client.close()  # waits for what is under way
        assert len(sandbox.posts) == 1
        assert states(ledger) == [State.REFUSED] * recorded


async def test_a_submit_cancelled_in_line_sends_nothing_and_leaves_its_turn(ledger, raccoon):
    with Sandbox(speed=1) as sandbox:
        async with AsyncKlingClient(
            "sandbox", sandbox.base_url, ledger=ledger, max_requests_per_second=0.5
        ) as client:
            await client.submit(raccoon)
            second = asyncio.ensure_future(client.submit(VideoRequest(prompt="second")))
            while len(ledger.history()) < 2:
                await asyncio.sleep(0.005)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
        assert len(sandbox.posts) == 1
        assert ledger.uncertain(sandbox.base_url) == []


async def test_a_cancellation_while_the_intent_is_written_closes_it(sandbox, ledger, raccoon):
    claimed, written = threading.Event(), threading.Event()

    class Slow(Ledger):
        def claim(self, *args, **options):
            made = super().claim(*args, **options)
            claimed.set()
            assert written.wait(10)
            return made

    async with AsyncKlingClient("sandbox", sandbox.base_url, ledger=Slow(ledger.path)) as client:
        submit = asyncio.ensure_future(client.submit(raccoon))
        await asyncio.to_thread(claimed.wait)
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
        written.set()
    assert not sandbox.posts
    assert states(ledger) == [State.REFUSED]


def test_a_loop_that_ends_before_the_post_leaves_no_doubt(ledger, raccoon):
    with Sandbox(speed=1, faults=[SLOW_DOWN]) as sandbox:

        async def ends_early():
            client = AsyncKlingClient("sandbox", sandbox.base_url, ledger=ledger)
            submit = asyncio.ensure_future(client.submit(raccoon))
            await posted(sandbox)
            await asyncio.sleep(0.05)  # the refusal has come
            assert not submit.done()

        asyncio.run(ends_early())
        assert len(sandbox.posts) == 1
        assert states(ledger) == [State.REFUSED]


async def test_a_post_that_has_left_is_let_finish(sandbox, ledger, raccoon):
    sandbox.fault("submit", "slow", seconds=0.3)
    async with AsyncKlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        submit = asyncio.ensure_future(client.submit(raccoon))
        await posted(sandbox)
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
    [generation_id] = sandbox.jobs
    assert ledger.entry(sandbox.base_url, generation_id).state is State.SUBMITTED


async def test_who_ends_submitting_ends_what_waits_for_its_turn_at_once(ledger, raccoon):
    with Sandbox(speed=1) as sandbox:
        async with AsyncKlingClient(
            "sandbox", sandbox.base_url, ledger=ledger, max_requests_per_second=0.01
        ) as client:
            await client.submit(raccoon)
            others = [
                asyncio.ensure_future(client.submit(VideoRequest(prompt=str(number))))
                for number in range(3)
            ]
            while len(ledger.history()) < 4:
                await asyncio.sleep(0.005)
            client.end_submitting()
            for ended in await asyncio.wait_for(
                asyncio.gather(*others, return_exceptions=True), 10
            ):
                assert isinstance(ended, SubmittingEndedError)
        assert len(sandbox.posts) == 1
        assert ledger.uncertain(sandbox.base_url) == []


# --- interrupted -------------------------------------------------------------------------------


class OfTheHandler(BaseException):
    """As Airflow's AirflowTaskTimeout."""


class OfTheUser(KeyboardInterrupt):
    pass


@contextmanager
def interrupting(error):
    """``interrupt()`` raises it in this thread, as a signal's handler does."""

    def handler(*_):
        raise error

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def when_posted(sandbox, act):
    """Calls it in a thread, once the first POST has come."""

    def wait():
        while not sandbox.posts:
            time.sleep(0.005)
        act()

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.parametrize("kind", [OfTheHandler, OfTheUser, KeyboardInterrupt])
def test_what_a_signal_raises_between_two_posts_is_raised_and_nothing_is_sent(
    ledger, raccoon, kind
):
    with Sandbox(speed=1, faults=["submit:429:*:retry_after=20"]) as sandbox:
        client = KlingClient("sandbox", sandbox.base_url, ledger=ledger)
        with interrupting(kind()) as interrupt, pytest.raises(BaseException) as caught:
            when_posted(sandbox, interrupt)
            client.submit(raccoon)
        assert type(caught.value) is (StoppedWaiting if kind is KeyboardInterrupt else kind)
        assert caught.value.generation_id is None
        assert caught.value.client_request_id is None
        assert len(sandbox.posts) == 1
    assert states(ledger) == [State.REFUSED]


@pytest.mark.parametrize("kind", [OfTheHandler, OfTheUser, KeyboardInterrupt])
def test_what_a_signal_raises_during_a_post_carries_the_id_of_its_reply(
    sandbox, ledger, raccoon, kind
):
    sandbox.fault("submit", "slow", seconds=0.3)
    client = KlingClient("sandbox", sandbox.base_url, ledger=ledger)
    with interrupting(kind()) as interrupt, pytest.raises(BaseException) as caught:
        when_posted(sandbox, interrupt)
        client.submit(raccoon)
    [generation_id] = sandbox.jobs
    assert caught.value.generation_id == generation_id
    assert isinstance(caught.value, KeyboardInterrupt if kind is KeyboardInterrupt else kind)
    assert states(ledger) == [State.SUBMITTED]


# --- forked, and on several loops --------------------------------------------------------------


def in_child(work):
    """The exit code of a forked process that does this; it ends without any of pytest's endings."""

    def body():
        os._exit(0 if work() else 1)

    child = multiprocessing.get_context("fork").Process(target=body)
    child.start()
    child.join(20)
    if child.is_alive():
        child.kill()
        return "hangs"
    return child.exitcode


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_makes_its_own_connection_also_where_a_lock_was_held_at_the_fork(sandbox):
    with KlingClient("sandbox", sandbox.base_url) as client:
        client.balance()
        before = sandbox.connections
        with client._lock, client._flows._lock:
            assert in_child(client.balance) == 0
        assert sandbox.connections == before + 1
        client.balance()
        assert sandbox.connections == before + 1  # the parent's is as it was


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed")
def test_a_child_of_a_client_on_a_loop_makes_its_own_connection_too(sandbox, raccoon):
    async def used():
        async with AsyncKlingClient("sandbox", sandbox.base_url) as client:
            await client.balance()
            before = sandbox.connections
            code = await asyncio.to_thread(in_child, lambda: asyncio.run(client.balance()))
            assert (code, sandbox.connections) == (0, before + 1)
            await client.balance()
            assert sandbox.connections == before + 1

    asyncio.run(used())


@pytest.mark.filterwarnings("ignore:unclosed")
def test_one_client_in_several_loops_one_after_another_and_side_by_side(sandbox, ledger):
    client = AsyncKlingClient("sandbox", sandbox.base_url, ledger=ledger)
    done = []

    def one(number):
        request = VideoRequest(prompt=str(number))
        done.append(asyncio.run(client.generate(request)))

    for number in range(3):
        one(number)
    threads = [threading.Thread(target=one, args=(number,)) for number in range(3, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.id for each in done} == set(sandbox.jobs)
    assert len(sandbox.posts) == 6
    assert set(states(ledger)) == {State.COMPLETED}
    asyncio.run(client.close())


# --- said before anything is paid --------------------------------------------------------------

NO_SPAN = ["600", "", True, float("nan"), -1, [600], {}, timedelta(seconds=-1)]


@pytest.mark.parametrize("value", NO_SPAN, ids=repr)
@pytest.mark.parametrize("name", ["timeout", "poll_interval"])
def test_what_is_no_span_is_refused_before_the_post(front, sandbox, raccoon, name, value):
    options = {name: value}
    if name == "timeout":  # the helper takes it for the client's
        with pytest.raises(InvalidRequestError, match=name):
            front.run(sandbox.base_url, "submit", raccoon, **options)
    with pytest.raises(InvalidRequestError, match=name):
        generate(front, sandbox, raccoon, **options)
    assert not sandbox.posts


def generate(front, sandbox, request, **options):
    if front.kind == "sync":
        with KlingClient("sandbox", sandbox.base_url) as client:
            return client.generate(request, **options)

    async def on_loop():
        async with AsyncKlingClient("sandbox", sandbox.base_url) as client:
            return await client.generate(request, **options)

    return asyncio.run(on_loop())


@pytest.mark.parametrize("timeout", [None, timedelta(hours=1), Decimal(3600), 3600])
def test_a_span_may_be_none_a_number_or_a_timedelta(front, sandbox, raccoon, timeout):
    interval = timedelta(seconds=10)
    done = generate(front, sandbox, raccoon, timeout=timeout, poll_interval=interval)
    assert done.status is Status.COMPLETED


@pytest.mark.parametrize(
    ("verb", "args", "options"),
    [
        ("submit", ["a prompt"], {}),
        ("submit", [VideoRequest(prompt="a")], {"client_request_id": "a\nb"}),
        ("submit", [VideoRequest(prompt="a")], {"client_request_id": 7}),
        ("submit", [VideoRequest(prompt="a")], {"take": "2"}),
        ("generate", [VideoRequest(prompt="a")], {"on_update": "print"}),
        ("wait", ["gen-1"], {"on_update": 1}),
        ("wait", ["gen-1"], {"schedule": 10}),
        ("wait", ["gen-1"], {"elapsed": "3"}),
        ("save", ["gen-1", "a.mp4"], {"progress": True}),
    ],
)
def test_arguments_of_another_kind_are_refused_in_a_sentence(front, sandbox, verb, args, options):
    async def on_loop():
        async with AsyncKlingClient("sandbox", sandbox.base_url) as client:
            await getattr(client, verb)(*args, **options)

    with pytest.raises(InvalidRequestError, match=" not "):
        if front.kind == "sync":
            getattr(KlingClient("sandbox", sandbox.base_url), verb)(*args, **options)
        else:
            asyncio.run(on_loop())
    assert not sandbox.requests


@pytest.mark.parametrize(
    "options", [{"timeout": "60"}, {"timeout": 0}, {"ledger": "a.sqlite3"}, {"patience": 5}]
)
@pytest.mark.parametrize("kind", [KlingClient, AsyncKlingClient])
def test_a_client_is_made_of_what_it_takes_or_not_at_all(kind, options):
    with pytest.raises(InvalidRequestError):
        kind("sandbox", "http://127.0.0.1:1", **options)
    assert kind("sandbox", "http://127.0.0.1:1", timeout=None).timeout == 60.0


def test_what_a_callback_raises_names_the_generation(front, sandbox, raccoon):
    def broken(progress):
        raise ZeroDivisionError("of the user")

    with pytest.raises(ZeroDivisionError) as caught:
        generate(front, sandbox, raccoon, on_update=broken)
    assert [caught.value.generation_id] == list(sandbox.jobs)


@pytest.mark.parametrize("encoding", ["closed", "ascii"])
def test_a_progress_that_cannot_be_shown_costs_no_video(
    front, sandbox, raccoon, tmp_path, encoding
):
    with open(tmp_path / "log", "w", encoding="ascii") as stream:
        if encoding == "closed":
            stream.close()

        def show(progress):
            print("\N{CIRCLE WITH UPPER RIGHT QUADRANT BLACK}", progress, file=stream, flush=True)

        with pytest.warns(KlingWarning, match="cannot be shown"):
            done = generate(front, sandbox, raccoon, on_update=show)
    assert done.status is Status.COMPLETED


def test_warnings_as_errors_end_no_wait_for_what_is_paid(front, sandbox, raccoon):
    sandbox.fault("poll", "odd-status", word="paused", times=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KlingWarning)
        assert generate(front, sandbox, raccoon).status is Status.COMPLETED


# --- replies about others ----------------------------------------------------------------------


async def test_an_id_that_a_client_has_for_another_request_is_not_taken(gateway):
    cached = gateway(*[http("201 Created", b'{"id": "gen-1", "status": "queued"}')] * 2)
    async with AsyncKlingClient("sandbox", cached.base_url) as client:
        assert (await client.submit(VideoRequest(prompt="one"))).id == "gen-1"
        with pytest.raises(SubmissionUncertainError, match="gen-1"):
            await client.submit(VideoRequest(prompt="two"))


def test_a_reply_about_another_generation_is_asked_for_again(front, sandbox, raccoon):
    seen = []
    sandbox.fault("poll", "id-changes", times=2)
    done = generate(front, sandbox, raccoon, on_update=seen.append)
    assert done.id in sandbox.jobs
    assert any("another generation" in progress.note for progress in seen)


def test_an_outage_that_lasts_is_told_to_who_sees_no_progress(sandbox, raccoon):
    with KlingClient("sandbox", sandbox.base_url, patience=Patience(outage=900)) as client:
        generation = client.submit(raccoon)
        sandbox.fault("poll", "503", times=None)
        told = pytest.warns(KlingWarning, match=r"No usable answer for .*goes on")
        with told, pytest.raises(KlingError):
            client.wait(generation.id, timeout=600)
