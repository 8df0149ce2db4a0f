"""What a keyboard and a screen reader find in the outputs, by axe-core in a real JupyterLab."""

from __future__ import annotations

from typing import Any

import pytest
from support.notebooks import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CELLS = (
    "%%kling -d 5 -o clip\nA lamp in a window",
    "%%kling -d 5 --sweep light=dawn,noon --yes -o clips\nA heron, {light}",
    "%%kling -d 7\nA length that is not there",
    "%%kling -d 5\nA riot [fail:moderation]",
    "%kling history",
    "%%kling --dry-run --image clip -d 5\nA lamp goes out",
    "%%kling -d 5 --bg -o job\nA clock [hold]",
    "%%kling -d 5 --takes 2 --yes --bg -o jobs\nTwo clocks [hold]",
)


def violations(lab: Any) -> list[str]:
    """What axe-core finds in the outputs of the open notebook, a line for each place."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(lab.page, context=".jp-OutputArea-output").response
    passed = {rule["id"] for rule in found["passes"]}
    assert passed >= {"button-name"}, passed  # it has seen the outputs
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:200]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


# axe-core finds no background that it trusts in JupyterLab, so contrast is computed here: text
# colour with the opacity of all around it, over the nearest background that hides what is behind.
FAINT_TEXT = """outputs => {
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const over = (top, under, alpha) => top.map((c, i) => c * alpha + under[i] * (1 - alpha));
    const part = c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
    const found = [];
    let seen = 0;
    const texts = outputs.flatMap(output => {
        const walker = document.createTreeWalker(output, NodeFilter.SHOW_TEXT);
        const nodes = [];
        while (walker.nextNode()) nodes.push(walker.currentNode);
        return nodes;
    });
    for (const text of texts) {
        const element = text.parentElement;
        if (!text.data.trim() || !element.checkVisibility() || element.closest('video')) continue;
        seen++;
        let alpha = 1, under = null;
        for (let each = element; each; each = each.parentElement) {
            const style = getComputedStyle(each);
            if (!under) alpha *= Number(style.opacity);
            const [r, g, b, a = 1] = numbers(style.backgroundColor);
            if (!under && a === 1) under = [r, g, b];
        }
        const [r, g, b, a = 1] = numbers(getComputedStyle(element).color);
        const shown = over([r, g, b], under, a * alpha);
        const [low, high] = [light(shown), light(under)].sort((x, y) => x - y);
        const ratio = (high + .05) / (low + .05);
        if (ratio < 4.5) found.push(`${text.data.trim().slice(0, 60)} ${ratio.toFixed(2)}`);
    }
    return [seen, found];
}"""


def faint_text(lab: Any) -> list[str]:
    """Text of the outputs below a contrast of 4.5 to 1 (WCAG AA), with its ratio."""
    seen, found = lab.locate(".jp-OutputArea-output").evaluate_all(FAINT_TEXT)
    assert seen > 30
    return list(found)


def run_cells(lab: Any, name: str) -> None:
    """Runs each cell for itself: some of them fail, as they should."""
    lab.write(name, *CELLS)
    lab.open(name)
    for number in range(len(CELLS) + 1):
        at = f"window.jupyterapp.shell.currentWidget.content.activeCellIndex = {number}"
        lab.page.evaluate(at)
        lab.execute("notebook:run-cell")
        lab.idle()
    until(lambda: lab.locate("progress").count() == 4)


def test_outputs_have_names_roles_and_contrast(lab, lab_sandbox):
    lab.page.set_viewport_size({"width": 1100, "height": 3000})
    run_cells(lab, "axe.ipynb")
    found = {}
    for scheme in ("Light", "Dark"):
        lab.scheme(scheme)
        lab.shot(f"outputs-{scheme.lower()}")
        found[scheme] = violations(lab) + faint_text(lab)
    assert found == {"Light": [], "Dark": []}
    names = lab.locate("video").evaluate_all("all => all.map(v => v.ariaLabel)")
    assert "A lamp in a window" in names[0]
    assert len(set(names)) == 3
    bars = lab.locate("progress").evaluate_all("all => all.map(p => p.ariaLabel)")
    assert bars[1:] == ["All videos", "take=1", "take=2"]
    lab_sandbox.finish()


def test_nothing_moves_that_was_not_started(lab):
    """With or without prefers-reduced-motion: no player starts by itself, nothing is animated."""
    lab.page.emulate_media(reduced_motion="reduce")
    lab.write("still.ipynb", *CELLS[:2])
    lab.open("still.ipynb")
    lab.run_all()
    players = lab.locate("video")
    until(lambda: players.count() == 3)
    assert players.evaluate_all("all => all.every(v => v.paused && !v.autoplay && !v.loop)")
    moving = "all => all.flatMap(each => each.getAnimations({subtree: true})).length"
    assert lab.locate(".jp-OutputArea-output").evaluate_all(moving) == 0
