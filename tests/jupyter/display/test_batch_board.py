"""The board and the gallery of a batch: few kilobytes however many rows."""

import re

import pytest

from kling_integrations.core.batch.results import Result, RowStatus
from kling_integrations.core.batch.tally import Tally
from kling_integrations.jupyter.display.batch_board import Board, bar
from kling_integrations.jupyter.display.pages import gallery
from kling_integrations.jupyter.frontend import HTML, TEXT, WIDGET, Ui


def done(number, path=None):
    return Result(number, f"id{number}", RowStatus.COMPLETED, path=path)


def test_a_thousand_rows_are_far_below_a_megabyte(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = b"x" * 9000  # a busy picture
    monkeypatch.setattr(
        "kling_integrations.jupyter.display.pages.thumbnail", lambda path, width: picture
    )
    results = [
        done(n, f"{tmp_path}/out/a-prompt-of-some-forty-characters_{n:08x}.mp4")
        for n in range(1, 1001)
    ]
    data, _ = gallery(results, dict.fromkeys(range(1, 1001), "a prompt " * 20))
    assert len(data["text/html"]) < 900_000
    assert data["text/html"].count("<details") == 42
    assert data["text/html"].count("data:image") == 24
    assert "<script" not in data["text/html"]


def test_another_page_is_the_one_that_is_open():
    results = [done(n) for n in range(1, 61)]
    html = gallery(results, {}, page=3)[0]["text/html"]
    assert re.findall(r"<details open><summary>([^<]*)", html) == ["rows 49–60"]


def test_the_words_of_a_row_are_escaped():
    bad = Result(1, "a", RowStatus.FAILED, error_kind="provider", error='<b onclick="x">')
    html = gallery([bad], {1: "<script>alert(1)</script>"})[0]["text/html"]
    assert "<script>" not in html
    assert "<b onclick" not in html
    assert "failed: provider" in html


class Handle:
    """One display, and how it was drawn."""

    def __init__(self, data):
        self.shown = [data]

    def update(self, data, **_):
        self.shown.append(data)


@pytest.fixture
def displays(monkeypatch):
    made = []

    def publish(bundle, **_):
        made.append(Handle(bundle[0]))
        return made[-1]

    for module in ("batch_board", "live_html"):
        monkeypatch.setattr(f"kling_integrations.jupyter.display.{module}.publish", publish)
    monkeypatch.setattr(
        "kling_integrations.jupyter.display.live_html.publish_widget",
        lambda widget: publish(({"widget": widget}, {})),
    )
    monkeypatch.setattr(
        "kling_integrations.jupyter.display.batch_board.thumbnail", lambda path, width: b"jpeg"
    )
    return made


def running():
    tally = Tally(1000, limit=20, running=20, spent=24.0, max_cost=50.0, expected=60.0)
    for number in range(300):
        tally.end(done(number, "x.mp4"))
    return tally


def test_the_board_says_counts_and_money_and_shows_few_pictures(displays):
    Board(Ui(HTML, False), sandbox=True).update(running())
    card, board = (each.shown[0]["text/html"] for each in displays)
    assert "<b>300 of 1,000</b> done" in board
    assert "24.00 of 50.00 USD spent" in board
    assert "$" not in board  # between two of them a formula would be typeset
    assert board.count("<img") == 6
    assert len(board) < 5000
    assert "SANDBOX" in card
    assert "Run this cell again" in card  # what a notebook holds that is saved meanwhile


def test_the_widget_gets_pictures_apart_from_counts_and_leaves_the_gallery(displays):
    board, tally = Board(Ui(WIDGET, False), sandbox=True), running()
    board.update(tally)
    card, live = displays
    assert "kling-beside" in card.shown[0]["text/html"]  # hides the widget that is dead later
    widget = live.shown[0]["widget"]
    assert "<img" not in widget.html
    assert widget.extra.count("<img") == 6
    pictures = widget.extra
    board._live._least = 0
    tally.end(done(301, "y.mp4"))
    board.update(tally)
    assert "<b>301 of 1,000</b> done" in widget.html
    assert widget.extra is pictures  # not drawn anew with each count
    board.end(({"text/html": "gallery", "text/plain": "301 completed"}, {}))
    assert card.shown[-1]["text/html"] == "gallery"
    assert live.shown[-1] == {}
    assert not widget.live
    assert "301 completed" in widget.html  # what a page shows that was reloaded meanwhile


def test_a_log_gets_a_line_now_and_then(capsys):
    board, tally = Board(Ui(TEXT, True), sandbox=False), Tally(100)
    for number in range(100):
        tally.end(done(number))
        board.update(tally)
    board.update(tally, last=True)
    assert capsys.readouterr().out.splitlines() == [
        "1 of 100 done · 0 running",
        "100 of 100 done · 0 running",
    ]


def test_rows_that_were_not_submitted_are_no_part_of_the_bar():
    tally = Tally(4)
    tally.end(Result(1, "a", RowStatus.NOT_SUBMITTED))
    assert "without" not in bar(tally)
    assert "width:25" not in bar(tally)
