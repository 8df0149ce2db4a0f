"""A grid that fills up: how often it is drawn, and that its end is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kling_integrations.core.generation import Generation, Status
from kling_integrations.jupyter.display import grid_view
from kling_integrations.jupyter.display.grid import Cell
from kling_integrations.jupyter.display.grid_view import GridView
from kling_integrations.jupyter.frontend import HTML, Ui
from kling_integrations.jupyter.job import Job
from kling_integrations.jupyter.targets import Target


class Handle:
    """One display, and how often it was drawn."""

    def __init__(self, html: str) -> None:
        self.shown = [html]

    def update(self, data: dict[str, Any], **_: Any) -> None:
        self.shown.append(data.get("text/html", ""))


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    made: list[Handle] = []

    def publish(bundle: Any, **_: Any) -> Handle:
        made.append(Handle(bundle[0].get("text/html", "")))
        return made[-1]

    monkeypatch.setattr(grid_view, "choose_ui", lambda: Ui(HTML, False))
    monkeypatch.setattr(grid_view, "publish", publish)
    monkeypatch.setattr("kling_integrations.jupyter.display.live_html.publish", publish)
    return made


def job(number: int) -> Job:
    return Job(
        None,
        base_url="https://api.aimlapi.com",
        target=Target(Path.cwd(), "kling_outputs"),
        timeout=1,
        generation_id=f"id-{number}",
        summary={"model": "a-model", "prompt": "A cat"},
    )


def test_a_hundred_changes_at_once_are_a_few_drawings_and_the_last_one_is_drawn(displays):
    jobs = [job(number) for number in range(100)]
    GridView([Cell({"take": str(n)}, each) for n, each in enumerate(jobs)], prompt="A cat").begin()
    board, grid = displays
    for each in jobs:
        each.submitted(Generation(id=each.id, status=Status.GENERATING))
    assert len(grid.shown) <= 3
    for each in jobs:
        each.failed(ValueError("no"))
    assert len(grid.shown) <= 6
    assert grid.shown[-1].count("✖") == 100  # as it stands at the end
    assert board.shown[-1] == ""  # and the board is taken away
