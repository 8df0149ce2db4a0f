"""Whether the page of this notebook can show the live widget.

A widget has two halves: the kernel's, and JavaScript that the page loads from where Jupyter runs.
That is often another environment, and where it has no anywidget, or another version, each widget
would be an error message.
"""

from __future__ import annotations

import json
import os
import site
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_SYSTEM = ("/usr/local", "/usr")
_PROGRAMS = ("bin", "Scripts")  # the folders of an environment that hold programs


class Server(NamedTuple):
    """The process that started this kernel: its environments, and when it began (epoch)."""

    prefixes: list[Path]
    started: float


def can_show_widgets() -> bool:
    """Whether both halves are there, as far as can be told from here."""
    if find_spec("anywidget") is None or find_spec("ipywidgets") is None:
        return False
    server = _server()
    if server is None:  # no Jupyter server, or one that cannot be looked at
        return True
    mine = _minor(_version())
    folders = [*server.prefixes, Path(site.getuserbase()), *map(Path, _SYSTEM)]
    found = (_page_version(folder, server.started) for folder in folders)
    return any(_minor(each) == mine for each in found if each)


def _server() -> Server | None:
    parent = os.environ.get("JPY_PARENT_PID", "")
    if not parent.isdigit():
        return None
    try:
        import psutil  # comes with ipykernel

        process = psutil.Process(int(parent))
        command, started = process.cmdline()[:2], process.create_time()
    except Exception:  # noqa: BLE001 (not there, not ours, gone: then nothing is known)
        return None
    # Its interpreter, and a script such as …/bin/jupyter-lab.
    paths = [Path(word) for word in command]
    known = [each for each in paths if each.is_absolute() and each.parent.name in _PROGRAMS]
    return Server([each.parent.parent for each in known], started) if known else None


def _page_version(prefix: Path, started: float) -> str:
    """Which anywidget a page gets from there. What was installed since the server was started is
    none: a page that is open already does not have it."""
    package = prefix / "share" / "jupyter" / "labextensions" / "anywidget" / "package.json"
    try:
        if package.stat().st_ctime > started:
            return ""
        return str(json.loads(package.read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError):
        return ""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # it loads email, csv and zip

    try:
        return version("anywidget")
    except PackageNotFoundError:  # a copy without its metadata
        return ""


def _minor(number: str) -> list[str]:
    return number.split(".")[:2]
