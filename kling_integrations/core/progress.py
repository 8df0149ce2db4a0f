"""How a wait stands, and the words for it: one place for every display."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp

from .generation import Generation, Status


def clock_time(seconds: float) -> str:
    """``2:05``: how people read a wait."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def ago(seconds: float) -> str:
    """A span as ``0:42``, ``3 h`` or ``12 d``, for "… ago"."""
    if seconds < 3600:
        return clock_time(seconds)
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} d"


@dataclass(frozen=True, slots=True)
class Progress:
    """How a wait stands.

    ``elapsed`` counts from the submit where that is known, ``queued`` is how much of it was spent
    in the gateway's queue; these, ``expected`` and ``next_ask`` are in seconds. ``fraction``
    never says more than 0.95 before the end; ``note`` is what the user should know (an outage,
    an odd status), or empty; ``trouble`` is an outage in full, told once when it has lasted for
    20 s, for who shows no notes.
    """

    generation: Generation
    elapsed: float
    expected: float
    fraction: float
    polls: int
    next_ask: float | None = None
    note: str = ""
    queued: float = 0.0
    trouble: str = ""

    @property
    def id(self) -> str:
        return self.generation.id

    @property
    def status(self) -> Status:
        return self.generation.status

    @property
    def word(self) -> str:
        """The status for a display: a generation of unknown status is running."""
        return "running" if self.status is Status.UNKNOWN else self.status.value

    @property
    def pace(self) -> str:
        """``0:42 of about 2:50``; late: ``3:10, usually about 2:50``; ended: ``2:47``."""
        if self.status.is_terminal:
            return clock_time(self.elapsed)
        relation = ", usually" if self.elapsed > self.expected else " of"
        return f"{clock_time(self.elapsed)}{relation} about {clock_time(self.expected)}"

    def after(self, seconds: float) -> Progress:
        """The same wait ``seconds`` later, for a display that moves between two polls.

        The fraction grows as the schedule's does: in step with time up to four fifths, then ever
        slower, and never beyond 0.95.
        """
        if self.status.is_terminal or seconds <= 0:
            return self
        fraction, part = self.fraction, seconds / self.expected
        if self.status is not Status.QUEUED:
            straight = min(part, max(0.0, (0.8 - fraction) / 0.8))
            fraction += 0.8 * straight
            if part > straight:
                fraction = 0.95 - (0.95 - fraction) * exp(-0.8 / 0.15 * (part - straight))
        return replace(
            self,
            elapsed=self.elapsed + seconds,
            fraction=max(self.fraction, min(fraction, 0.95)),
            next_ask=None if self.next_ask is None else max(0.0, self.next_ask - seconds),
        )

    def __str__(self) -> str:
        """``generating · 0:42 of about 2:50 · id · note``."""
        return " · ".join(filter(None, (self.word, self.pace, self.id, self.note)))
