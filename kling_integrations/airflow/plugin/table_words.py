"""A table of videos in words for its page. Plain text throughout: the templates escape it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ...core import cost
from ...core.batch.results import RowStatus
from ...core.progress import clock_time
from .rows import TaskVideo
from .tables import Line, Table
from .words import Card

_WORDS = {
    RowStatus.RUNNING: "Waiting for the video.",
    RowStatus.UNCERTAIN: "Its POST has no known outcome.",
    RowStatus.NOT_SUBMITTED: "Not submitted yet.",
    RowStatus.COMPLETED: "The video was not saved.",
}


@dataclass(frozen=True, slots=True)
class Board:
    """How the table stands; ``table`` is None before its first round has ended."""

    card: Card
    table: Table | None
    trouble: str = ""

    @property
    def video(self) -> TaskVideo:
        return self.card.video

    @property
    def is_live(self) -> bool:
        return self.card.is_live

    @property
    def headline(self) -> str:
        if self.trouble or self.card.mood == "failed":
            return self.trouble or self.card.headline
        if self.table is None:
            return "No row has been submitted yet." if self.is_live else "There are no results."
        return ""

    @property
    def fraction(self) -> float:
        return self.table.ended / self.table.total if self.table and self.table.total else 0.0

    @property
    def counts(self) -> str:
        table = self.table
        if table is None:
            return ""
        done, running = table.counts[RowStatus.COMPLETED], table.counts[RowStatus.RUNNING]
        waiting = table.waiting
        parts = [
            f"{done} of {table.total} done",
            f"{table.bad} without a video" if table.bad else "",
            f"{running} running" if running else "",
            f"{waiting} waiting" if waiting else "",
        ]
        return " · ".join(filter(None, parts))

    @property
    def rows(self) -> list[tuple[str, str]]:
        table = self.table
        if table is None:
            return []
        left = None if table.ends_at is None else table.ends_at - time.time()
        end = "" if left is None else f"in about {clock_time(left)}" if left > 0 else "any moment"
        return [
            (name, value)
            for name, value in (
                ("Spent", cost.dollars(table.usd) if table.usd else ""),
                ("Expected end", end if self.is_live else ""),
                ("Videos", str(self.video.told or "")),
                ("Results", str(self.video.results or "")),
            )
            if value
        ]

    @property
    def state(self) -> str:
        """Another text after each change that is to be seen."""
        return f"{self.video.state} {self.video.try_number} {self.counts}"


@dataclass(frozen=True, slots=True)
class RowCard:
    """One row of the table."""

    video: TaskVideo
    line: Line

    @property
    def address(self) -> dict[str, Any]:
        """What its file's address has beside the task instance's."""
        result = self.line.result
        return {"row": result.row, "v": str(result.sha256 or "")[:12]}

    @property
    def is_playable(self) -> bool:
        return self.video.path_of(self.line.result) is not None

    @property
    def words(self) -> str:
        result = self.line.result
        if self.line.is_bad or result.error:
            return str(result.error or "It ended without a video.")
        if result.status == RowStatus.COMPLETED and result.path:
            return "The file is not where this task was told to save, so it is not opened here."
        return _WORDS.get(RowStatus(result.status), "")

    @property
    def summary(self) -> str:
        result = self.line.result
        usd = result.expected_usd if result.usd is None else result.usd
        is_paid = result.status in (RowStatus.COMPLETED, RowStatus.RUNNING)
        price = cost.dollars(usd) if usd and is_paid else ""
        seconds = result.seconds
        took = clock_time(seconds) if isinstance(seconds, int | float) else ""
        return " · ".join(filter(None, (self.kind, price, took)))

    @property
    def kind(self) -> str:
        return str(self.line.result.error_kind or "") if self.line.is_bad else ""
