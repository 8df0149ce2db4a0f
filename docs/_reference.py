"""Parts of the documentation that are made of the code: grammars, options, exit codes, errors.

An extension of Sphinx: a line ``<!-- reference: NAME -->`` in a page becomes what ``NAME`` gives.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

from kling_integrations.commands import _exit_codes
from kling_integrations.commands._parser import parser
from kling_integrations.core import errors
from kling_integrations.jupyter.cell_magic import cell_parser
from kling_integrations.jupyter.line_magic import line_parser
from kling_integrations.jupyter.options import Options

_MARK = re.compile(r"^<!-- reference: (\w+) -->$", re.MULTILINE)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}


def _fill(app: Any, page: str, source: list[str]) -> None:
    source[0] = _MARK.sub(lambda mark: PARTS[mark[1]](), source[0])


def commands() -> str:
    return _of_subcommands(parser(), "kling")


def cell() -> str:
    return f"```text\n{cell_parser().format_help().strip()}\n```\n"


def line() -> str:
    return _of_subcommands(line_parser(), "%kling")


def _of_subcommands(grammar: argparse.ArgumentParser, prog: str) -> str:
    pages = []
    for action in grammar._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        names: dict[int, list[str]] = {}
        for name, sub in action.choices.items():
            names.setdefault(id(sub), []).append(name)
        known = {id(sub): sub for sub in action.choices.values()}
        for key, spelled in names.items():
            pages.append(
                f"## {prog} {spelled[0]}\n\n```text\n{known[key].format_help().strip()}\n```\n"
            )
    return "\n".join(pages)


def options() -> str:
    rows = (
        f"| `{field.name}` | `{field.default!r}` | {field.metadata['help']} |"
        for field in Options.__dataclass_fields__.values()
    )
    return "\n".join(("| option | default | meaning |", "|---|---|---|", *rows))


def exit_codes() -> str:
    rows = (f"| `{kind.__name__}` | {code} |" for kind, code in _exit_codes._CODES)
    return "\n".join(("| error | code |", "|---|---|", *rows))


def error_classes() -> str:
    rows = ["| error | when |", "|---|---|"]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.KlingError):
            text = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
            rows.append(f"| `{name}` | {text} |")
    return "\n".join(rows)


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "cell": cell,
    "line": line,
    "options": options,
    "exit_codes": exit_codes,
    "errors": error_classes,
}
