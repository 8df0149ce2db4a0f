"""A shell with the extension, against a sandbox of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kling_integrations.sandbox import Sandbox


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
