"""In a real marimo: a session without magics, reactive re-runs, and what an export keeps."""

from __future__ import annotations

import math
import mimetypes
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.notebooks import ROOT, SCREENSHOTS, free_port, kernel_environment, until

from kling_integrations.sandbox import Sandbox

marimo = pytest.importorskip("marimo")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

NOTEBOOK = ROOT / "notebooks" / "reactive_marimo.py"
MARIMO = [sys.executable, "-m", "marimo", "-q"]
LENGTH = """v => new Promise(r => v.readyState > 0
    ? r(v.duration) : v.onloadedmetadata = () => r(v.duration))"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Jobs take 60 of its seconds, 25 to a second; with [hold] until ``finish``."""

    def seconds(model: str, payload: Mapping[str, Any]) -> float:
        return math.inf if "[hold]" in str(payload.get("prompt")) else 60.0

    with Sandbox(speed=25, seconds=seconds, size=(320, 180), fps=12, seed=5) as running:
        yield running


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1000, "height": 1300})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.route(re.compile("https://"), from_package)
    yield page
    context.close()


def from_package(route: Any) -> None:
    """An export loads its frontend from a CDN; the same files are in the package."""
    static = Path(marimo.__file__).parent / "_static"
    name = route.request.url.partition("?")[0].partition("/dist/")[2]
    if name and (static / name).is_file():
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = {"Access-Control-Allow-Origin": "*", "Content-Type": kind}
        route.fulfill(status=200, body=(static / name).read_bytes(), headers=headers)
    else:
        route.abort()


