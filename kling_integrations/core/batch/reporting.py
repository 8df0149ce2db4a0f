"""What a run says while it goes on: each row as it ends, and how the whole stands."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

from ..errors import KlingWarning
from .budget import Budget
from .plan import Need, Step
from .results import RowStatus, now_iso
from .tally import Tally
from .window import Window


class Reporter:
    """``on_result`` is called with each step as its row ends, ``on_change`` with the tally."""

    def __init__(
        self,
        tally: Tally,
        window: Window,
        budget: Budget,
        on_result: Callable[[Step], object] | None = None,
        on_change: Callable[[Tally], object] | None = None,
    ) -> None:
        self.tally = tally
        self._window = window
        self._budget = budget
        self._on_result = on_result
        self._on_change = on_change

    def end(self, step: Step, status: RowStatus, kind: str, message: str) -> None:
        """The row ends without a video, or without its file."""
        step.result.end(status, kind, message)
        self.row(step)

    def row(self, step: Step) -> None:
        """The row has its result."""
        if step.need is not Need.NOTHING:
            step.result.finished_at = now_iso(time.time())
        self.tally.end(step.result)
        if self._on_result and step.need is not Need.NOTHING:
            self._on_result(step)
        self.changed()

    def changed(self) -> None:
        tally, window = self.tally, self._window
        tally.submitting, tally.running = window.posting, window.running
        tally.limit = window.limit
        tally.spent = self._budget.spent
        tally.reserved = self._budget.reserved
        if self._on_change:
            try:
                self._on_change(tally)
            except Exception as error:  # noqa: BLE001 (what is paid for is waited for without it)
                self._on_change = None
                warnings.warn(f"The progress is shown no more: {error}", KlingWarning, 2)
