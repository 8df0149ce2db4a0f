"""The card of ``--dry-run``: what is sent is seen before it is paid."""

from __future__ import annotations

import pytest
from PIL import Image
from support.html import ALLOWED, NASTY, Tags

from kling_integrations import VideoRequest
from kling_integrations.core.cost import Estimate
from kling_integrations.core.submission import Action, Decision
from kling_integrations.jupyter.display.preview import Preview, preview, text

PAYS = Decision(Action.SUBMIT, "nothing like it was submitted before")


def made(prompt: str = "A cat", decision: Decision = PAYS, **parameters) -> Preview:
    estimate = None if decision.picks_up else Estimate(0.5)
    return Preview(VideoRequest(prompt=prompt, **parameters), 1, decision, estimate)


def test_the_picture_is_a_thumbnail_of_what_would_be_sent():
    picture = Image.new("RGB", (640, 360), "red")
    data, _ = preview([made(image=picture, duration=5)], "1 video.", sandbox=False)
    page = Tags(data["text/html"])
    (image,) = [attrs for tag, attrs in page.tags if tag == "img"]
    assert image["alt"] == "image_url"
    assert image["src"].startswith("data:image/jpeg;base64,")
    assert "640×360" in page.text
    assert len(data["text/html"]) < 6_000
    assert "sha256:" in data["text/plain"]


def test_a_link_is_named_and_not_opened():
    link = "https://example.com/cat.png?signature=secret"
    data, _ = preview([made(image=link)], "1 video.", sandbox=False)
    page = Tags(data["text/html"])
    assert "img" not in page.names
    assert "https://example.com/cat.png" in page.text
    assert "secret" not in str(data)


def test_it_says_for_each_what_would_happen():
    there = Decision(Action.REUSE, "it is finished already")
    unclear = Decision(Action.REFUSE, "an earlier POST has no known outcome")
    words = text([made(), made(decision=there), made(decision=unclear)], "3 videos.")
    assert "Would be submitted, expected cost: $0.50." in words
    assert "Nothing would be paid: it is finished already." in words
    assert "Would be refused: an earlier POST has no known outcome." in words
    assert words.endswith("3 videos.")


@pytest.mark.parametrize("prompt", NASTY)
def test_words_of_others_show_as_text(prompt):
    data, _ = preview([made(prompt, duration=5)], prompt, sandbox=True)
    page = Tags(data["text/html"])
    assert page.names <= ALLOWED | {"table", "tr", "td"}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "SANDBOX" in page.text
