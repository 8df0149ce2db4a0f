"""Notebook variables in a prompt: ``{name}``, ``{name.attr}``, ``{name[0]}``, ``{x:.2f}``.

IPython's own expansion is all or nothing and silent: one bad name, and the whole line stays as it
is. Here an unknown name is an error, before anything is paid; nothing is evaluated but look-ups;
braces that hold no identifier stay, so JSON and code pass; ``$`` has no meaning.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping
from typing import Any

from ..commands import UsageError
from ..core import catalog

_FIELD = re.compile(
    r"""\{\{ | \}\}
    | \{ (?P<name>[^\W\d]\w*)
         (?P<path>(?: \.[^\W\d]\w* | \[[^\[\]{}]*\] )*)
         (?: : (?P<format>[^{}]*) )?
      \}""",
    re.VERBOSE,
)
_STEP = re.compile(r"\.(\w+)|\[([^\]]*)\]")


def fill(text: str, names: Mapping[str, Any], what: str = "the prompt") -> str:
    """``text`` with its fields filled in from ``names``; ``{{`` and ``}}`` become braces.

    Raises UsageError for an unknown name, and for a value that is neither text nor a number.
    """
    opened = 0

    def put(match: re.Match[str]) -> str:
        nonlocal opened
        if match[0] == "{{":
            opened += 1
            return "{"
        if match[0] == "}}":
            if opened == 0:  # the end of nested JSON, not of a doubled brace
                return "}}"
            opened -= 1
            return "}"
        value = _value(match, names, what)
        try:
            return format(value, match["format"] or "")
        except (TypeError, ValueError) as error:
            raise UsageError(f"{match[0]} in {what}: {error}.") from None

    return _FIELD.sub(put, text)


def look_up(expression: str, names: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether ``expression`` (``name.attr[0]``) starts at a name, and its value then."""
    match = _FIELD.fullmatch("{" + expression + "}")
    if not match or match["name"] is None or match["format"] or match["name"] not in names:
        return False, None
    return True, _walk(match, names, expression)


def _value(match: re.Match[str], names: Mapping[str, Any], what: str) -> Any:
    name = match["name"]
    if name not in names:
        known = [each for each in names if not each.startswith("_")]
        raise UsageError(
            f"{match[0]} in {what}: there is no variable {name}."
            f"{catalog.did_you_mean(name, known)}",
            hint="To mean the braces themselves write {{…}}, or use --raw. Nothing was submitted.",
        )
    value = _walk(match, names, what)
    if isinstance(value, str | numbers.Number) or _is_scalar(value):
        return value
    raise UsageError(
        f"{match[0]} in {what} is a {type(value).__name__}: only text and numbers can be filled in."
    )


def _walk(match: re.Match[str], names: Mapping[str, Any], what: str) -> Any:
    value = names[match["name"]]
    for attribute, index in _STEP.findall(match["path"]):
        try:
            value = getattr(value, attribute) if attribute else value[_key(index)]
        except Exception as error:  # noqa: BLE001 (a look-up in any object of the user)
            raise UsageError(f"{match[0]} in {what}: {type(error).__name__}: {error}.") from None
    return value


def _key(index: str) -> int | str:
    index = index.strip()
    return int(index) if re.fullmatch(r"-?\d+", index) else index.strip("'\"")


def _is_scalar(value: Any) -> bool:
    """A NumPy or pandas value that is one text or number."""
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def fields_of(text: str) -> set[str]:
    """The names that ``fill`` would look up in ``text``."""
    return {match["name"] for match in _FIELD.finditer(text) if match["name"]}
