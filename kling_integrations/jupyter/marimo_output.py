"""What marimo has in place of IPython's displays: a cell's output, and files that it serves.

Its output belongs to the thread that runs the cell: what another thread wants to show has to be
fetched by that one. marimo is only looked at where it runs already; it is never imported here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any


def running() -> Any:
    """The marimo package, where this thread runs a cell of it; else None."""
    marimo = sys.modules.get("marimo")
    runs = getattr(marimo, "running_in_notebook", None)
    return marimo if runs is not None and runs() else None


def served(marimo: Any, path: Path) -> str | None:
    """An address under which marimo serves a file; a data URI where nothing is served (exports).

    None for a file that cannot be read.
    """
    try:
        html = marimo.video(path).text
    except OSError:
        return None
    found = re.search(r"""src=(["'])(.*?)\1""", html)
    return found[2] if found else None


def serves_files() -> bool:
    """Whether it has a server for files; an export and a script have none."""
    from marimo._runtime.context import get_context

    return bool(get_context().virtual_files_supported)


class Output:
    """One output of the running cell, which can be replaced while the cell runs."""

    def __init__(self, marimo: Any, shown: Any) -> None:
        """``shown`` is data by MIME type, or a widget."""
        self._marimo = marimo
        self._index = _count()
        marimo.output.append(html(shown) if isinstance(shown, dict) else shown)

    def update(self, data: dict[str, Any], **_: Any) -> None:
        """As that of IPython's display handles."""
        self._marimo.output.replace_at_index(html(data), self._index)


def html(data: dict[str, Any]) -> Any:
    """Data by MIME type as an element of marimo; for a cell of it only."""
    marimo = running()
    if "text/html" in data:
        return marimo.Html(data["text/html"])
    return marimo.plain_text(data["text/plain"]) if data else marimo.Html("")


def _count() -> int:
    """Outputs of the running cell so far. marimo has no public word for it."""
    from marimo._runtime.context import get_context

    running = get_context().execution_context
    return len(running.output) if running is not None else 0
