"""The progress of a wait in a task's log: a line where something changed."""

from __future__ import annotations

import logging
from typing import Any

from ..core.generation import Status
from ..core.progress import Progress, clock_time


class ProgressLog:
    """Takes the progress of a wait, as ``on_update`` does; ``last`` is the newest.

    Thousands of triggers share one log writer, so a poll that brings no news is not logged.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self.last: Progress | None = None
        self._pending_at: float | None = None  # when a poll last found it unfinished
        self._logged: tuple[Status, str] | None = None
        self._trouble_at = -1  # the number of the last poll that brought trouble

    @property
    def elapsed(self) -> float | None:
        return self.last.elapsed if self.last else None

    @property
    def polls(self) -> int | None:
        return self.last.polls if self.last else None

    @property
    def late(self) -> float | None:
        """Seconds within which the finish was noticed; None where no poll came before it."""
        if self.last is None or not self.last.status.is_terminal or self._pending_at is None:
            return None
        return self.last.elapsed - self._pending_at

    def __call__(self, progress: Progress) -> None:
        asked = self.last is None or progress.polls != self.last.polls
        if asked and progress.polls and not progress.note and not progress.status.is_terminal:
            self._pending_at = progress.elapsed
        self.last = progress
        if progress.note:
            self._trouble_at = progress.polls
        elif progress.polls == self._trouble_at:
            return  # the pause before the next poll is no news
        state = (progress.status, progress.note.partition(" (")[0])
        if state == self._logged:
            return
        self._logged = state
        if not progress.polls:
            about = clock_time(progress.expected)
            self._log.info("Waiting for %s; it takes about %s.", progress.id, about)
            return
        self._log.log(logging.WARNING if progress.note else logging.INFO, "%s", progress)
