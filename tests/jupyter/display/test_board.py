"""How far several jobs are: item by item, in total, and what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from kling_integrations.core.generation import Generation, Status
from kling_integrations.core.progress import Progress
from kling_integrations.jupyter.display.board import Board, seconds_left
from kling_integrations.jupyter.display.grid import Cell
from kling_integrations.jupyter.job import Job, JobStatus
from kling_integrations.jupyter.targets import Target


def job(status: JobStatus, elapsed: float = 0, expected: float = 100) -> Job:
    made = Job(
        None,
        base_url="https://api.aimlapi.com",
        target=Target(Path.cwd(), "kling_outputs"),
        timeout=1,
        generation_id="an-id",
        summary={"model": "of-nobody", "prompt": "A <b>cat</b>"},
    )
    running = Generation(id="an-id", status=Status.GENERATING)
    made.progressed(Progress(running, elapsed, expected, elapsed / expected, 1))
    made._status = status
    return made


GENERATING, WAITING = JobStatus.GENERATING, JobStatus.WAITING_FOR_SLOT


@pytest.mark.parametrize(
    ("jobs", "at_once", "left"),
    [
        ([(GENERATING, 40)], 5, 60),
        ([(GENERATING, 40), (GENERATING, 10)], 5, 90),
        ([(GENERATING, 40), (WAITING, 0)], 1, 160),  # one after the other
        ([(GENERATING, 40), (WAITING, 0)], 2, 100),  # at once
        ([(GENERATING, 40), (GENERATING, 90), *[(WAITING, 0)] * 3], 2, 210),
        ([(GENERATING, 130)], 5, 0),  # late: any moment
        ([(JobStatus.COMPLETED, 90)], 5, 0),
    ],
)
def test_what_is_left_is_counted_over_the_slots(jobs, at_once, left):
    made = [job(status, elapsed) for status, elapsed in jobs]
    assert seconds_left(made, at_once) == pytest.approx(left, abs=0.5)


def test_what_is_left_is_unknown_where_no_length_is_known():
    unknown = job(WAITING)
    unknown._progress = None
    assert seconds_left([unknown], 5) is None


def test_the_board_shows_those_that_run_and_counts_those_that_wait():
    cells = [Cell({"take": str(n)}, job(GENERATING, 50)) for n in range(15)]
    cells += [Cell({}, job(WAITING)) for _ in range(85)]
    html = Board(cells).html()
    assert html.count("<progress") == 1 + 12
    assert "0 of 100" in html
    assert "take=11" in html
    assert "0:50 of about 1:40" in html
    assert "3 more are running · 85 wait for a slot (5 at once)" in html
    assert len(html) < 6_000  # a second


def test_an_item_without_a_difference_is_named_by_its_prompt():
    assert "A &lt;b&gt;cat" in Board([Cell({}, job(GENERATING))]).html()
