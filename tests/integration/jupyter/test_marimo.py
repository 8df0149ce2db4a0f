"""In a real marimo: a session without magics, reactive re-runs, and what an export keeps."""

from __future__ import annotations

import mimetypes
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
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
    with Sandbox(speed=25, seconds=60, size=(320, 180), fps=12, seed=5) as running:
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


@pytest.fixture
def app(tmp_path: Path, sandbox: Sandbox) -> Iterator[str]:
    """The address of the example, run as an app."""
    shutil.copy(NOTEBOOK, tmp_path)
    port = free_port()
    log = (tmp_path / "marimo.log").open("w")
    process = subprocess.Popen(
        [*MARIMO, "run", NOTEBOOK.name, "--headless", "--no-token", "--port", str(port)],
        cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT,
        env=kernel_environment(tmp_path, sandbox.base_url),
    )  # fmt: skip

    def ready() -> bool:
        assert process.poll() is None, (tmp_path / "marimo.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(ready, 60, "marimo listens")
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(15)
    log.close()


def test_the_card_is_live_then_plays_and_twenty_reruns_pay_once(app, page, sandbox):
    page.goto(app)
    page.get_by_text("generating").wait_for()
    until(lambda: " of about " in page.inner_text("body"))
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
