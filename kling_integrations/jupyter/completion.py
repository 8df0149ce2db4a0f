"""Tab completion for both magics: flags, models, values, subcommands, ids, variables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..core.catalog import Model

_LINE = re.compile(r"(?:^|\n)\s*(?:[\w.,\s]+=\s*)?(%%?)kling\b(?P<rest>[^\n]*)$")


def install(shell: Any) -> None:
    """Adds the matcher, where IPython is new enough to have such."""
    try:
        from IPython.core.completer import context_matcher
    except ImportError:  # before 8.6: no completion, everything else works
        return

    @context_matcher()  # type: ignore[untyped-decorator]
    def kling_matcher(context: Any) -> Any:
        return matches(context.text_until_cursor, context.token, shell.user_ns)

    uninstall(shell)
    shell.Completer.custom_matchers.append(kling_matcher)


def uninstall(shell: Any) -> None:
    """Takes the matcher away."""
    completer = getattr(shell, "Completer", None)
    matchers = getattr(completer, "custom_matchers", None)
    if matchers is not None:
        matchers[:] = [m for m in matchers if getattr(m, "__name__", "") != "kling_matcher"]


def matches(text: str, token: str, names: Mapping[str, Any]) -> Any:
    """IPython's answer for the text before the cursor, whose last ``token`` is replaced."""
    from IPython.core.completer import SimpleCompletion

    found = _LINE.search(text)
    if not found:
        return {"completions": []}
    rest = found["rest"]
    if rest and not rest[0].isspace():
        return {"completions": []}
    typed = re.split(r"\s", rest)[-1]
    before = rest[: len(rest) - len(typed)].split()
    options = candidates(found[1] == "%%", before, typed, names)
    fits = [word for word in dict.fromkeys(options) if word.startswith(typed)]
    # IPython replaces only its own token, which is cut at dashes and the like.
    unchanged = len(typed) - len(token) if typed.endswith(token) else 0
    return {
        "completions": [SimpleCompletion(text=word[unchanged:], type="param") for word in fits],
        "suppress": True,
        "ordered": True,
    }


def candidates(
    cell: bool, before: list[str], typed: str, names: Mapping[str, Any]
) -> Iterable[str]:
    """The words that can stand here."""
    from .cell_magic import cell_parser
    from .line_magic import line_parser, subcommands

    if cell:
        parser: Any = cell_parser()
    else:
        root = line_parser()
        commands = subcommands(root)
        command = next((word for word in before if not word.startswith("-")), None)
        if command is None:
            return _flags(root) if typed.startswith("-") else commands
        if command not in commands:
            return ()
        parser = commands[command]
    flag, sign, _ = typed.partition("=")
    if sign and flag.startswith("--"):
        return [f"{flag}={value}" for value in _values(parser, flag, before, names)]
    last = before[-1] if before else ""
    if _takes_value(parser, last):
        return _values(parser, last, before, names)
    if typed.startswith("-"):
        return _flags(parser)
    return _positional(cell, before, names)


def _flags(parser: Any) -> list[str]:
    return sorted(word for word in parser._option_string_actions if word.startswith("--"))


def _takes_value(parser: Any, flag: str) -> bool:
    action = parser._option_string_actions.get(flag)
    return action is not None and action.nargs != 0


def _positional(cell: bool, before: list[str], names: Mapping[str, Any]) -> list[str]:
    if cell:
        return _models() if not before else []
    command = before[0]
    if command in ("show", "wait", "download", "export", "extend", "frames", "compare"):
        extra = {"wait": ["all"], "show": ["last"]}.get(command, [])
        return [*_results(names), *extra, *_ids()]
    if command == "forget":
        return _forgettable()
    return _models() if command == "models" else []


def _values(parser: Any, flag: str, before: list[str], names: Mapping[str, Any]) -> list[str]:
    """Values of a flag; those of the chosen model where it knows them."""
    action = parser._option_string_actions.get(flag)
    if action is None:
        return []
    if action.choices:
        return [str(choice) for choice in action.choices]
    if action.dest in ("model", "models"):
        return _models()
    if action.dest in ("image", "tail_image"):
        return _pictures(names)
    if action.dest in ("param", "sweep"):
        return sorted({f"{name}=" for model in _chosen(before) for name in model.parameters})
    values: dict[str, None] = {}
    for model in _chosen(before):
        known = model.parameters.get(action.dest)
        values.update(dict.fromkeys(str(value) for value in known.enum) if known else {})
    return list(values)


def _chosen(before: list[str]) -> Iterable[Model]:
    from ..core import catalog

    words = before or [catalog.DEFAULT_MODEL]
    for word in words:
        if group := catalog.candidates(word):
            return group
    return catalog.candidates(catalog.DEFAULT_MODEL)


def _models() -> list[str]:
    from ..core import catalog

    known = [model for model in catalog.models() if model.output == "video"]
    return [*dict.fromkeys(model.alias for model in known), *(model.id for model in known)]


def _pictures(names: Mapping[str, Any]) -> list[str]:
    """Variables that can be an image, by the name of their type, so that nothing is imported."""
    kinds = {"ndarray", "Figure", "Image", "PosixPath", "WindowsPath", "bytes", "Tensor"}
    fits = [
        name
        for name, value in names.items()
        if not name.startswith("_") and any(kind.__name__ in kinds for kind in type(value).__mro__)
    ]
    return [*_results(names), *fits]


def _results(names: Mapping[str, Any]) -> list[str]:
    from .job import Job
    from .video import KlingVideo

    return [
        name
        for name, value in names.items()
        if isinstance(value, Job | KlingVideo) and not name.startswith("_")
    ]


def _ids() -> list[str]:
    from ..core.errors import LedgerError
    from .session import current

    try:
        entries = current().ledger.history(20)
    except LedgerError:
        return []
    return [entry.generation_id for entry in entries if entry.generation_id]


def _forgettable() -> list[str]:
    """Generations that are waited for, and the client request ids of submissions in doubt."""
    from ..core import settings
    from ..core.errors import LedgerError
    from .session import current

    base_url, ledger = settings.base_url(), current().ledger
    try:
        running, in_doubt = ledger.running(base_url), ledger.uncertain(base_url)
    except LedgerError:
        return []
    ids = [entry.generation_id for entry in reversed(running)]
    return [each for each in (*ids, *(e.record.client_request_id for e in in_doubt)) if each]
