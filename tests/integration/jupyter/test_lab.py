"""In a real JupyterLab, in a real browser: what a user sees, also tomorrow."""

from __future__ import annotations

import nbformat
import pytest
from support.notebooks import texts, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LENGTH = """v => new Promise(r => v.readyState > 0
    ? r(v.duration) : v.onloadedmetadata = () => r(v.duration))"""


def cell(prompt: str, flags: str = "-d 5 -a 16:9 -o clip") -> str:
    return f"%%kling v2.5-turbo/pro {flags}\n{prompt}"


def assert_player_with_poster(lab) -> None:
    video = lab.locate("video").first
    video.wait_for()
    assert video.evaluate(LENGTH) == pytest.approx(5, abs=0.2)
    assert video.get_attribute("poster").startswith("data:image/jpeg;base64,")


def test_it_plays_and_seeks_and_the_strip_is_gone(lab):
    lab.write("plays.ipynb", cell("A cheerful white raccoon in a forest, dawn"))
    lab.open("plays.ipynb")
    lab.start_all()
    lab.locate(".kling-live").wait_for()
    until(lambda: "generating" in lab.text)
    assert "id " in lab.text
    lab.shot("running")
    lab.locate("video").wait_for()
    lab.idle()
    assert_player_with_poster(lab)
    video = lab.locate("video")
    video.evaluate("v => { v.muted = true; return v.play() }")
    until(lambda: video.evaluate("v => v.currentTime") > 0.2)
    video.evaluate("v => new Promise(r => { v.onseeked = () => r(); v.currentTime = 3 })")
    assert video.evaluate("v => v.currentTime") >= 3
    video.evaluate("v => v.pause()")
    assert lab.locate(".kling-live").count() == 0
    assert "SANDBOX" in lab.text
    lab.page.wait_for_timeout(300)  # for the picture: the controls fade in
    lab.shot("player")
    lab.shot("cell", lab.locate(".jp-Cell").nth(1))


def test_a_saved_notebook_shows_all_with_a_fresh_kernel_and_is_small(lab):
    lab.write("saved.ipynb", cell("A lighthouse in a storm"), "clip.status", cell("A calm sea"))
    lab.open("saved.ipynb")
    lab.run_all()
    saved = lab.save()
    assert (lab.folder / "saved.ipynb").stat().st_size < 2 * 100_000
    assert saved.cells[1].outputs[0].metadata["kling"]["prompt"] == "A lighthouse in a storm"
    assert "sk-not-for-show" not in texts(saved)
    lab.end_kernel()
    lab.open("saved.ipynb")
    assert_player_with_poster(lab)
    assert lab.locate("video").count() == 2
    assert "model not found" not in lab.text.lower()
    lab.shot("reopened")


def test_an_untrusted_notebook_still_has_player_and_poster(lab):
    lab.write("mine.ipynb", cell("A paper boat in the rain"))
    lab.open("mine.ipynb")
    lab.run_all()
    foreign = lab.save()
    foreign.cells.append(nbformat.v4.new_markdown_cell("changed elsewhere, so not trusted"))
    nbformat.write(foreign, lab.folder / "foreign.ipynb")
    lab.end_kernel()
    lab.open("foreign.ipynb")
    trusted = "window.jupyterapp.shell.currentWidget.content.model.cells.get(1).trusted"
    assert lab.page.evaluate(trusted) is False
    assert_player_with_poster(lab)
    assert "model not found" not in lab.text.lower()
    lab.shot("untrusted")


def test_a_reload_in_the_middle_loses_nothing(lab, lab_sandbox):
    lab.write("reload.ipynb", cell("A train crossing a bridge [hold]"))
    paid = lab_sandbox.paid
    lab.open("reload.ipynb")
    lab.start_all()
    until(lambda: "generating" in lab.text)
    lab.save()
    lab.page.reload()
    lab.open_again()
    lab_sandbox.finish()
    lab.idle()
    lab.locate("button:has-text('Load player')").wait_for()
    lab.shot("reloaded")
    lab.run_all()
    assert_player_with_poster(lab)
    assert lab_sandbox.paid == paid + 1
    saved = texts(lab.save())
    assert "widget-view" not in saved


def test_after_a_reload_the_background_strip_goes_on_and_offers_the_player(lab, lab_sandbox):
    lab.write("reload-bg.ipynb", cell("A kite over the dunes [hold]", "-d 5 -o job --bg"))
    lab.open("reload-bg.ipynb")
    lab.run_all()
    until(lambda: "generating" in lab.text)
    lab.save()
    lab.page.reload()
    lab.open_again()
    until(lambda: "about" in lab.text)
    lab_sandbox.finish()
    button = lab.locate("button:has-text('Load player')")
    button.wait_for()
    button.click()
    video = lab.locate("video")
    video.wait_for()
    assert video.evaluate(LENGTH) == pytest.approx(5, abs=0.2)
    lab.shot("load-player")


def test_stop_waiting_is_a_button_that_works_in_the_background(lab, lab_sandbox):
    name = "stop.ipynb"
    lab.write(name, cell("A clock tower at noon [hold]", "-d 5 -o job --bg"), "print('next')")
    paid = lab_sandbox.paid
    lab.open(name)
    lab.run_all()
    button = lab.locate("button:has-text('Stop waiting')")
    button.wait_for()
    until(lambda: "generating" in lab.text)
    lab.shot("background")
    button.click()
    until(lambda: "Stopped waiting" in lab.text)
    button.wait_for(state="hidden")
    assert lab_sandbox.paid == paid + 1
    lab_sandbox.finish()
    lab.run_all()
    lab.locate("video").wait_for()
    assert lab_sandbox.paid == paid + 1


