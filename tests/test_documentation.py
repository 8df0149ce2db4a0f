"""The documentation: it builds without a warning, and all that it shows runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kling_integrations.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name != "faults.md"),
]
_BLOCK = re.compile(r"^```(python|sh|ipython)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    return [found for found in _BLOCK.findall(page.read_text()) if found[0] in languages]


def having(*languages: str) -> list[object]:
    return [
        pytest.param(page, id=page.relative_to(ROOT).as_posix())
        for page in PAGES
        if blocks(page, *languages)
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A newcomer's folder, with a sandbox in the environment."""
    with Sandbox(speed=1000, seconds=100, size=(160, 90), fps=8) as sandbox:
        monkeypatch.setenv("AIML_BASE_URL", sandbox.base_url)
        monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
        for name in ("AIML_API_KEY", "AIMLAPI_API_KEY", "AIMLAPI_KEY", "KLING_LEDGER"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        yield tmp_path / "work"


@pytest.mark.thorough
@pytest.mark.parametrize("page", having("python"))
def test_the_python_of_a_page_runs(page, folder):
    for _, code in blocks(page, "python"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.thorough
@pytest.mark.parametrize("page", having("sh"))
def test_the_commands_of_a_page_run(page, folder):
    for _, code in blocks(page, "sh"):
        done = subprocess.run(["sh", "-e", "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.thorough
@pytest.mark.parametrize("page", having("ipython"))
def test_the_cells_of_a_page_run(page, folder):
    cells = [code for _, code in blocks(page, "ipython")]
    script = (
        "import json, sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "for cell in json.load(sys.stdin):\n"
        "    shell.run_cell(cell.replace('%kling sandbox', 'pass')).raise_error()\n"
    )
    import json

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        input=json.dumps(cells),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.thorough
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "trees")]
        + ["-b", "html", str(ROOT / "docs"), str(tmp_path / "site")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "--max-cost" in (tmp_path / "site" / "reference" / "command-line.html").read_text()
    assert "reference:" not in (tmp_path / "site" / "reference" / "exit-codes.html").read_text()
