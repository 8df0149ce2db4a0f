"""How errors look in a cell: one line and the next steps, and still a real ``error`` output.

IPython shows what an exception's ``_render_traceback_`` returns in place of its traceback, and
the run fails all the same: nbclient, papermill and nbmake stop there. Text on stderr would let
them pass.
"""

from __future__ import annotations

from typing import TypeVar

from ..core.errors import describe
from .hints import hint
from .options import options

E = TypeVar("E", bound=BaseException)


def presentable(error: E) -> E:
    """The error, short when it is shown in a cell (unless full tracebacks are wanted)."""
    if options().short_errors:
        error._render_traceback_ = lambda: rendered(error)  # type: ignore[attr-defined]
    elif "_render_traceback_" in vars(error):
        del error._render_traceback_  # type: ignore[attr-defined]
    return error


def lines_of(error: BaseException) -> list[str]:
    """What happened, then what can be done next, in the notebook's words; never empty."""
    return describe(error, hint).splitlines() or [""]


def rendered(error: BaseException) -> list[str]:
    """The lines of an error without a traceback."""
    first, *more = lines_of(error)
    return [f"{type(error).__name__}: {first}", *more]
