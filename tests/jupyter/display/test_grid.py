"""The comparison grid."""

from __future__ import annotations

from kling_integrations.jupyter.display.grid import contact_sheet


def test_the_contact_sheet_is_a_small_picture(shell):
    shell.run("%%kling --sweep x=1,2,3 -d 5 --yes -o films\nCat {x}")
    sheet = contact_sheet(shell["films"], 3)
    assert sheet[:2] == b"\xff\xd8"
    assert len(sheet) < 40_000
