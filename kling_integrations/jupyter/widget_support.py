"""Whether the page of this notebook can show the live widget.

A widget has two halves: the kernel's, and JavaScript that the page loads from where Jupyter runs.
That is often another environment, and where it has no anywidget, or another version, each widget
would be an error message.
"""

from __future__ import annotations

import json
import os
import site
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

_SYSTEM = ("/usr/local", "/usr")


def can_show_widgets() -> bool:
    """Whether both halves are there, as far as can be told from here."""
    if find_spec("anywidget") is None or find_spec("ipywidgets") is None:
        return False
    servers = list(_server_prefixes())
    if not servers:  # no Jupyter server, or one that cannot be looked at
        return True
    mine = _minor(_version())
    folders = [*servers, Path(site.getuserbase()), *map(Path, _SYSTEM)]
    return any(_minor(found) == mine for found in map(_page_version, folders) if found)


def _server_prefixes() -> Iterator[Path]:
    """The environment of the process that started this kernel, if that is a Python."""
    parent = os.environ.get("JPY_PARENT_PID", "")
    if not parent.isdigit():
        return
    try:
        import psutil  # comes with ipykernel

        command = psutil.Process(int(parent)).cmdline()[:2]
    except Exception:  # noqa: BLE001 (not there, not ours, gone: then nothing is known)
        return
    for word in command:  # its interpreter, and a script such as …/bin/jupyter-lab
        path = Path(word)
        if path.is_absolute() and path.is_file() and path.parent.name in ("bin", "Scripts"):
            yield path.parent.parent


def _page_version(prefix: Path) -> str:
    package = prefix / "share" / "jupyter" / "labextensions" / "anywidget" / "package.json"
    try:
        return str(json.loads(package.read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError):
        return ""


def _version() -> str:
    try:
        return version("anywidget")
    except PackageNotFoundError:  # a copy without its metadata
        return ""


def _minor(number: str) -> list[str]:
    return number.split(".")[:2]
