"""The one grammar behind ``kling …`` in a shell and ``%kling …`` in a notebook.

An integration parses a line with ``parser()``, hands the result to ``run`` together with its
``Console``, and shows what is raised: every mistake of the user or the gateway is a KlingError,
and an interrupt is StoppedWaiting. ``exit_code`` is the shell's code for it. The modules without
an underscore hold the commands, a group each; the others are their helpers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._arguments import (
    Parser,
    UsageError,
    add_command,
    day,
    dollars,
    flag,
    generation_arguments,
    request_from,
    seconds,
)
from ._console import Console
from ._context import connect, find, key_variable
from ._exit_codes import exit_code, failure
from ._hints import hint
from ._parser import parser, run
from ._target import is_foreign, refused, request_name
from ._text import clean, columns, cut, money, one_line, size

if TYPE_CHECKING:
    from .batch import batch_from, report_dry_run
    from .generate import check_extension, extended_before
    from .history import history_table, matching
    from .info import print_status
    from .sandbox import starting_sandbox

__all__ = [
    "Console",
    "Parser",
    "UsageError",
    "add_command",
    "batch_from",
    "check_extension",
    "clean",
    "columns",
    "connect",
    "cut",
    "day",
    "dollars",
    "exit_code",
    "extended_before",
    "failure",
    "find",
    "flag",
    "generation_arguments",
    "hint",
    "history_table",
    "is_foreign",
    "key_variable",
    "matching",
    "money",
    "one_line",
    "parser",
    "print_status",
    "refused",
    "report_dry_run",
    "request_from",
    "request_name",
    "run",
    "seconds",
    "size",
    "starting_sandbox",
]

# What the notebook shares with single commands: loaded with these, when it is asked for.
_HOME_OF = {
    "batch_from": "batch",
    "check_extension": "generate",
    "extended_before": "generate",
    "history_table": "history",
    "matching": "history",
    "print_status": "info",
    "report_dry_run": "batch",
    "starting_sandbox": "sandbox",
}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
