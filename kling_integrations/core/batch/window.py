"""How many generations may be under way at once: up to what the user says, less where 429 says so.

No I/O and no clock: ``now`` is handed in, in seconds. How many the gateway allows is a matter of
the user's contract and documented nowhere, so it is learned: a batch begins with a few, takes one
more with each that is accepted, and after a 429 keeps to what was running then. Above that it
tries one more ever more rarely.
"""

from __future__ import annotations

_FIRST = 4  # submitted at once, before anything is known
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds without a submit after a 429
_MOST_PATIENT = 16  # times the limit in acceptances before one more is tried again


class Window:
    """Slots for generations. A slot is entered before a POST and left when the generation ends.

    ``limit`` and ``patience`` are what an earlier one has learned, see ``learned``.
    """

    def __init__(self, at_once: int, limit: int | None = None, patience: int = 1) -> None:
        if at_once < 1:
            raise ValueError(f"At least one generation at once is needed, not {at_once}.")
        self.at_once = at_once
        self.limit = min(at_once, _FIRST if limit is None else limit)
        self.posting = 0
        self.running = 0
        self.blocked_since: float | None = None
        """Since when no POST has been taken, of those that were tried; None where one was."""
        self._learned = limit is not None
        self._resume_at = float("-inf")
        self._pause = _PAUSE
        self._accepted = 0  # since the limit last changed
        self._patience = min(patience, _MOST_PATIENT)

    @property
    def learned(self) -> tuple[int | None, int]:
        """The limit that 429s have taught (None: there was none) and the patience."""
        return (self.limit if self._learned else None), self._patience

    @property
    def under_way(self) -> int:
        return self.posting + self.running

    def is_free(self, now: float) -> bool:
        """Whether one more may be submitted."""
        return self.under_way < self.limit and now >= self._resume_at

    def has_room(self) -> bool:
        """Whether one that runs already may be attended to."""
        return self.under_way < self.at_once

    def pause(self, now: float) -> float:
        """Seconds for which no POST may leave, whatever is free."""
        return max(0.0, self._resume_at - now)

    def post(self) -> None:
        """A POST leaves."""
        self.posting += 1

    def attach(self) -> None:
        """One that runs already is attended to: so many are surely allowed, and a few more."""
        self.running += 1
        if not self._learned:
            self.limit = min(self.at_once, max(self.limit, self.running + _FIRST))

    def accepted(self) -> None:
        """A POST was taken: its generation runs."""
        self.posting -= 1
        self.running += 1
        self.blocked_since = None
        self._pause = _PAUSE
        self._accepted += 1
        self.limit = max(self.limit, min(self.running, self.at_once))
        if self.limit >= self.at_once:
            return
        due = 1 if not self._learned else self.limit * self._patience
        if self._accepted >= due:
            self.limit, self._accepted = self.limit + 1, 0

    def dropped(self) -> None:
        """A POST ended without a generation, for a reason that says nothing about the limit."""
        self.posting -= 1

    def refused(self, now: float) -> None:
        """A POST was answered 429: no more than what is running, and not at once."""
        if now >= self._resume_at and self._learned and self._accepted < self.limit:
            self._patience = min(2 * self._patience, _MOST_PATIENT)  # one more was tried in vain
        self.unreachable(now)
        self._learned = True
        self.limit, self._accepted = max(1, self.running), 0

    def unreachable(self, now: float) -> None:
        """A POST was surely not taken, and the next one would not be either: a pause."""
        self.posting -= 1
        if self.blocked_since is None:
            self.blocked_since = now
        if now >= self._resume_at:  # POSTs that left together are one refusal
            self._resume_at = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def ended(self, now: float) -> None:
        """A generation ended: where 429s stand in the way, its place is free now."""
        self.running -= 1
        if self.blocked_since is not None:
            self._resume_at = min(self._resume_at, now)
