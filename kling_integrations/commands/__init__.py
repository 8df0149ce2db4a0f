"""The one grammar behind ``kling …`` in a shell and ``%kling …`` in a notebook.

A front door parses a line with ``parser()``, hands the result to ``run`` together with the
``Console`` it offers, and shows what is raised: every mistake of a user or of the gateway is a
KlingError, and an interrupt is StoppedWaiting. ``exit_code`` says what a shell should be told.
"""

from __future__ import annotations

from ._hints import hint
from ._console import Console
from ._arguments import Parser, UsageError, generation_arguments, parser, request_from, run
from ._exit_codes import exit_code, failure

__all__ = [
    "Console",
    "Parser",
    "UsageError",
    "exit_code",
    "failure",
    "generation_arguments",
    "hint",
    "parser",
    "request_from",
    "run",
]
