"""Whose turn it is: the decision on a clock of numbers, and its shell over real sockets."""

import asyncio
import random

import pytest

from kling_integrations import AsyncKlingClient
from kling_integrations.core.request_queue import AGING, Gate, Line
from kling_integrations.core.schedule import Schedule
from kling_integrations.core.settings import Clock


def called(line: Line, now: float) -> list[str]:
    """Everybody who has a turn now; the turns end at once."""
    names = []
    while ticket := line.call(now):
        names.append(ticket.who)
        line.done()
    return names


def test_the_likeliest_to_be_done_goes_first():
    line = Line(at_once=1)
    assert line.enter(0.0)
    for name, likelihood in (("low", 0.1), ("high", 0.9), ("middle", 0.5)):
        line.join(name, 0.0, lambda likelihood=likelihood: likelihood)
    line.done()
    assert called(line, 1.0) == ["high", "middle", "low"]


def test_what_is_no_poll_goes_before_all_polls_in_its_order_of_arrival():
    line = Line(at_once=1)
    line.enter(0.0)
    line.join("poll", 0.0, lambda: 1.0)
    line.join("submit", 5.0)
    line.join("balance", 6.0)
    line.done()
    assert called(line, 7.0) == ["submit", "balance", "poll"]


def test_equals_are_served_in_their_order_of_arrival_also_after_a_new_ranking():
    line = Line(at_once=1)
    line.enter(0.0)
    for number in range(50):
        line.join(str(number), 0.0, lambda: 0.5)
    line.done()
    assert called(line, 100.0) == [str(number) for number in range(50)]


def test_a_likelihood_that_has_grown_in_line_counts():
    line, now = Line(at_once=1, per_second=1.0), 0.0
    line.enter(now)
    line.done()
    chances = {"steady": 0.5, "growing": 0.1}
    for name in chances:
        line.join(name, now, lambda name=name: chances[name])
    chances["growing"] = 0.9
    assert called(line, 10.0) == ["growing"]


def test_nobody_starves_beside_others_that_are_always_likelier():
    line, now = Line(at_once=1, per_second=1.0), 0.0
    line.join("patient", now, lambda: 0.0)
    served = []
    while "patient" not in served:
        line.join("pushing", now, lambda: 1.0)
        line.join("pushing", now, lambda: 1.0)  # more come than can ever be served
        served += called(line, now)
        now += 1.0
        assert now <= 2 * AGING + 10.0  # all that joined in its first AGING went before


@pytest.mark.parametrize("rate", [0.3, 5.0, 400.0])
def test_no_window_of_time_holds_more_turns_than_the_budget(rate):
    line, rng, now, taken = (
        Line(at_once=1000, per_second=rate, catch_up=0.05),
        random.Random(2),
        0,
        [],
    )
    for _ in range(3000):
        now += rng.expovariate(rate * 1.5)
        if len(line) < 50:
            line.join("poll", now, lambda: 0.5)
        taken += [now] * len(called(line, now))
    assert len(taken) > 1000
    for first in range(0, len(taken), 7):
        for last in range(first, min(first + 300, len(taken)), 13):
            span = taken[last] - taken[first]
            assert last - first + 1 <= rate * (span + 0.05) + 1 + 1e-6


def test_a_loop_that_was_late_makes_up_for_it_and_an_idle_one_saves_nothing_up():
    line = Line(at_once=100, per_second=128.0, catch_up=1 / 16)
    for _ in range(100):
        line.join("poll", 0.0, lambda: 0.5)
    assert len(called(line, 0.0)) == 9  # one, and what the catch-up holds
    assert len(called(line, 3 / 128)) == 3  # three slots went by at once: none is lost
    assert len(called(line, 3 / 128)) == 0
    assert len(called(line, 10.0)) == 9


def test_the_pause_is_the_time_until_the_next_turn():
    line = Line(at_once=2, per_second=4.0)
    assert line.pause(0.0) is None  # nobody waits
    assert line.enter(0.0)
    line.join("poll", 0.1)
    assert line.call(0.1) is None
    assert 0.1 + line.pause(0.1) == pytest.approx(0.25, abs=0.06)
    assert line.call(0.1 + line.pause(0.1)).who == "poll"
    line.join("other", 9.0)
    assert line.pause(9.0) is None  # two are under way: only a done() helps
    line.done()
    assert line.pause(9.0) == 0.0


def test_who_leaves_takes_no_turn_and_no_room():
    line = Line(at_once=1)
    line.enter(0.0)
    tickets = [line.join(number, 0.0, lambda: 0.5) for number in range(10_000)]
    for ticket in tickets[:-1]:
        line.leave(ticket)
    assert len(line) == 1
    assert len(line._heap) < 50
    line.done()
    assert called(line, 0.0) == [9999]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_would_never_let_anybody_through_is_refused(rate):
    with pytest.raises(ValueError, match="budget"):
        Line(1, rate)
    with pytest.raises(ValueError, match="budget"):
        AsyncKlingClient("sandbox", "http://127.0.0.1:1", max_requests_per_second=rate)


def test_ranking_thousands_anew_is_not_done_for_every_turn():
    line, looks = Line(at_once=1, per_second=10.0), 0

    def likelihood() -> float:
        nonlocal looks
        looks += 1
        return 0.5

    line.enter(0.0)
    line.done()
    for number in range(2000):
        line.join(number, 0.0, likelihood)
    now = 0.0
    while len(line):
        now += 0.1
        called(line, now)
    assert looks <= 2000 * 25


# --- the shell ---------------------------------------------------------------------------------


async def test_a_cancelled_wait_for_a_turn_leaves_it_to_the_next():
    gate = Gate(Clock(), at_once=1)
    await gate.turn()
    first, second = (asyncio.ensure_future(gate.turn(lambda: 0.5)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    gate.done()
    await asyncio.wait_for(second, 5)
    assert first.cancelled()


async def test_a_turn_given_to_one_that_is_cancelled_at_that_moment_is_not_lost():
    gate = Gate(Clock(), at_once=1)
    await gate.turn()
    first, second = (asyncio.ensure_future(gate.turn(lambda: 0.5)) for _ in range(2))
    await asyncio.sleep(0)
    gate.done()  # the turn is the first one's now
    first.cancel()
    await asyncio.wait_for(second, 5)
    assert first.cancelled()


async def test_all_generations_are_done_within_the_budget(sandbox, raccoon):
    # 2 requests per gateway second: 2,000 a second at this speed.
    options = dict(connections=5, max_requests_per_second=2)
    async with AsyncKlingClient("sandbox", sandbox.base_url, **options) as client:
        begin = client.clock.now()
        done = await asyncio.gather(*(client.generate(raccoon) for _ in range(40)))
        took = client.clock.now() - begin
    assert {g.id for g in done} == set(sandbox.jobs)
    assert len(done) == 40
    catch_up = 0.05 * sandbox.speed
    assert sandbox.requests.total() <= 2 * (took + catch_up) + 1


async def test_polls_carry_the_likelihood_that_grows_since_the_last_look(sandbox, raccoon):
    seen: list[float] = []

    class Looking(AsyncKlingClient):
        async def exchange(self, call, likelihood=None):
            if likelihood:
                seen.append(likelihood())
            else:
                assert call.method == "POST"
            return await super().exchange(call, likelihood)

    async with Looking("sandbox", sandbox.base_url) as client:
        generation = await client.submit(raccoon)
        await client.wait(
            generation.id, schedule=Schedule.expecting(None), elapsed=0.0, timeout=4000
        )
    assert len(seen) > 2
    assert all(0.0 < chance < 1.0 for chance in seen)
