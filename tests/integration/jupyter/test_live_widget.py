"""The live widget in a real JupyterLab: its clock, two views, reloads, dead kernels."""

from __future__ import annotations

import re
import shutil

import pytest
from support.notebooks import texts, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
COUNT_MESSAGES = f"""() => {{
    window.heard = 0;
    {KERNEL}.iopubMessage.connect((_, message) => {{
        if (message.header.msg_type === 'comm_msg') window.heard++;
    }});
}}"""


def seconds_shown(lab) -> int:
    """Of the first live display: ``1:05 of about …`` is 65."""
    return seconds_in(lab.locate(".kling-main").first.inner_text())


def seconds_in(text: str) -> int:
    found = re.search(r"(\d+):(\d\d)(?: of|, usually)", text)
    return 60 * int(found[1]) + int(found[2]) if found else -1


def generating(lab, name: str) -> None:
    """A notebook with a job in the background that runs until ``finish``."""
    lab.write(f"{name}.ipynb", f"%%kling v2.5-turbo/pro -d 5 -o job --bg\nA kite, {name} [hold]")
    lab.open(f"{name}.ipynb")
    lab.run_all()
    until(lambda: "generating" in lab.locate(".kling-main").first.inner_text())
    until(lambda: seconds_shown(lab) >= 0)


def test_the_clock_and_the_bar_go_on_while_the_kernel_says_nothing(lab, lab_sandbox):
    generating(lab, "clock")
    lab.page.evaluate(COUNT_MESSAGES)
    bar = "bar => bar.value"
    shown, filled = [seconds_shown(lab)], [lab.locate("progress").evaluate(bar)]
    for _ in range(4):
        until(lambda: seconds_shown(lab) > shown[-1])
        shown.append(seconds_shown(lab))
        filled.append(lab.locate("progress").evaluate(bar))
    assert lab.page.evaluate("window.heard") <= 2
    assert filled == sorted(filled)
    assert 40 < shown[-1] - shown[0] < 400  # 25 of its seconds pass in one
    lab_sandbox.finish()


def test_two_views_of_one_cell_show_the_same(lab, lab_sandbox):
    generating(lab, "views")
    lab.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1")
    lab.execute("notebook:create-output-view")
    lab.page.locator(".jp-LinkedOutputView .kling-live button").wait_for()
    words = "all => all.map(each => each.querySelector('[data-clock]').textContent)"
    views = lab.page.locator(".kling-main")
    assert views.count() == 2

    def apart() -> int:
        one, other = map(seconds_in, views.evaluate_all(words))
        return abs(one - other) if min(one, other) > 0 else 10**6

    # Each view ticks once a second by itself, and here a second has 25.
    until(lambda: apart() <= 25)
    lab.shot("two-views")
    lab.page.locator(".jp-LinkedOutputView .kling-live button").click()
    until(lambda: "Stopped waiting" in lab.text)
    until(lambda: lab.page.locator(".kling-live").count() == 0)
    lab.page.evaluate("window.jupyterapp.shell.currentWidget.close()")  # the second view
    lab_sandbox.finish()


def assert_it_stands_still(lab) -> None:
    at = seconds_shown(lab)
    lab.page.wait_for_timeout(2500)
    assert seconds_shown(lab) == at


def test_after_a_restart_the_clock_stands_still_and_the_cell_picks_it_up(lab, lab_sandbox):
    generating(lab, "restart")
    lab.page.evaluate(f"{KERNEL}.restart()")
    until(lambda: "The kernel has ended. Run the cell again" in lab.text)
    assert lab.locate(".kling-live button").is_disabled()
    assert_it_stands_still(lab)
    lab.shot("live-restarted")
    paid = lab_sandbox.paid
    lab_sandbox.finish()
    lab.idle()
    lab.run_all()
    lab.locate("video").wait_for()
    assert lab.locate(".kling-live").count() == 0
    assert lab_sandbox.paid == paid


def test_a_killed_kernel_is_noticed(lab, lab_sandbox):
    generating(lab, "killed")
    kill = "import os; os.kill(os.getpid(), 9)"
    lab.page.evaluate(f"code => {{ {KERNEL}.requestExecute({{code}}) }}", kill)
    said = re.compile("No word from the kernel for|The kernel has ended")
    until(lambda: said.search(lab.text), 40)
    assert_it_stands_still(lab)
    lab.shot("live-killed")
    lab_sandbox.finish()


def test_what_was_saved_meanwhile_shows_the_card_alone_without_its_kernel(lab, lab_sandbox):
    generating(lab, "meanwhile")
    assert "widget-view" in texts(lab.save())
    shutil.copy(lab.folder / "meanwhile.ipynb", lab.folder / "later.ipynb")
    lab.end_kernel()
    lab.open("later.ipynb")
    error = lab.locate(".jupyter-widgets")
    error.wait_for(state="attached")
    assert "model not found" in error.text_content()
    assert not error.is_visible()
    assert "Run this cell again to go on with it" in lab.text
    lab.shot("saved-meanwhile")
    lab_sandbox.finish()
    lab.run_all()
    lab.locate("video").wait_for()


def test_a_grid_goes_on_after_a_reload_and_says_at_its_end_where_the_videos_are(lab, lab_sandbox):
    grid = "%%kling v2.5-turbo/pro -d 5 --takes 3 --bg --yes -o jobs\nA fox [hold]"
    lab.write("reload-grid.ipynb", grid)
    lab.open("reload-grid.ipynb")
    lab.run_all()
    until(lambda: lab.locate("progress").count() == 4)
    lab.save()
    lab.page.reload()
    lab.open_again()
    until(lambda: " so far · about " in lab.text)
    lab.shot("grid-reloaded")
    lab_sandbox.finish()
    until(lambda: "3 of 3 done" in lab.text and "Run this cell again" in lab.text)
    lab.run_all()
    until(lambda: lab.locate("video").count() == 3)
    assert "widget-view" not in texts(lab.save())


def test_where_the_page_has_no_widgets_the_card_is_redrawn_and_becomes_the_player(lab, lab_sandbox):
    html = '%config KlingMagics.ui = "html"'
    lab.write("html.ipynb", html, "%%kling v2.5-turbo/pro -d 5 -o job --bg\nA kite, html [hold]")
    lab.open("html.ipynb")
    lab.run_all()
    pace = re.compile(r"generating · (\d+):(\d\d) of about")
    until(lambda: pace.search(lab.text))
    before = pace.search(lab.text)[0]
    until(lambda: pace.search(lab.text)[0] != before)
    assert lab.locate("progress").count() == 1
    lab.shot("live-html")
    lab_sandbox.finish()
    lab.locate("video").wait_for()
    assert lab.locate("progress").count() == 0
    assert "widget-view" not in texts(lab.save())
