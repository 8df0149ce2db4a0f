"""How errors look in a cell: one line and a hint, and still a real ``error`` output.

IPython shows what an exception's ``_render_traceback_`` returns in place of its traceback, and
the run fails all the same: nbclient, papermill and nbmake stop there. Text on stderr would let
them pass.
"""

from __future__ import annotations

import re
from typing import TypeVar

E = TypeVar("E", bound=BaseException)

_COMMANDS = (
    "balance config cost demo download export extend frames generate history jobs models recover "
    "sandbox show version wait"
)
_SHELL = re.compile(rf"(?<![%\w/.-])kling (?=(?:{_COMMANDS.replace(' ', '|')}|-h)\b)")
short = True  # %config KlingMagics.short_errors


def in_notebook(text: str) -> str:
    """The commands in a message as they are typed in a cell."""
    return _SHELL.sub("%kling ", text)


def presentable(error: E) -> E:
    """The error, short when it is shown in a cell (unless full tracebacks are wanted)."""
    if short:
        error._render_traceback_ = lambda: rendered(error)  # type: ignore[attr-defined]
    elif "_render_traceback_" in vars(error):
        del error._render_traceback_  # type: ignore[attr-defined]
    return error


def rendered(error: BaseException) -> list[str]:
    """The lines of an error without a traceback."""
    first, *hints = in_notebook(str(error)).splitlines() or [""]
    return [f"{type(error).__name__}: {first}", *hints]
