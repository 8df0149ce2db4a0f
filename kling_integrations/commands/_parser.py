"""The whole grammar, assembled from the command modules, and the run of one parsed line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import (
    batch,
    contact_sheet,
    export,
    forget,
    generate,
    history,
    info,
    models,
    recover,
    sandbox,
    wait,
)
from ._arguments import Parser

if TYPE_CHECKING:
    from ._console import Console

_EXIT_CODES = """\
exit codes: 0 done · 1 the generation failed · 2 usage, or a request, key or balance that is
refused · 3 still running (timeout, Ctrl-C, --detach) · 4 gateway, network or disk trouble ·
5 it is not certain whether the submission was taken (see: %(prog)s recover) · 143 SIGTERM"""


def parser(prog: str = "kling") -> Parser:
    """The grammar of all commands. ``prog`` is how the user calls it, for help and messages."""
    root = Parser(
        prog=prog,
        description="Kling AI video generation: never pay twice, never lose what was paid for.",
        epilog=_EXIT_CODES,
    )
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", parser_class=Parser
    )
    for module in (
        generate,
        batch,
        contact_sheet,
        wait,
        history,
        export,
        models,
        recover,
        forget,
        info,
        sandbox,
    ):
        module.add(commands)
    for each in dict.fromkeys((root, *commands.choices.values())):
        _add_global_flags(each)
    root.set_defaults(run=info.run_status)
    return root


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
    command = info.run_version if getattr(args, "version", False) else args.run
    code: int = command(args, console)
    return code
