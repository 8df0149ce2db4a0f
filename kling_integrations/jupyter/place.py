"""Where the notebook is."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
