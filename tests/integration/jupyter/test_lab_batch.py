"""A batch in a real JupyterLab: its board, its gallery, the saved notebook."""

from __future__ import annotations

import pytest
from support.notebooks import texts, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FRAME = """import pandas
animals = ["red panda", "white raccoon", "grey owl", "green frog"]
df = pandas.DataFrame({
    "text": [f"A {a} that costs $5 or $9 in scene {n}" for n in range(8) for a in animals],
    "sku": range(32),
})
df.loc[5, "text"] += " [fail:moderation]"
"""


def test_a_board_while_it_runs_and_a_gallery_that_pages_in_a_small_notebook(lab, lab_sandbox):
    lab.write(
        "batch.ipynb",
        FRAME,
        "%kling batch df --prompt text -o out/ --max-cost 20 --at-once 8 -d 5",
        "_kling[['sku', 'status', 'error_kind']].iloc[4:7]",
        "%kling contact-sheet _kling",
    )
    paid = lab_sandbox.paid
    lab.open("batch.ipynb")
    lab.start_all()
    board = lab.locate(".kling-board")
    board.wait_for()
    until(lambda: lab.locate(".kling-extra img").count() > 2, 60, "pictures on the board")
    assert "of 20.00 USD spent" in lab.text
    lab.shot("batch-board")
    gallery = lab.locate(".kling-batch")
    gallery.wait_for(timeout=120_000)
    lab.idle()
    assert lab_sandbox.paid == paid + 32
    assert "31 completed · 1 failed" in lab.text
    assert lab.locate(".kling-batch details").count() == 2
    assert "costs $5 or $9 in" in lab.text  # no formula is made of it
    first = lab.locate(".kling-batch video").first
    assert first.get_attribute("poster").startswith("data:image/jpeg")
    first.evaluate("v => { v.muted = true; return v.play() }")
    until(lambda: first.evaluate("v => v.currentTime") > 0.2)
    first.evaluate("v => v.pause()")
    lab.shot("batch-gallery")
    lab.locate(".kling-batch summary").nth(1).click()
    until(lambda: lab.locate(".kling-batch details[open]").count() == 2)
    assert "moderation" in lab.text
    lab.locate(".jp-RenderedImage img").last.scroll_into_view_if_needed()
    lab.shot("batch-sheet")
    saved = lab.save()
    assert (lab.folder / "batch.ipynb").stat().st_size < 700_000
    assert "widget-view" not in texts(saved)
