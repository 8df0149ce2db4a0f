"""A JupyterLab in Chromium, against a sandbox of its own."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.notebooks import SCREENSHOTS, free_port, kernel_environment, notebook, until

from kling_integrations.sandbox import Sandbox


class Lab:
    """A JupyterLab server and one browser page."""

    def __init__(self, folder: Path, base_url: str, page: Any, port: int) -> None:
        self.folder = folder
        self.base_url = base_url
        self.page = page
        self._at = f"http://127.0.0.1:{port}"
        self.name = ""

    def write(self, name: str, *cells: str) -> Path:
        import nbformat

        path = self.folder / name
        nbformat.write(notebook(*cells), path)
        return path

    def open(self, name: str) -> None:
        self.name = name
        self.page.goto(f"{self._at}/lab/tree/{name}?reset")
        self.open_again()
        self.idle()

    def open_again(self) -> None:
        """After a reload; the kernel may be busy."""
        self.page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.context?.isReady")

    def idle(self, seconds: float = 60) -> None:
        """Until the kernel of the open notebook has nothing to do."""
        self.page.wait_for_function(
            "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status==='idle'",
            timeout=seconds * 1000,
        )

    def execute(self, command: str) -> None:
        self.page.evaluate(f"window.jupyterapp.commands.execute('{command}')")

    def start_all(self) -> None:
        """Starts running all cells, without waiting for them."""
        self.page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def run_all(self, seconds: float = 60) -> None:
        self.page.set_default_timeout(seconds * 1000)
        self.execute("notebook:run-all-cells")
        self.page.set_default_timeout(30_000)
        self.idle()

    def save(self) -> Any:
        """The notebook as it was saved."""
        self.execute("docmanager:save")
        import nbformat

        return nbformat.read(self.folder / self.name, as_version=4)

    def end_kernel(self) -> None:
        self.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")

    def shot(self, name: str, of: Any = None) -> None:
        """A picture of the page, or of one element of it, for people to look at."""
        (of or self.page).screenshot(path=str(SCREENSHOTS / f"{name}.png"))

    def scheme(self, name: str) -> None:
        """``Light`` or ``Dark``."""
        change = f"commands.execute('apputils:change-theme', {{theme: 'JupyterLab {name}'}})"
        self.page.evaluate(f"window.jupyterapp.{change}")
        self.page.wait_for_selector(f"body[data-jp-theme-name$='{name}']", state="attached")
        self.page.wait_for_timeout(500)  # for the picture: the new style sheet fades in

    def locate(self, selector: str) -> Any:
        return self.page.locator(f".jp-NotebookPanel:not(.lm-mod-hidden) {selector}")

    @property
    def text(self) -> str:
        return str(self.locate(".jp-Notebook").inner_text())


@pytest.fixture(scope="module")
def lab_sandbox() -> Iterator[Sandbox]:
    """Jobs take 60 of its seconds, 25 to a second; with [hold] until ``finish``."""

    def seconds(model: str, payload: Mapping[str, Any]) -> float:
        return math.inf if "[hold]" in str(payload.get("prompt")) else 60.0

    with Sandbox(speed=25, seconds=seconds, size=(640, 360), fps=12, seed=5) as running:
        yield running


@pytest.fixture(scope="module")
def lab_server(
    tmp_path_factory: pytest.TempPathFactory, lab_sandbox: Sandbox
) -> Iterator[tuple[Path, int]]:
    base = tmp_path_factory.mktemp("lab")
    folder = base / "notebooks"
    folder.mkdir()
    config = base / "config" / "labconfig"
    config.mkdir(parents=True)
    news = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (config / "page_config.json").write_text(json.dumps(news))
    port = free_port()
    log = (base / "lab.log").open("w")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            f"--ServerApp.port={port}",
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            "--ServerApp.disable_check_xsrf=True",
            "--LabApp.expose_app_in_browser=True",
        ],
        cwd=folder,
        env=kernel_environment(base, lab_sandbox.base_url),
        stdout=log,
        stderr=subprocess.STDOUT,
    )

    def ready() -> bool:
        assert process.poll() is None, (base / "lab.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(ready, 60, "JupyterLab listens")
    yield folder, port
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
    log.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no chromium: scripts/need_chromium.sh installs it")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def lab(lab_server: tuple[Path, int], lab_sandbox: Sandbox, chromium: Any) -> Iterator[Lab]:
    folder, port = lab_server
    context = chromium.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    made = Lab(folder, lab_sandbox.base_url, page, port)
    yield made
    made.end_kernel()
    context.close()
