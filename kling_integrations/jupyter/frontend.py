"""Where the notebook is, and whose messages a thread sends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import Context, ContextVar
from pathlib import Path
from typing import Any


def notebook_folder(shell: Any) -> Path:
    """Where the notebook is, as far as its frontend tells, else the current folder.

    Asked when the extension is loaded: users change the folder later, the notebook stays.
    """
    told = os.environ.get("JPY_SESSION_NAME") or ""
    namespace: Mapping[str, Any] = getattr(shell, "user_ns", {})
    for name in (told, str(namespace.get("__vsc_ipynb_file__", ""))):
        path = Path(name)
        if name.endswith(".ipynb") and path.is_absolute() and path.parent.is_dir():
            return path.parent
    return Path.cwd()


def background_context(shell: Any) -> Context:
    """For a thread that updates displays and widgets of cells that may have ended.

    Display updates are sent as the running cell's, which is what headless runners read. Messages
    of widgets are sent as nobody's: ipykernel 7.4 hands a click back to the subshell of the
    request that the widget last spoke under, and after a reload of the page that is gone.
    """
    context = Context()
    parent = getattr(getattr(shell, "kernel", None), "_shell_parent", None)
    if isinstance(parent, ContextVar):
        context.run(parent.set, {})
    return context
