"""How errors look in a cell: one line and the next steps, and still a real ``error`` output.

IPython shows what an exception's ``_render_traceback_`` returns in place of its traceback, and
the run fails all the same: nbclient, papermill and nbmake stop there. Text on stderr would let
them pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from ..core.errors import KlingError, KlingWarning, StoppedWaiting, describe
from .hints import hint
from .options import options

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")
T = TypeVar("T")


def presentable(error: E) -> E:
    """The error in the notebook's words, short in a cell (unless full tracebacks are wanted)."""
    if isinstance(error, KlingError | StoppedWaiting):
        error.words = hint
    if options().short_errors:
        error._render_traceback_ = lambda: rendered(error)  # type: ignore[attr-defined]
    elif "_render_traceback_" in vars(error):
        del error._render_traceback_  # type: ignore[attr-defined]
    return error


def presented(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose errors are presentable. A notebook without IPython, such as marimo, shows
    a traceback of its own: it ends here, where full ones are not wanted."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (KlingError, StoppedWaiting) as error:
            if options().short_errors:
                error.__traceback__ = None
            raise presentable(error) from None

    return call


def lines_of(error: BaseException) -> list[str]:
    """What happened, then what can be done next, in the notebook's words; never empty."""
    return describe(error, hint).splitlines() or [""]


def rendered(error: BaseException) -> list[str]:
    """The lines of an error without a traceback."""
    first, *more = lines_of(error)
    return [f"{type(error).__name__}: {first}", *more]


def noting(make: Callable[[], T]) -> tuple[T, list[str]]:
    """What ``make`` returns, and what it warned of: notes of a cell, or part of a refusal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", KlingWarning)
        made = make()
    return made, [str(each.message) for each in caught]