def test_the_players_of_a_comparison_play_in_step(lab, lab_sandbox):
    name = "grid.ipynb"
    flags = "-d 5 --sweep light=dawn,noon --takes 2 --yes -o takes"
    lab.write(name, cell("A heron by a lake, {light}", flags))
    lab.open(name)
    lab.start_all()
    until(lambda: "generating" in lab.text)
    until(lambda: " so far · about " in lab.text)  # in total, and for each item:
    until(lambda: lab.locate("progress").count() == 5)
    assert " of about " in lab.text
    lab.shot("grid-running")
    until(lambda: lab.locate("video").count() == 4, 60)
    lab.idle()
    players = lab.locate("video")
    for number in range(4):
        players.nth(number).evaluate(LENGTH)
        players.nth(number).evaluate("v => { v.muted = true }")
    players.first.evaluate("v => v.play()")
    times = "vs => vs.map(v => v.currentTime)"
    until(lambda: min(players.evaluate_all(times)) > 0.3)
    at = players.evaluate_all(times)
    assert max(at) - min(at) < 0.3
    players.first.evaluate("v => v.pause()")
    until(lambda: all(players.evaluate_all("vs => vs.map(v => v.paused)")))
    players.nth(1).evaluate("v => { v.currentTime = 4 }")
    until(lambda: min(players.evaluate_all(times)) > 3.7)
    lab.page.wait_for_timeout(300)
    lab.shot("grid")
    saved = lab.save()
    assert (lab.folder / name).stat().st_size < 4 * 100_000
    price, board, _ = saved.cells[1].outputs
    assert "Expected cost" in price.text
    assert board.data == {}
    assert lab.locate("progress").count() == 0


def test_a_job_as_the_last_line_is_live_and_ends_as_its_player(lab, lab_sandbox):
    name = "job.ipynb"
    lab.write(name, cell("A kite over a bay [hold]", "-d 5 -o job --bg"), "job")
    lab.open(name)
    lab.run_all()
    until(lambda: lab.locate("button:has-text('Stop waiting')").count() == 2)
    until(lambda: lab.text.count(" of about ") == 2)
    lab_sandbox.finish()
    until(lambda: lab.locate("video").count() == 2)
    assert lab.locate("button:has-text('Stop waiting')").count() == 0


def test_a_video_that_its_call_has_shown_is_not_shown_again(lab):
    name = "extend.ipynb"
    lab.write(name, cell("A swing in the wind"), "clip.extend('It stops')")
    lab.open(name)
    lab.run_all()
    saved = lab.save()
    assert lab.locate("video").count() == 2
    assert [o.output_type for o in saved.cells[2].outputs if o.data] == ["display_data"]


def test_an_id_in_a_table_is_copied_with_a_click(lab):
    lab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    lab.write("ids.ipynb", cell("A copy machine"), "%kling history", "clip.id")
    lab.open("ids.ipynb")
    lab.run_all()
    saved = lab.save()
    button = lab.locate("td button").first
    box = button.bounding_box()
    assert box["height"] < 30  # one line
    button.click()
    copied = lab.page.evaluate("navigator.clipboard.readText()")
    assert repr(copied) == saved.cells[3].outputs[0].data["text/plain"]


def test_a_frame_shows_posters_in_both_schemes(lab):
    flags = "-d 5 --sweep light=dawn,noon --yes -q -o clips"
    lab.write("frame.ipynb", cell("A heron on a pole, {light}", flags), "clips.to_frame()")
    lab.open("frame.ipynb")
    lab.run_all()
    posters = lab.locate("td img")
    until(lambda: posters.count() == 2)
    assert posters.evaluate_all("all => all.map(each => each.naturalWidth)") == [128, 128]
    assert "A heron on a pole, dawn" in posters.first.get_attribute("alt")
    for scheme in ("Light", "Dark"):
        lab.scheme(scheme)
        lab.shot(f"frame-{scheme.lower()}")
    assert lab.save().cells[2].outputs[0].data["text/html"].count("<img") == 2


def test_words_of_the_watcher_never_land_in_another_cell(lab):
    wait = "import time\nfor n in range(30):\n    time.sleep(.1)\nprint('only this')"
    lab.write(
        "words.ipynb", cell("A door opening", "-d 5 -o job --bg"), wait, "job.result().status"
    )
    lab.open("words.ipynb")
    lab.run_all()
    saved = lab.save()
    (only,) = saved.cells[2].outputs
    assert only.text == "only this\n"
    assert saved.cells[1].outputs[0].data["text/html"].startswith("<figure")


def test_a_failure_says_why_and_stops_run_all(lab):
    lab.write("fails.ipynb", cell("A riot [fail:moderation]"), "print('not reached')")
    lab.open("fails.ipynb")
    lab.run_all()
    saved = lab.save()
    card, *_, error = saved.cells[1].outputs
    assert "content policy" in card.data["text/plain"]
    assert error.output_type == "error"
    assert error.ename == "GenerationFailedError"
    assert len(error.traceback) == 1
    assert saved.cells[2].outputs == []
    lab.shot("failed")
