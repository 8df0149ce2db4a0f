"""The one grammar behind ``kling …`` in a shell and ``%kling …`` in a notebook.

A front door parses a line with ``parser()``, hands the result to ``run`` together with the
``Console`` it offers, and shows what is raised: every mistake of a user or of the gateway is a
KlingError, and an interrupt is StoppedWaiting. ``exit_code`` says what a shell should be told.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from . import access
from ._hints import hint
from .access import find, key_variable
from .console import Console, ago, clean, columns, cut, money, one_line, size
from .grammar import Parser as _Parser
from .grammar import (
    UsageError,
    dollars,
    flag,
    generation_arguments,
    parser,
    request_from,
    run,
    seconds,
)
from .grammar import command as add_command
from .outcome import exit_code, failure

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ..core.storage.ledger import Ledger


class Parser(_Parser):
    def __init__(self, *args: Any, stray_advice: str = "", **options: Any) -> None:
        super().__init__(*args, stray=stray_advice, **options)


def connect(ledger: Ledger | None = None) -> KlingClient:
    return access.connect(argparse.Namespace(), ledger)


def print_status(
    console: Console,
    *,
    ways_in: Sequence[tuple[str, str]],
    without_key: Sequence[tuple[str, str]],
    facts: Sequence[tuple[str, str]] = (),
    running: Collection[str] = (),
) -> None:
    from ..core import settings
    from ..core.storage.ledger import Ledger
    from ..version import __version__

    base_url = settings.base_url()
    sandbox = settings.is_sandbox(base_url)
    key = key_variable()
    known = {entry.generation_id for entry in Ledger().running(base_url)} | set(running)
    console.say(f"kling-integrations {__version__}")
    console.say(f"  gateway  {base_url}{'  (SANDBOX: nothing is real)' if sandbox else ''}")
    console.say(f"  key      {f'from {key}' if key else 'none needed' if sandbox else 'none'}")
    for name, value in facts:
        console.say(f"  {name:<9}{value}")
    if known:
        console.say(f"  running  {len(known)}")
    for way, what in [*ways_in] if key or sandbox else [*without_key, *ways_in]:
        console.say(f"  {way:<24}{what}")


__all__ = [
    "Console",
    "Parser",
    "UsageError",
    "add_command",
    "ago",
    "clean",
    "columns",
    "connect",
    "cut",
    "dollars",
    "exit_code",
    "failure",
    "find",
    "flag",
    "generation_arguments",
    "hint",
    "key_variable",
    "money",
    "one_line",
    "parser",
    "print_status",
    "request_from",
    "run",
    "seconds",
    "size",
]
