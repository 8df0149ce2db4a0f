"""How a batch shows itself in a log: a line once in a while, each row without a video at once."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from kling_integrations.commands import _console
from kling_integrations.commands._console import Console
from kling_integrations.core.batch.results import Result, RowStatus
from kling_integrations.core.batch.tally import Tally


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(_console.time, "monotonic", lambda: now.seconds)
    return now


def test_a_log_gets_the_first_counts_soon_and_the_next_ones_rarely(clock):
    console = Console(io.StringIO(), io.StringIO())
    tally = Tally(100, running=20)
    console.count()  # nothing is known yet
    console.tally(tally)
    for _ in range(8):  # nothing changes for two seconds
        console.count()
        clock.seconds += 0.25
    assert console.err.getvalue().splitlines() == ["0 of 100 done · 20 running"]
    for number in range(40):  # a row ends every quarter of a second
        tally.end(Result(number, str(number), RowStatus.COMPLETED))
        console.tally(tally)
        console.count()
        clock.seconds += 0.25
    lines = console.err.getvalue().splitlines()
    assert 2 <= len(lines) <= 4
    assert lines[-1].startswith("3")


def test_a_row_without_a_video_is_said_at_once(clock):
    console = Console(io.StringIO(), io.StringIO())
    tally = Tally(2)
    bad = Result(2, "b", RowStatus.FAILED)
    bad.end(RowStatus.FAILED, "moderation", "it was refused")
    tally.end(bad)
    console.tally(tally)
    console.tally(tally)
    assert console.err.getvalue() == "row 2: failed (moderation): it was refused\n"
