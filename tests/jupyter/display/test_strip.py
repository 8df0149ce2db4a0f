"""The live strip of a job: what it sends and when, its button, what it leaves."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from kling_integrations.core.generation import Generation, Status
from kling_integrations.core.progress import Progress
from kling_integrations.jupyter.display import live_html
from kling_integrations.jupyter.display.strip import LOAD, STOP, Strip
from kling_integrations.jupyter.frontend import WIDGET, Ui
from kling_integrations.jupyter.job import Job
from kling_integrations.jupyter.targets import Target
from kling_integrations.jupyter.video import KlingVideo

RUNNING = Generation(id="an-id", status=Status.GENERATING)


def job() -> Job:
    made = Job(
        None,
        base_url="https://api.aimlapi.com",
        target=Target(Path.cwd(), "kling_outputs"),
        timeout=1,
        generation_id="an-id",
        summary={"model": "a-model", "prompt": "A <b>cat</b>"},
    )
    made.progressed(Progress(RUNNING, 42, 170, 0.2, 1))
    return made


def video(path: Path) -> KlingVideo:
    return KlingVideo(id="an-id", saved_as=path, model="a-model", prompt="A cat", poster=b"jpeg")


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(live_html, "time", made)
    return made


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What every widget has sent."""
    from kling_integrations.jupyter.display.live_widget import LiveWidget

    made: list[dict[str, Any]] = []
    say = LiveWidget.say

    def noting(self: LiveWidget, **changes: Any) -> None:
        made.append(changes)
        say(self, **changes)

    monkeypatch.setattr(LiveWidget, "say", noting)
    return made


def strip(job: Job, *, button: bool = True, alone: bool = False) -> Strip:
    made = Strip(job, Ui(WIDGET, False), button=button, alone=alone)
    made.begin()
    return made


def test_while_only_time_passes_one_message_in_ten_seconds_is_sent(clock, sent):
    made = strip(job())
    for _ in range(60):
        clock.now += 1
        made.update()
    assert len(sent) == 1 + 6


def test_a_change_is_sent_at_once(clock, sent):
    one = job()
    made = strip(one)
    clock.now += 1
    one.note = "The gateway does not answer"
    made.update()
    assert "does not answer" in sent[-1]["html"]


def test_the_page_is_told_where_the_clock_stands_and_how_fast_it_goes():
    one = job()
    (facts,) = re.findall(r'data-clock="([^"]*)"', strip(one).widget.html)
    told = json.loads(unescape(facts))
    assert told["elapsed"] == pytest.approx(42, abs=1)
    assert (told["expected"], told["speed"]) == (170, 1)
    bar = re.search(r'value="(\d+)" data-next="([\d.]+)" data-in="10"', strip(one).widget.html)
    assert float(bar[2]) == pytest.approx(100 * one.fraction_in(10), abs=0.2)
    assert int(bar[1]) < float(bar[2])


def test_a_press_stops_the_waiting_and_a_stranger_does_nothing():
    one = job()
    widget = strip(one).widget
    assert widget.button == STOP
    for message in ({}, {"pressed": "Pay"}, "pressed", {"pressed": 1}):
        widget._handle_custom_msg(message, [])
    assert not one.stop_requested
    widget._handle_custom_msg({"pressed": STOP}, [])
    assert one.stop_requested


def test_at_the_end_the_player_comes_when_asked_for_and_its_bytes_are_in_no_state(
    tmp_path, monkeypatch
):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"the bytes of a video")
    one = job()
    made = strip(one)
    one.succeeded(video(path))
    made.update()
    assert made.widget.button == LOAD
    assert not made.widget.live
    assert "data-clock" not in made.widget.html
    posted = []
    monkeypatch.setattr(made.widget, "send", lambda *message: posted.append(message))
    made.widget._handle_custom_msg({"pressed": LOAD}, [])
    assert posted == [({"video": "A cat", "width": 480}, [b"the bytes of a video"])]
    assert "bytes of a video" not in str(made.widget.get_state())


def test_a_video_that_is_gone_is_said_to_be(tmp_path):
    one = job()
    made = strip(one)
    one.succeeded(video(tmp_path / "gone.mp4"))
    made.update()
    made.widget._handle_custom_msg({"pressed": LOAD}, [])
    assert "✖" in made.widget.html
    assert made.widget.button == ""


def test_a_failure_is_its_first_line_without_a_button():
    one = job()
    made = strip(one)
    one.failed(ValueError("a <b>reason</b>"))
    made.update()
    assert "a &lt;b&gt;reason" in made.widget.html
    assert made.widget.button == ""


def test_alone_it_says_what_the_job_is_and_ends_with_its_picture(tmp_path):
    one = job()
    made = strip(one, alone=True)
    assert "A &lt;b&gt;cat" in made.widget.html
    assert "an-id" in made.widget.html
    assert not made.widget.extra
    one.succeeded(video(tmp_path / "a.mp4"))
    made.update()
    assert "data:image/jpeg" in made.widget.extra


def test_beside_a_card_no_picture_is_in_the_state(tmp_path):
    one = job()
    made = strip(one)
    one.succeeded(video(tmp_path / "a.mp4"))
    made.update()
    assert not made.widget.extra
    assert len(json.dumps(made.widget.get_state(), default=str)) < 10_000
