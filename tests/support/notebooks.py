"""Notebooks, and the environment of the processes that run them."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"  # for people to look at


def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """What the condition gives once it is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.02)
    return value


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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
