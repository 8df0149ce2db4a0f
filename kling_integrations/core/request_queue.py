"""Which request goes next: so many at once, so many a second, likeliest done first.

Thousands of waits share one gateway, one set of connections and perhaps one limit of requests
per second. When more of them are due than may send, the next turn goes to the generation that
is likeliest to be done: asking it is likeliest to end a wait. What is no poll (a submit, the
balance) goes before all polls, in its order of arrival, and counts like them.

No request starves. A generation that is not asked becomes likelier to be done, and to that is added
its time in line, in units of AGING: after so many seconds it goes before whatever joins then.

``Line`` decides, without I/O and without a clock; ``Gate`` is its asyncio shell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf, isfinite
from typing import Any

from .settings import Clock

Likelihood = Callable[[], float]
"""The chance, from 0 to 1, that asking now finds a finished generation; read when it matters."""

AGING = 300.0
"""Seconds in line that weigh as much as certainty.

With 5 requests a second for 600 generations (``benchmarks/schedule.py``, the shared budget) this
shortens the longest time in line by a third, for less than a second of mean lateness.
"""

# Likelihoods move slowly. Ranking all of them again costs some µs each, so it is done when a second
# has passed and at least so many turns per head in line have been given out.
_STALE, _TURNS_PER_HEAD = 1.0, 0.05

# Requests that a busy event loop was too late to send are made up for, up to so many real
# seconds; what was not asked for is not saved up beyond that.
_CATCH_UP = 0.05


class Ticket:
    """A place in line. ``who`` is the caller's own value."""

    __slots__ = ("gone", "joined", "likelihood", "who")

    def __init__(self, who: Any, joined: float, likelihood: Likelihood | None) -> None:
        self.who = who
        self.joined = joined
        self.likelihood = likelihood
        self.gone = False

    def urgency(self, now: float) -> float:
        if self.likelihood is None:
            return inf
        return self.likelihood() + (now - self.joined) / AGING


class Line:
    """At most ``at_once`` turns under way, and ``per_second`` of them a second on average.

    ``now`` is in seconds and never runs backwards. In any t seconds no more turns are given than
    ``per_second`` × (t + ``catch_up``) + 1. ValueError for numbers that would never give one.
    """

    def __init__(
        self, at_once: int, per_second: float | None = None, *, catch_up: float = _CATCH_UP
    ) -> None:
        if at_once < 1:
            raise ValueError(f"At least one request at once is needed, not {at_once}.")
        if per_second is not None and not (isfinite(per_second) and per_second > 0.0):
            raise ValueError(f"A budget is a positive number of requests, not {per_second}.")
        self._at_once = at_once
        self._interval = 1.0 / per_second if per_second else 0.0
        self._catch_up = catch_up
        self._free_at = -inf  # the instant of the next turn under the budget
        self._under_way = 0
        self._heap: list[tuple[float, int, Ticket]] = []
        self._waiting = 0
        self._joined = 0
        self._ranked = -inf
        self._turns = 0  # since it was ranked

    def __len__(self) -> int:
        """How many are in line."""
        return self._waiting

    def enter(self, now: float) -> bool:
        """A turn at once, where the queue is empty and no limit forbids it."""
        if self._waiting or not self._open(now):
            return False
        self._take(now)
        return True

    def join(self, who: Any, now: float, likelihood: Likelihood | None = None) -> Ticket:
        ticket = Ticket(who, now, likelihood)
        self._push(ticket, now)
        self._waiting += 1
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Out of the line, without a turn."""
        if not ticket.gone:
            ticket.gone = True
            self._waiting -= 1
            if len(self._heap) > 2 * self._waiting + 16:  # mostly those who have left
                self._heap = [entry for entry in self._heap if not entry[2].gone]
                heapify(self._heap)

    def call(self, now: float) -> Ticket | None:
        """The ticket with the next turn, if there is one to give: it is under way then."""
        if not self._waiting or not self._open(now):
            return None
        if now - self._ranked >= _STALE and self._turns >= _TURNS_PER_HEAD * self._waiting:
            self._rank(now)
        while True:
            ticket = heappop(self._heap)[2]
            if not ticket.gone:
                break
        self.leave(ticket)
        self._take(now)
        return ticket

    def done(self) -> None:
        """A turn has ended."""
        self._under_way -= 1

    def pause(self, now: float) -> float | None:
        """Seconds until ``call`` has a turn to give; None: not before a ``done`` or ``join``."""
        if not self._waiting or self._under_way >= self._at_once:
            return None
        return max(0.0, self._free_at - now)

    def _open(self, now: float) -> bool:
        return self._under_way < self._at_once and now >= self._free_at

    def _take(self, now: float) -> None:
        self._under_way += 1
        self._turns += 1
        self._free_at = max(self._free_at, now - self._catch_up) + self._interval

    def _push(self, ticket: Ticket, now: float) -> None:
        self._joined += 1
        heappush(self._heap, (-ticket.urgency(now), self._joined, ticket))

    def _rank(self, now: float) -> None:
        # In their order in the line, so that equals keep it.
        self._heap = [
            (-ticket.urgency(now), number, ticket)
            for _, number, ticket in self._heap
            if not ticket.gone
        ]
        heapify(self._heap)
        self._ranked, self._turns = now, 0


class Gate:
    """``await turn()``, send, ``done()``. For one event loop."""

    def __init__(self, clock: Clock, at_once: int, per_second: float | None = None) -> None:
        self._clock = clock
        self._line = Line(at_once, per_second, catch_up=_CATCH_UP * clock.speed)
        self._timer: asyncio.TimerHandle | None = None

    async def turn(self, likelihood: Likelihood | None = None) -> None:
        """Returns when it is the caller's turn, which ``done`` has to end."""
        now = self._clock.now()
        if self._line.enter(now):
            return
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = self._line.join(called, now, likelihood)
        self._serve()
        try:
            await called
        except asyncio.CancelledError:
            if ticket.gone:  # called and cancelled at once: another request gets the turn
                self.done()
            else:
                self._line.leave(ticket)
            raise

    def done(self) -> None:
        self._line.done()
        self._serve()

    def _serve(self) -> None:
        now = self._clock.now()
        while ticket := self._line.call(now):
            if not ticket.who.done():
                ticket.who.set_result(None)
        if self._timer is None and (pause := self._line.pause(now)) is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._clock.real(pause), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._serve()
