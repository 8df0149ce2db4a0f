"""What cards, players and grids are made of, and what must never be in them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.html import ALLOWED, NASTY, Tags

from kling_integrations.jupyter.display import player
from kling_integrations.jupyter.display.cards import failed_card, running_card
from kling_integrations.jupyter.display.grid import Cell, grid
from kling_integrations.jupyter.display.source import source_of
from kling_integrations.jupyter.job import Job, JobStatus
from kling_integrations.jupyter.targets import Target
from kling_integrations.jupyter.video import KlingVideo


def jpeg() -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (16, 9)).save(data, "JPEG")
    return data.getvalue()


POSTER = jpeg()


def video(prompt: str = "A cat", path: Path = Path("kling_outputs/a.mp4"), **more) -> KlingVideo:
    facts = {
        "id": "-id:with/odd<chars>",
        "saved_as": path.absolute(),
        "model": "klingai/v2.5-turbo/pro/text-to-video",
        "params": {"duration": 5, "note": prompt},
        "poster": POSTER,
        "width": 640,
        "height": 360,
        "duration": 5.0,
        "usage": {"usd_spent": 0.35},
    }
    return KlingVideo(prompt=prompt, **{**facts, **more})


def job(prompt: str, status: JobStatus, error: BaseException | None = None) -> Job:
    made = Job(
        None,
        base_url="https://api.aimlapi.com",
        target=Target(Path.cwd(), "kling_outputs", "x.mp4"),
        timeout=1,
        generation_id="an<id>",
        summary={"model": "klingai/v2.5-turbo/pro/text-to-video", "prompt": prompt},
    )
    made.error = error
    made._status = status
    return made


@pytest.mark.parametrize("prompt", NASTY)
def test_words_of_others_show_as_text(prompt):
    bundles = [
        player.card(video(prompt)),
        running_card(job(prompt, JobStatus.QUEUED), bar=True),
        failed_card(job(prompt, JobStatus.FAILED, ValueError(prompt))),
        grid([Cell({"x": prompt}, video=video(prompt))], prompt=prompt, total=prompt),
    ]
    for data, _ in bundles:
        page = Tags(data["text/html"])
        assert page.names <= ALLOWED
        handlers = {name for _, attrs in page.tags for name in attrs if name.startswith("on")}
        assert handlers <= {"onplay", "onpause", "onseeked"}
        assert prompt.split()[0][:10] in page.text
        assert data["text/plain"]


@settings(max_examples=50)
@given(st.text(min_size=1))
def test_no_prompt_makes_a_tag(prompt):
    assert Tags(player.card(video(prompt))[0]["text/html"]).names <= ALLOWED


def test_a_long_prompt_is_there_in_full_behind_its_beginning():
    prompt = "word " * 500
    page = Tags(player.card(video(prompt))[0]["text/html"])
    assert prompt in page.text
    assert "…" in page.text


def test_the_player_is_what_survives_sanitising():
    data, metadata = player.card(video())
    tags = dict(Tags(data["text/html"]).tags)
    assert tags["video"]["src"] == "kling_outputs/a.mp4"
    assert tags["video"]["poster"].startswith("data:image/jpeg;base64,")
    assert "controls" in tags["video"]
    assert tags["img"]["src"] == tags["video"]["poster"]
    assert "source" not in tags
    assert data["image/jpeg"]
    assert metadata["kling"]["generation_id"] == "-id:with/odd<chars>"
    json.dumps(metadata)


@pytest.mark.parametrize(
    ("path", "src"),
    [
        ("kling_outputs/a b#c%d.mp4", "kling_outputs/a%20b%23c%25d.mp4"),
        ("ünïcode/ä.mp4", "%C3%BCn%C3%AFcode/%C3%A4.mp4"),
        ("../beside.mp4", None),
        (".hidden/a.mp4", None),
    ],
)
def test_links_are_relative_and_quoted_and_else_the_bytes_are_in(tmp_path, monkeypatch, path, src):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    target = (here / path).resolve()
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(b"mp4")
    whole = "data:video/mp4;base64,bXA0"
    assert source_of(target) == (src or whole, False)
    assert source_of(target, "always") == (whole, False)
    assert source_of(target, "never") == (src and (src, False))


def test_what_is_too_large_to_embed_shows_its_picture_and_its_path(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(9_000_000))
    page = Tags(player.card(video(path=large))[0]["text/html"])
    assert "video" not in page.names
    assert "img" in page.names
    assert "large.mp4" in page.text


def test_the_sandbox_is_marked_everywhere():
    sand = video(sandbox=True)
    data, metadata = player.card(sand)
    assert "SANDBOX" in Tags(data["text/html"]).text
    assert "SANDBOX" in data["text/plain"]
    assert metadata["kling"]["sandbox"] is True
    assert "SANDBOX" in grid([Cell(video=sand)])[0]["text/html"]
    assert "SANDBOX" not in player.card(video())[0]["text/html"]


def test_a_running_card_has_the_id_and_the_way_back():
    data, metadata = running_card(job("A cat", JobStatus.GENERATING))
    assert "an<id>" in Tags(data["text/html"]).text
    assert "an<id>" in data["text/plain"]
    assert "Run this cell again" in data["text/plain"]
    assert metadata["kling"]["status"] == "generating"
