"""How a wait stands, between two polls and at its end."""

import pytest

from kling_integrations.core.generation import Generation, Status
from kling_integrations.core.progress import Progress
from kling_integrations.core.schedule import Schedule


def progress(elapsed, expected=100.0, status=Status.GENERATING):
    schedule = Schedule(expected=expected, spread=0.3, doubt=0.1)
    return Progress(Generation("x", status), elapsed, expected, schedule.progress(elapsed), 3, 20.0)


@pytest.mark.parametrize("elapsed", [0.0, 30.0, 79.0, 100.0, 140.0, 900.0])
def test_between_two_polls_the_bar_goes_on_as_the_schedule_would(elapsed):
    for seconds in (0.0, 1.0, 25.0, 60.0, 3600.0):
        moved = progress(elapsed).after(seconds)
        assert moved.fraction == pytest.approx(progress(elapsed + seconds).fraction, abs=1e-6)
        assert moved.fraction <= 0.95
        assert moved.elapsed == elapsed + seconds


def test_the_bar_stands_still_in_a_queue_and_at_the_end():
    queued = progress(10.0, status=Status.QUEUED)
    assert queued.after(50.0).fraction == queued.fraction
    done = progress(100.0, status=Status.COMPLETED)
    assert done.after(50.0) is done
