"""``%%kling`` and ``%kling``: Kling videos in a notebook.

``%load_ext kling_integrations`` adds both. One watcher thread per kernel carries all generations
(``watcher``, ``job``); a cell shows a static card and a live strip (``display``). From Python:
``generate``, ``submit``, ``history`` and the others of ``api``, which need no magics.
"""

from __future__ import annotations

from typing import Any

import kling_integrations

__all__ = ["load_ipython_extension", "unload_ipython_extension"]
# The package lists its public names, and where they are: these are those of the notebook.
__all__.extend(kling_integrations.names_in("jupyter"))


def load_ipython_extension(shell: Any) -> None:
    """Adds the magics and the completion; loading again changes nothing."""
    from .magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Takes both away and ends the watcher; generations go on at the gateway."""
    from .magics import unload

    unload(shell)


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(kling_integrations, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
