"""A shell, kernels and a JupyterLab in Chromium, all against a sandbox of their own."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kling_integrations.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"


def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """What the condition gives once it is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.02)
    return value


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Jobs of 100 gateway seconds, 1,000 of which pass in a second; small pictures."""
    with Sandbox(speed=1000, seconds=100, size=(160, 90), fps=8, seed=3) as running:
        yield running


@pytest.fixture
def home(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's environment: a gateway, a key, an empty ledger; inside the notebook's folder."""
    for name in ("AIMLAPI_API_KEY", "AIMLAPI_KEY", "JPY_SESSION_NAME", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIML_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("AIML_API_KEY", "sk-not-for-show")
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


class Shell:
    """An InteractiveShell with the extension: what a cell shows, raises and returns."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        InteractiveShell.clear_instance()
        self.ip = InteractiveShell.instance(config=config)
        self.ip.run_line_magic("load_ext", "kling_integrations")
        self._capsys = capsys
        self.text = ""

    def run(self, code: str) -> Any:
        """Runs a cell; raises what it raised, returns what it returned."""
        self._capsys.readouterr()
        result = self.ip.run_cell(code)
        captured = self._capsys.readouterr()
        self.text = captured.out + captured.err
        result.raise_error()
        return result.result

    def __getitem__(self, name: str) -> Any:
        return self.ip.user_ns[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.ip.user_ns[name] = value

    def close(self) -> None:
        from IPython.core.interactiveshell import InteractiveShell

        self.ip.run_line_magic("unload_ext", "kling_integrations")
        InteractiveShell.clear_instance()


@pytest.fixture
def shell(home: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    made = Shell(capsys)
    yield made
    made.close()


# --- notebooks and kernels -----------------------------------------------------------------------


def notebook(*cells: str) -> Any:
    """A notebook of code cells, the extension loaded in the first."""
    from nbformat import v4

    made = v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
    )
    made.cells = [v4.new_code_cell("%load_ext kling_integrations")]
    made.cells += [v4.new_code_cell(cell) for cell in cells]
    return made


def kernel_environment(folder: Path, base_url: str | None) -> dict[str, str]:
    """For processes: nothing of this user's Jupyter, the checkout importable."""
    hidden = ("AIMLAPI_API_KEY", "AIMLAPI_KEY", "CI", "JPY_SESSION_NAME")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {
        "KLING_HOME": str(folder / "home"),
        "AIML_API_KEY": "sk-not-for-show",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    if base_url:
        env["AIML_BASE_URL"] = base_url
    return env


def texts(output: Any) -> str:
    """All text of a cell's outputs."""
    return json.dumps(output)


# --- JupyterLab ----------------------------------------------------------------------------------


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
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        (of or self.page).screenshot(path=str(SCREENSHOTS / f"{name}.png"))

    def locate(self, selector: str) -> Any:
        return self.page.locator(f".jp-NotebookPanel:not(.lm-mod-hidden) {selector}")

    @property
    def text(self) -> str:
        return str(self.locate(".jp-Notebook").inner_text())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


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
