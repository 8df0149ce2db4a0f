"""``%%kling`` and ``%kling``: the notebook's front door.

``%load_ext kling_integrations`` adds both. One watcher thread per kernel carries all generations
(``watcher``, ``job``); a cell shows a static card and a live strip (``cards``, ``display``).
From Python: ``submit``, ``generate`` and ``gallery``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .magics import KlingMagics

_loaded: KlingMagics | None = None


def load_ipython_extension(shell: Any) -> None:
    """Adds the magics and the completion; loading again changes nothing."""
    global _loaded  # noqa: PLW0603 (one kernel, one set of magics)
    if _loaded is not None and _loaded.shell is shell:
        return
    from . import completion
    from .magics import KlingMagics

    _loaded = KlingMagics(shell)
    _loaded.register()
    completion.install(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Takes both away and ends the watcher; generations go on at the gateway."""
    global _loaded  # noqa: PLW0603
    if _loaded is None:
        return
    from . import completion

    completion.uninstall(shell)
    _loaded.unregister()
    _loaded.close()
    _loaded = None


def loaded() -> KlingMagics | None:
    """The magics of this kernel, if they are loaded."""
    return _loaded


def __getattr__(name: str) -> Any:
    if name in ("Job", "KlingVideo", "gallery", "generate", "submit"):
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