@contextmanager
def running(notebook: Path, sandbox: Sandbox) -> Iterator[str]:
    """The address of a notebook that is run as an app."""
    folder = notebook.parent
    port = free_port()
    log = (folder / "marimo.log").open("w")
    process = subprocess.Popen(
        [*MARIMO, "run", notebook.name, "--headless", "--no-token", "--port", str(port)],
        cwd=folder, stdout=log, stderr=subprocess.STDOUT,
        env=kernel_environment(folder, sandbox.base_url),
    )  # fmt: skip

    def ready() -> bool:
        assert process.poll() is None, (folder / "marimo.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(ready, 60, "marimo listens")
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(15)
    log.close()


@pytest.fixture
def app(tmp_path: Path, sandbox: Sandbox) -> Iterator[str]:
    """The address of the example, run as an app."""
    shutil.copy(NOTEBOOK, tmp_path)
    with running(tmp_path / NOTEBOOK.name, sandbox) as address:
        yield address


def written(folder: Path, *cells: str) -> Path:
    """A notebook of such cells, each of which sees the names of those before."""
    path = folder / "notebook.py"
    codes = ["import kling_integrations as kling", *cells]
    from marimo._ast.cell import CellConfig
    from marimo._ast.codegen import generate_filecontents

    names = ["_"] * len(codes)
    path.write_text(generate_filecontents(codes, names, [CellConfig()] * len(codes)))
    return path


def test_the_card_is_live_then_plays_and_twenty_reruns_pay_once(app, page, sandbox):
    page.goto(app)
    page.get_by_text("generating").first.wait_for()
    until(lambda: " of about " in page.locator(".kling-main").inner_text())
    assert page.locator("progress").count() == 1
    page.screenshot(path=str(SCREENSHOTS / "marimo-running.png"))
    video = page.locator("video")
    video.wait_for()
    assert video.evaluate(LENGTH) == pytest.approx(5, abs=0.2)
    assert video.get_attribute("poster").startswith("data:image/jpeg;base64,")
    assert "@file/" in video.get_attribute("src")  # served by marimo, not in the page
    video.evaluate("v => { v.muted = true; return v.play() }")
    until(lambda: video.evaluate("v => v.currentTime") > 0.2)

    slider = page.get_by_role("slider")
    slider.focus()
    seen = []
    for _ in range(20):
        before = page.get_by_text("The frame at").inner_text()
        step = "ArrowRight" if len(seen) < 10 else "ArrowLeft"
        slider.press(step)
        page.wait_for_function(
            "before => !document.body.innerText.includes(before)", arg=f"{before}\n"
        )
        seen.append(page.get_by_text("The frame at").inner_text())
    assert len(seen) == 20
    assert video.evaluate(LENGTH) == pytest.approx(5, abs=0.2)
    page.screenshot(path=str(SCREENSHOTS / "marimo.png"))
    assert (sandbox.paid, sandbox.requests["submit"]) == (1, 1)


def test_a_job_in_the_background_goes_on_without_a_rerun_and_ends_with_its_player(
    tmp_path, page, sandbox
):
    notebook = written(tmp_path, "job = kling.submit('A kite [hold]', duration=5)\njob")
    with running(notebook, sandbox) as address:
        page.goto(address)
        main = page.locator(".kling-main")
        until(lambda: " of about " in main.inner_text())
        before = main.inner_text()
        until(lambda: main.inner_text() != before)  # its clock goes on
        page.get_by_role("button", name="Stop waiting").wait_for()
        page.screenshot(path=str(SCREENSHOTS / "marimo-background.png"))
        page.reload()
        until(lambda: " about " in main.inner_text())
        sandbox.finish()
        page.locator(".kling-extra img").wait_for()
        page.get_by_role("button", name="Load player").click()
        video = page.locator("video")
        video.wait_for()
        assert video.evaluate(LENGTH) == pytest.approx(5, abs=0.2)
        page.screenshot(path=str(SCREENSHOTS / "marimo-background-done.png"))
    assert (sandbox.paid, sandbox.requests["submit"]) == (1, 1)


def test_the_button_of_a_job_in_the_background_stops_it(tmp_path, page, sandbox):
    notebook = written(tmp_path, "job = kling.submit('A clock [hold]', duration=5)\njob")
    with running(notebook, sandbox) as address:
        page.goto(address)
        until(lambda: " of about " in page.locator(".kling-main").inner_text())
        page.get_by_role("button", name="Stop waiting").click()
        until(lambda: "Stopped waiting" in page.locator(".kling-main").inner_text())
        page.get_by_role("button", name="Stop waiting").wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_players_in_step_and_a_batch_with_its_board(tmp_path, page, sandbox, scheme, monkeypatch):
    notebook = written(
        tmp_path,
        "clips = [kling.generate(f'A heron {n}', duration=5) for n in (1, 2)]",
        "kling.show(clips)",
        "rows = [{'prompt': f'A heron {n}', 'duration': 5} for n in range(3, 9)]\n"
        "done = clips and kling.batch(rows, out='herons')\nNone",
        "[row['status'] for row in done]",
    )
    theme = tmp_path / "xdg" / "marimo" / "marimo.toml"
    theme.parent.mkdir(parents=True)
    theme.write_text(f'[display]\ntheme = "{scheme}"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    with running(notebook, sandbox) as address:
        page.goto(address)
        page.locator(".kling-board").wait_for()
        until(lambda: " running · " in page.locator(".kling-board").inner_text())
        page.screenshot(path=str(SCREENSHOTS / f"marimo-batch-{scheme}.png"), full_page=True)
        page.locator(".kling-batch").wait_for()
        assert page.locator(".kling-board").count() == 0
        assert page.locator(".kling-batch video").count() == 6
        players = page.locator(".kling-grid video")
        assert players.count() == 2
        for number in range(2):
            players.nth(number).evaluate(LENGTH)
            players.nth(number).evaluate("v => { v.muted = true }")
        players.first.evaluate("v => v.play()")
        until(lambda: min(players.evaluate_all("vs => vs.map(v => v.currentTime)")) > 0.3)
        players.first.evaluate("v => v.pause()")
        until(lambda: all(players.evaluate_all("vs => vs.map(v => v.paused)")))
        page.screenshot(path=str(SCREENSHOTS / f"marimo-done-{scheme}.png"), full_page=True)
    assert sandbox.paid == 8


def test_an_export_keeps_player_and_poster(tmp_path, page, sandbox):
    shutil.copy(NOTEBOOK, tmp_path)
    done = subprocess.run(
        [*MARIMO, "export", "html", NOTEBOOK.name, "-o", "out.html"],
        cwd=tmp_path, capture_output=True, text=True,
        env=kernel_environment(tmp_path, sandbox.base_url),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "kling_outputs")  # the page stands alone
    page.goto((tmp_path / "out.html").as_uri())
    video = page.locator("video")
    video.wait_for()
    assert video.evaluate(LENGTH) == pytest.approx(5, abs=0.2)
    assert video.get_attribute("poster").startswith("data:image/jpeg;base64,")
    text = page.inner_text("body")
    assert "SANDBOX" in text
    assert "Traceback" not in text
    page.screenshot(path=str(SCREENSHOTS / "marimo-exported.png"), full_page=True)
    assert sandbox.paid == 1


def test_the_example_is_a_script_too(tmp_path, sandbox):
    done = subprocess.run(
        [sys.executable, str(NOTEBOOK)],
        cwd=tmp_path, capture_output=True, text=True,
        env=kernel_environment(tmp_path, sandbox.base_url),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "✔" in done.stdout
    assert sandbox.paid == 1
