"""``%%kling`` and ``%kling``: the notebook's front door.

``%load_ext kling_integrations`` adds both. One watcher thread per kernel carries all generations
(``watcher``, ``job``); a cell shows a static card and a live strip (``cards``, ``display``).
From Python: ``submit``, ``generate`` and ``gallery``.
"""

from __future__ import annotations

from typing import Any

_WITH = "kling"


def load_ipython_extension(shell: Any) -> None:
    """Adds the magics and the completion; loading again changes nothing."""
    from . import completion, session
    from .magics import KlingMagics, help_text

    if session._current is not None and session._current.shell is shell:
        return
    magics = KlingMagics(shell)
    shell.register_magics(magics)
    # What %%kling? and %kling? show.
    vars(KlingMagics)["cell"].__doc__ = help_text()
    vars(KlingMagics)["line"].__doc__ = completion.line_help()
    completion.install(shell)
    session.make_current(magics.session)


def unload_ipython_extension(shell: Any) -> None:
    """Takes both away and ends the watcher; generations go on at the gateway."""
    from . import completion, session

    if session._current is None:
        return
    completion.uninstall(shell)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop(_WITH, None)
    magics = session._current.options
    if magics in shell.configurables:
        shell.configurables.remove(magics)
    session._current.close()
    session.make_current(None)


def __getattr__(name: str) -> Any:
    if name in ("Job", "KlingVideo", "gallery", "generate", "submit"):
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
