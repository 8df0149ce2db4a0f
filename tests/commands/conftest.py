"""The command as a shell runs it: a process of its own, its ledger in a folder of the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kling_integrations import Ledger
from kling_integrations.sandbox import Sandbox

CAT = "A cat on a roof"

NOT_OURS = (
    "AIML_API_KEY",
    "AIMLAPI_API_KEY",
    "AIMLAPI_KEY",
    "AIML_BASE_URL",
    "KLING_HOME",
    "COLUMNS",
)


class Ended:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        """The only thing on stdout, which is one object on one line."""
        assert self.out.count("\n") == 1, self.out
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def path(self) -> Path:
        """The only thing on stdout, after success."""
        assert self.code == 0, self
        assert self.out.count("\n") == 1, self
        return Path(self.out.strip())

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


class Shell:
    """``shell("generate", "A cat")`` runs ``kling generate "A cat"``; ``start`` does not wait."""

    def __init__(self, folder: Path, base_url: str | None, key: str | None = "sandbox") -> None:
        self.folder = folder
        self.home = folder / "home"
        self.env = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
        self.env |= {"KLING_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}
        if base_url:
            self.env["AIML_BASE_URL"] = base_url
        if key:
            self.env["AIML_API_KEY"] = key

    def __call__(self, *words: str, stdin: str | None = None, **env: str) -> Ended:
        done = subprocess.run(
            self.line(*words),
            cwd=self.folder,
            env=self.env | env,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.line(*words),
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def line(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "kling_integrations", *words]

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.home / "ledger.sqlite3")


def end_of(process: subprocess.Popen[str], interrupt: bool = False) -> Ended:
    """Waits for a started command, after Ctrl-C if so wished."""
    if interrupt:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return Ended(process.returncode, out, err)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Jobs of 100 gateway seconds, 200 of which pass in a second."""
    with Sandbox(speed=200, seconds=100, size=(160, 90), fps=8, seed=5) as running:
        yield running


@pytest.fixture
def endless() -> Iterator[Sandbox]:
    """Jobs that run until the test ends them."""
    with Sandbox(speed=200, seconds=float("inf"), size=(160, 90), fps=8, seed=6) as running:
        yield running


@pytest.fixture
def shell(sandbox: Sandbox, tmp_path: Path) -> Shell:
    return Shell(tmp_path, sandbox.base_url)


@pytest.fixture
def shell_on(tmp_path: Path) -> Callable[..., Shell]:
    """``shell_on(sandbox)``: a shell for another gateway, or for none."""

    def make(gateway: Sandbox | None = None, key: str | None = "sandbox") -> Shell:
        return Shell(tmp_path, gateway.base_url if gateway else None, key)

    return make
