"""How far several jobs are, item by item and in total: the part of a grid that moves."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Sequence
from html import escape

from ...commands import one_line
from ...core import catalog, settings
from ...core.progress import clock_time
from ..job import Job, JobStatus
from ..options import options
from .grid import Cell, label
from .markup import SMALL, progress_bar, short_model

_MOST_ROWS = 12  # items side by side; of more there is the number


class Board:
    """The text of it. It knows when it began; drawing it is the caller's."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = [cell for cell in cells if cell.job]
        self._began = time.monotonic()

    @property
    def is_over(self) -> bool:
        return all(cell.job.status.is_over for cell in self._cells if cell.job)

    def html(self) -> str:
        """A line for all, then one for each that is with the gateway."""
        running, waiting = [], 0
        for cell in self._cells:
            assert cell.job is not None
            if cell.job.status is JobStatus.WAITING_FOR_SLOT:
                waiting += 1
            elif not cell.job.status.is_over:
                running.append(_row(cell, cell.job))
        more = len(running) - _MOST_ROWS
        tail = [f"{more} more are running"] if more > 0 else []
        tail += [f"{waiting} wait for a slot ({options().at_once} at once)"] if waiting else []
        words = f'<div style="{SMALL}">{escape(" · ".join(tail))}</div>' if tail else ""
        return (
            '<div role="group" aria-label="Progress" style="line-height:1.6;max-width:'
            f'{2 * options().width}px">{self._total()}{"".join(running[:_MOST_ROWS])}{words}</div>'
        )

    def _total(self) -> str:
        jobs = [cell.job for cell in self._cells if cell.job]
        over = sum(job.status.is_over for job in jobs)
        fraction = sum(1.0 if job.status.is_over else job.fraction for job in jobs) / len(jobs)
        speed = settings.clock_for(jobs[0].base_url).speed
        parts = [
            f"{over} of {len(jobs)}",
            f"{clock_time((time.monotonic() - self._began) * speed)} so far",
        ]
        left = seconds_left(jobs, options().at_once)
        if left is not None:
            parts.append(f"about {clock_time(left)} left" if left >= 1 else "any moment now")
        return f"<div>{progress_bar(fraction, 'All videos')} {escape(' · '.join(parts))}</div>"


def _row(cell: Cell, job: Job) -> str:
    name = label(cell.differs) or one_line(job.prompt, 40) or short_model(job.model)
    words = " · ".join(filter(None, (job.status, job.pace, one_line(job.note, 120))))
    return (
        f"<div>{progress_bar(job.fraction, name)} <b>{escape(name)}</b> "
        f'<span style="{SMALL}">{escape(words)}</span></div>'
    )


def seconds_left(jobs: Iterable[Job], at_once: int) -> float | None:
    """Gateway seconds until all are expected to be over, ``at_once`` side by side.

    None where nothing is known of how long one takes. What is later than expected counts as done
    at any moment.
    """
    slots: list[float] = []
    waiting: list[float] = []
    for job in jobs:
        expected = job.expected or _usual_seconds(job)
        if job.status.is_over:
            continue
        if expected is None:
            return None
        if job.status is JobStatus.WAITING_FOR_SLOT:
            waiting.append(expected)
        else:
            slots.append(max(0.0, expected - job.elapsed))
    end = max(slots, default=0.0)
    slots += [0.0] * (at_once - len(slots))
    heapq.heapify(slots)
    for seconds in waiting:
        done = heapq.heappop(slots) + seconds
        end = max(end, done)
        heapq.heappush(slots, done)
    return end


def _usual_seconds(job: Job) -> float | None:
    known = catalog.candidates(job.model)
    duration = job.params.get("duration")
    return known[0].expected_seconds(duration) if len(known) == 1 else None
