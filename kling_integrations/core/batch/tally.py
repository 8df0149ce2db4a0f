"""How a batch stands, for every display: counts, money, expected end. No I/O and no clock."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from .. import cost
from ..progress import clock_time
from .results import Result, RowStatus

_NEWEST = 12  # finished rows that a display may show


@dataclass(slots=True)
class Tally:
    """Counts of one batch. Money in USD, times in real seconds.

    ``paid_now`` are the generations that this run submitted; ``expected`` is how long one takes.
    ``submitting`` are POSTs without a reply so far. ``newest`` are the last rows with a video,
    ``bad`` the last without one.
    """

    total: int
    limit: int = 0
    submitting: int = 0
    running: int = 0
    paid_now: int = 0
    spent: float = 0.0
    reserved: float = 0.0
    max_cost: float | None = None
    expected: float = 0.0
    note: str = ""
    ended: Counter[str] = field(default_factory=Counter)
    newest: deque[Result] = field(default_factory=lambda: deque(maxlen=_NEWEST))
    bad: deque[Result] = field(default_factory=lambda: deque(maxlen=_NEWEST))

    @property
    def done(self) -> int:
        return self.ended[RowStatus.COMPLETED]

    @property
    def failed(self) -> int:
        """Rows that ended without a video."""
        return self.ended.total() - self.done

    @property
    def waiting(self) -> int:
        return max(0, self.total - self.ended.total() - self.submitting - self.running)

    @property
    def fraction(self) -> float:
        return self.ended.total() / self.total if self.total else 1.0

    def end(self, result: Result) -> None:
        self.ended[result.status] += 1
        if result.status == RowStatus.COMPLETED:
            self.newest.append(result)
        else:
            self.bad.append(result)

    def left(self) -> float | None:
        """Seconds until all rows have ended, if it goes on like this; None where nothing says."""
        if not self.expected or not (self.waiting or self.submitting or self.running):
            return None
        rounds = (self.waiting + self.submitting) / max(1, self.limit)
        return self.expected * (rounds + (1.0 if self.waiting else 0.5))

    def line(self) -> str:
        """``12 of 50 done · 3 without a video · 5 running · about 12:30 left · $6.00 of $25``."""
        parts = [f"{self.done} of {self.total} done"]
        if self.failed:
            parts.append(f"{self.failed} without a video")
        if self.submitting:
            parts.append(f"{self.submitting} submitting")
        parts.append(f"{self.running} running")
        left = self.left()
        if left is not None:
            parts.append(f"about {clock_time(left)} left")
        if self.spent or self.max_cost is not None:
            of = "" if self.max_cost is None else f" of {cost.dollars(self.max_cost)}"
            parts.append(f"{cost.dollars(self.spent)}{of}")
        return " · ".join(filter(None, (*parts, self.note)))
