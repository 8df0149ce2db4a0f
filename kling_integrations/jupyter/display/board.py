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
from .markup import BEAT, SMALL, clock, progress_bar, short_model
from .strip import pace

_MOST_ROWS = 12  # items side by side; of more there is the number


class Board:
    """The text of it. It knows when it began; drawing it is the caller's."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = [cell for cell in cells if cell.job]
        self._began = time.monotonic()

    @property
    def is_over(self) -> bool:
        return all(cell.job.status.is_over for cell in self._cells if cell.job)

    @property
    def key(self) -> object:
        """What it shows but for the time."""
        jobs = (cell.job for cell in self._cells if cell.job)
        return tuple((job.status, job.note, round(job.expected or 0)) for job in jobs)

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
        now = sum(_part(job) for job in jobs) / len(jobs)
        later = sum(_part(job, BEAT) for job in jobs) / len(jobs)
        speed = settings.clock_for(jobs[0].base_url).speed
        elapsed = (time.monotonic() - self._began) * speed
        so_far = clock(f"{clock_time(elapsed)} so far", elapsed=elapsed, speed=speed)
        parts = [f"{over} of {len(jobs)}", so_far]
        left = seconds_left(jobs, options().at_once)
        if left is not None:
            words = f"about {clock_time(left)} left" if left >= 1 else "any moment now"
            parts.append(clock(words, left=left, speed=speed))
        return f"<div>{progress_bar(now, 'All videos', later)} {' · '.join(parts)}</div>"


def _part(job: Job, seconds: float = 0.0) -> float:
    """How much of a job is done after so many real seconds more. A failed one is done, too."""
    return 1.0 if job.status.is_over else job.fraction_in(seconds)


def _row(cell: Cell, job: Job) -> str:
    name = label(cell.differs) or one_line(job.prompt, 40) or short_model(job.model)
    words = " · ".join(
        filter(None, (escape(job.status), pace(job), escape(one_line(job.note, 120))))
    )
    return (
        f"<div>{progress_bar(job.fraction, name, job.fraction_in(BEAT))} <b>{escape(name)}</b> "
        f'<span style="{SMALL}">{words}</span></div>'
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
