"""The documentation's pictures of the notebook, from a real JupyterLab: `make screenshots`.

No test: pytest collects it by name only, for the fixtures.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.notebooks import ROOT

IMAGES = ROOT / "docs" / "images"

CELL = """%%kling v2.5-turbo/pro -d 5 -a 16:9 -o clip
A cheerful white raccoon running through a sequoia forest"""
GRID = """%%kling -d 5 -a 16:9 -o clips --sweep weather=weathers --yes
A lighthouse on a cliff, {weather}, seen from a drone"""
BATCH = "%kling batch rows --prompt text -o videos/ --yes"
ROWS = (
    "weathers = ['morning fog', 'a summer storm', 'first snow']\n"
    "rows = [{'sku': f'A{n}', 'text': f'Product {n} on a walnut table'} for n in range(1, 9)]"
)

PICTURES = {"cell": [CELL], "grid": [ROWS, GRID], "batch": [ROWS, BATCH]}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PICTURES)
def test_take(lab: Any, lab_sandbox: Any, name: str) -> None:
    lab.write(f"{name}.ipynb", *PICTURES[name])
    lab.open(f"{name}.ipynb")
    lab.run_all(180)
    last = lab.locate(".jp-CodeCell").last
    for scheme in ("Light", "Dark"):
        lab.scheme(scheme)
        last.scroll_into_view_if_needed()
        lab.page.wait_for_timeout(1500)  # players show their first frame
        last.screenshot(path=str(IMAGES / f"{name}-{scheme.lower()}.png"))
    lab.scheme("Light")
