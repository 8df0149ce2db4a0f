"""What a client remembers of its submits: when they were, what to expect, what became of them.

Its own memory first, then the ledger where there is one. Both clients use it.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .errors import KlingError, KlingWarning, LedgerError
from .generation import Generation
from .progress import Progress
from .request import VideoRequest
from .schedule import Schedule
from .settings import Clock

if TYPE_CHECKING:
    from .generation import Saved
    from .storage.ledger import Ledger

T = TypeVar("T")

_MOST = 20_000  # generations remembered by one client


class Memory:
    """Thread-safe. With a ledger its calls touch the disk."""

    def __init__(self, base_url: str, clock: Clock, ledger: Ledger | None) -> None:
        self._base_url = base_url
        self._clock = clock
        self._ledger = ledger
        self._known: OrderedDict[str, tuple[float, str, int | None]] = OrderedDict()
        self._lock = threading.Lock()

    def submitted(self, generation_id: str, moment: float, request: VideoRequest) -> None:
        """``moment``: when its POST left, on the client's clock."""
        with self._lock:
            self._known[generation_id] = (moment, request.model, request.duration)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)

    def expectation(
        self, generation: Generation, poll_interval: float | None
    ) -> tuple[Schedule, float | None]:
        """The schedule to wait by, and the seconds since the submit (None when unknown)."""
        elapsed, model, duration = self._recall(generation)
        finished: list[float] = []
        if model:
            finished = self._ask(
                lambda ledger: ledger.finished(self._base_url, model, duration), []
            )
        schedule = Schedule.expecting(
            model,
            duration=duration,
            finished=finished,
        )
        # A fixed interval replaces when to ask, not what to expect.
        return (schedule.every(poll_interval) if poll_interval else schedule), elapsed

    def _recall(self, generation: Generation) -> tuple[float | None, str | None, int | None]:
        with self._lock:
            known = self._known.get(generation.id)
        if known:
            moment, model, duration = known
            return max(0.0, self._clock.now() - moment), model, duration
        entry = self._ask(lambda ledger: ledger.entry(self._base_url, generation.id), None)
        if entry is None:
            return None, generation.model, None
        since = time.time() - entry.since
        return max(0.0, since) * self._clock.speed, entry.record.model, entry.duration

    def completed(self, generation: Generation, last: Progress | None) -> None:
        """``last``: how the wait stood at its end; a finish that was seen to happen teaches."""
        # One poll only means that it was over already, nobody knows for how long.
        seen = last is not None and last.polls > 1
        elapsed = last.elapsed - last.queued if last and seen else None
        self._ask(lambda ledger: ledger.completed(self._base_url, generation, elapsed), None)

    def failed(self, error: KlingError) -> None:
        self._ask(lambda ledger: ledger.wait_failed(self._base_url, error), None)

    def saved(self, generation_id: str, saved: Saved) -> None:
        self._ask(lambda ledger: ledger.saved(self._base_url, generation_id, saved), None)

    def _ask(self, work: Callable[[Ledger], T], otherwise: T) -> T:
        """Beside a generation that is paid for, a ledger out of order is a warning, no error."""
        if self._ledger is None:
            return otherwise
        try:
            return work(self._ledger)
        except LedgerError as error:
            warnings.warn(f"{error.message} The generation itself goes on.", KlingWarning, 4)
            return otherwise
