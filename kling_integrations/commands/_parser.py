"""The whole grammar, assembled from the command modules, and the run of one parsed line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._arguments import Parser

if TYPE_CHECKING:
    from ._console import Console

# Each module and the commands that it adds, in the order of the help.
_COMMANDS_OF = {
    "generate": ("generate", "gen", "extend"),
    "batch": ("batch",),
    "contact_sheet": ("contact-sheet",),
    "wait": ("wait", "download"),
    "history": ("jobs", "show", "history"),
    "export": ("frames", "export"),
    "models": ("models", "cost", "balance"),
    "recover": ("recover",),
    "forget": ("forget",),
    "info": ("config", "version"),
    "sandbox": ("sandbox", "demo"),
}

_EXIT_CODES = """\
exit codes: 0 done · 1 the generation failed · 2 usage, or a request, key or balance that is
refused · 3 still running (timeout, Ctrl-C, --detach) · 4 gateway, network or disk trouble ·
5 it is not certain whether the submission was taken (see: %(prog)s recover) · 143 SIGTERM"""


def parser(prog: str = "kling", words: Sequence[str] = ()) -> Parser:
    """The grammar of all commands. ``prog`` is how the user calls it, for help and messages.

    ``words``, the line to be parsed, spares it the commands that the line does not name: loading
    them all takes longer than a look at what is running.
    """
    root = Parser(
        prog=prog,
        description="Kling AI video generation: never pay twice, never lose what was paid for.",
        epilog=_EXIT_CODES,
    )
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", parser_class=Parser
    )
    first = next((word for word in words if not word.startswith("-")), None)
    named = [module for module, names in _COMMANDS_OF.items() if first in names]
    for module in named or _COMMANDS_OF:
        _module(module).add(commands)
    for each in dict.fromkeys((root, *commands.choices.values())):
        _add_global_flags(each)
    root.set_defaults(run=_run_status)
    return root


def _module(name: str) -> Any:
    return import_module(f"{__package__}.{name}")


def _run_status(args: argparse.Namespace, console: Console) -> int:
    code: int = _module("info").run_status(args, console)
    return code


def _add_global_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that stand before or after the subcommand's name."""
    add = parser.add_argument_group("everywhere").add_argument
    absent = argparse.SUPPRESS  # a subcommand's default would undo what stands before its name
    add("--json", action="store_true", default=absent, help="one JSON object on stdout")
    add("--debug", action="store_true", default=absent, help="show tracebacks")


def run(args: argparse.Namespace, console: Console) -> int:
    """Runs a parsed line; returns the exit code.

    Raises KlingError, and StoppedWaiting on an interrupt, for the caller to show.
    """
    command = _module("info").run_version if getattr(args, "version", False) else args.run
    code: int = command(args, console)
    return code
