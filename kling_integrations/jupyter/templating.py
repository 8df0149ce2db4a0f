"""Notebook variables in a prompt: what stands in braces is filled in as f-strings do it.

IPython's own expansion is all or nothing and silent: one bad name, and the whole line stays as it
is. Here whatever is in braces and names a variable is filled in, or refused before anything is
paid. Braces around anything else (JSON, prose) are text; ``$`` has no meaning.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import numbers
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from ..commands import UsageError
from ..core import catalog, values
from ..core.validation import is_missing_text, placeholders

_WORD = re.compile(r"[^\W\d]\w*")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_DOUBLED = re.compile(r"\{\{([^{}]*)(\}\}?)?")
_JINJA = re.compile(r"\s.*|.*\s|.*\|.*|-.*", re.DOTALL)  # {{ x }}, {{x|f}}, {{- x }}
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_LONGEST = 500  # characters of an expression
_MOST_ENDS = 8  # closing braces among which that of a field is looked for
_ITEM = "__kling_item__"
_RAW = "To mean the braces themselves, use --raw. Nothing was submitted."


# --- the names that a line sees --------------------------------------------------------------

_NOT_A_CALLER = sys.stdlib_module_names | {
    "IPython",
    "ipykernel",
    "traitlets",
    "decorator",
    __name__.partition(".")[0],
}


@dataclass(frozen=True)
class NoValue:
    """What a name holds that a function has as its own, and that cannot be read where it is."""

    function: str


class Names(dict[str, Any]):
    """Variables of a user; tracebacks that show variables do not show all of them."""

    def __repr__(self) -> str:
        return f"<{len(self)} names>"


def names_at(
    frame: FrameType | None, local_ns: Mapping[str, Any] | None, user_ns: Mapping[str, Any]
) -> Names:
    """What the names mean for the code that called a magic: its locals come before globals.

    ``frame`` is that of the magic, ``local_ns`` what IPython handed over (for a cell it is always
    ``user_ns``). A name that a function around the call has, and whose value is not to be had,
    is a NoValue: a global of the same name is another thing.
    """
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_A_CALLER:
        frame = frame.f_back
    given = {} if local_ns is None or local_ns is user_ns else local_ns
    if frame is None:
        return Names({**user_ns, **given})
    names = {**user_ns, **frame.f_globals}
    for code, scope in reversed([*_scopes(frame)]):
        names |= {name: NoValue(code.co_name) for name in (*code.co_varnames, *code.co_cellvars)}
        names |= {} if scope is None else scope
    return Names({**names, **given})


def _scopes(frame: FrameType) -> Iterator[tuple[CodeType, Mapping[str, Any] | None]]:
    """The code of a frame and of the functions around it, inner ones first, with their locals.

    A function that is not running on this stack any more (or is another task) has none.
    """
    code = frame.f_code
    yield code, frame.f_locals
    caller = frame.f_back
    while caller is not None and "<locals>" in code.co_qualname:
        if any(inner is code for inner in caller.f_code.co_consts):
            code = caller.f_code
            yield code, caller.f_locals
        caller = caller.f_back
    for outer in _around(code, frame.f_globals):
        yield outer, None


def _around(code: CodeType, module: Mapping[str, Any]) -> list[CodeType]:
    """The functions around one, as far as they can be found by its name, inner ones first."""
    path = code.co_qualname.split(".<locals>.")[:-1]
    if not path:
        return []
    first, *rest = path[0].split(".")
    value = module.get(first)
    for name in rest:
        value = getattr(value, name, None)
    function = inspect.unwrap(value) if callable(value) else None
    around: list[CodeType] = []
    outer = getattr(function, "__code__", None)
    for name in [*path[1:], ""]:
        if outer is None:
            break
        around.insert(0, outer)
        outer = next(
            (
                each
                for each in outer.co_consts
                if isinstance(each, CodeType) and each.co_name == name
            ),
            None,
        )
    return around


# --- filling ---------------------------------------------------------------------------------


def fill(text: str, names: Mapping[str, Any], what: str = "the prompt") -> str:
    """``text`` with its fields filled in from ``names``; ``{{`` and ``}}`` become braces.

    Raises UsageError for an unknown name, for what is in braces with a variable and is no
    expression, for Jinja, and for a value that is missing or neither text nor a number.
    """
    return Template(text, what).fill(names)


class Template:
    """A text with fields. Each field is evaluated once, however often the text is filled in,
    other than fields that use a name that is varied."""

    def __init__(self, text: str, what: str = "the prompt") -> None:
        self._what = what
        self._sources: list[tuple[Part, str]] = [*_parts(text)]
        self._parts = [part for part, _ in self._sources]
        self._known: dict[int, str] = {}

    @property
    def names(self) -> set[str]:
        """The names that its fields look up."""
        fields = (part for part in self._parts if isinstance(part, Field))
        return {name for field in fields for name in field.names}

    def fill(self, names: Mapping[str, Any], varied: Collection[str] = ()) -> str:
        """The text. ``varied``: those of the names whose values differ from call to call."""
        filled = []
        for number, part in enumerate(self._parts):
            if isinstance(part, str):
                filled.append(part)
            elif number in self._known:
                filled.append(self._known[number])
            else:
                text = part.fill(names, self._what)
                filled.append(text)
                if not (isinstance(part, Field) and part.names & {*varied}):
                    self._known[number] = text
        return "".join(filled)

    def fill_beside(self, columns: Collection[str], names: Mapping[str, Any]) -> str:
        """The text with the fields of variables filled in; what else is in braces stays as it is
        written, for the columns of a table. A column comes before a variable of the same name."""
        return "".join(
            part.fill(names, self._what)
            if isinstance(part, Field) and part.names & names.keys() and not part.names & {*columns}
            else source
            for part, source in self._sources
        )


@dataclass(frozen=True)
class Braces:
    """Braces around what is no expression: text, unless it names a variable."""

    source: str
    literal: str
    why: str = "is no expression that can be filled in"

    def fill(self, names: Mapping[str, Any], what: str) -> str:
        for word in _WORD.findall(_QUOTED.sub("", self.source)):
            if word in names:
                raise UsageError(
                    f"{_short(self.source)} in {what} names the variable {word}, and {self.why}.",
                    hint=_RAW,
                )
        return self.literal


@dataclass(frozen=True)
class Jinja:
    """``{{ name }}``, ``{{ name | filter }}`` and ``{% if … %}``: never filled in here."""

    source: str

    def fill(self, names: Mapping[str, Any], what: str) -> str:
        raise UsageError(
            f"{_short(self.source)} in {what} is written as for Jinja; here single braces are "
            "filled in: {name}.",
            hint=_RAW,
        )


@dataclass(frozen=True)
class Field:
    """``{expression!conversion:format}``. ``names`` are those that the expression looks up, without
    ``needed`` there is no value: ``key`` in ``table[key]`` may be a text."""

    source: str
    tree: ast.Expression
    names: frozenset[str]
    needed: frozenset[str]
    label: str = ""  # of {name=}
    conversion: str = ""
    format: Template | None = None

    def fill(self, names: Mapping[str, Any], what: str) -> str:
        """The text for it, its name in each error. Raises UsageError."""
        what = f"{_short(self.source)} in {what}"
        known = self.names & names.keys()
        unknown = [name for name in sorted(self.needed - known) if not hasattr(builtins, name)]
        if not known:
            if isinstance(self.tree.body, ast.Tuple):  # {red, green}: prose
                return self.source
            unknown = unknown or sorted(self.needed)
        if unknown:
            near = catalog.did_you_mean(unknown[0], [n for n in names if not n.startswith("_")])
            raise UsageError(
                f"{what}: there is no variable {unknown[0]}.{near}",
                hint="To mean the braces themselves write {{…}}, or use --raw. "
                "Nothing was submitted.",
            )
        value = _evaluated(self.tree, names, what)
        spec = self.format.fill(names, self.format.names) if self.format else ""
        if values.is_missing(value) or (isinstance(value, str) and is_missing_text(value)):
            raise UsageError(
                f"{what} is {_short(str(value))!r}: its value is missing.",
                hint="Give it a value, or write the text itself. Nothing was submitted.",
            )
        explicit = self.conversion or spec
        if not (explicit or isinstance(value, str | numbers.Number) or _is_scalar(value)):
            raise UsageError(
                f"{what} is a {type(value).__name__}: only text and numbers can be filled in."
            )
        try:
            text = format(_CONVERSIONS[self.conversion](value), spec)
        except Exception as error:  # noqa: BLE001 (a method of any object of the user)
            raise UsageError(f"{what}: {error}.") from None
        return self.label + text


_CONVERSIONS: dict[str, Any] = {"": lambda value: value, "s": str, "r": repr, "a": ascii}


def _evaluated(tree: ast.Expression, names: Mapping[str, Any], what: str) -> Any:
    """Raises UsageError, also for what the user's own objects raise."""
    for node in ast.walk(tree):
        hidden = names.get(node.id) if isinstance(node, ast.Name) else None
        if isinstance(hidden, NoValue) and isinstance(node, ast.Name):
            raise UsageError(
                f"{what}: {node.id} is a variable of {hidden.function}, and has no value here.",
                hint=f"Give {node.id} a value before, or hand it over as an argument where it "
                "belongs to a function around this one. Nothing was submitted.",
            )
    scope = {**names, "__builtins__": builtins, _ITEM: _item}
    keyed = ast.fix_missing_locations(_Keys(names, _bound(tree)).visit(tree))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            code = compile(keyed, "<prompt>", "eval")
        return eval(code, scope)  # noqa: S307 (the user's own cell, as an f-string in it)
    except UsageError as error:
        raise UsageError(f"{what}: {error.message}", hint=error.hint) from None
    except Exception as error:  # noqa: BLE001 (any object of the user)
        raise UsageError(f"{what}: {type(error).__name__}: {error}.") from None


class _Keys(ast.NodeTransformer):
    """``table[key]`` is ``table['key']`` where key is no variable, as for ``str.format``."""

    def __init__(self, names: Mapping[str, Any], bound: Collection[str]) -> None:
        self._names, self._bound = names, bound

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        key = node.slice
        if not isinstance(key, ast.Name) or key.id in self._bound:
            return node
        word = ast.Constant(key.id)
        if key.id not in self._names:
            return ast.Subscript(node.value, word, node.ctx)
        return ast.Call(ast.Name(_ITEM, ast.Load()), [node.value, word, key], [])


def _item(container: Any, word: str, value: Any) -> Any:
    """``container[value]``, or ``container['word']`` where only that is there."""
    try:
        by_word = container[word]
    except Exception:  # noqa: BLE001 (any container)
        return container[value]
    try:
        by_value = container[value]
    except Exception:  # noqa: BLE001
        return by_word
    if value == word or by_value is by_word:
        return by_value
    raise UsageError(
        f"[{word}] can be the key {word!r} and the value of the variable {word}.",
        hint=f"Write ['{word}'] for the key; for the other, rename the variable.",
    )


def look_up(expression: str, names: Mapping[str, Any]) -> tuple[bool, Any]:
    """Whether ``expression`` (``name.attr[0]``) starts at a name, and its value then.

    Nothing is called: the word may have come out of a variable. A file of that name is meant
    where the look-up fails. Raises UsageError.
    """
    tree = _parsed(expression)
    if tree is None or not _is_path(tree.body, names):
        return False, None
    try:
        return True, _evaluated(tree, names, expression)
    except UsageError:
        if os.path.exists(expression):
            return False, None
        raise


def _is_path(node: ast.AST, names: Mapping[str, Any]) -> bool:
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Subscript):
            kinds = (ast.Name, ast.Constant, ast.UnaryOp, ast.BinOp, ast.Slice, ast.Tuple)
            kinds += (ast.operator, ast.unaryop, ast.Load)  # type: ignore[assignment]
            if not all(isinstance(each, kinds) for each in ast.walk(node.slice)):
                return False
        node = node.value
    return isinstance(node, ast.Name) and node.id in names


def _is_scalar(value: Any) -> bool:
    """A NumPy or pandas value that is one text or number."""
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def fields_of(text: str) -> set[str]:
    """The names that ``fill`` would look up in ``text``."""
    return Template(text).names


# --- parsing ---------------------------------------------------------------------------------

Part = str | Field | Braces | Jinja


def _parts(text: str) -> Iterator[tuple[Part, str]]:
    """The parts of a text, each with what is written for it."""
    opened = 0
    at = 0
    for brace in re.finditer(r"[{}]", text):
        if brace.start() < at:
            continue
        yield text[at : brace.start()], text[at : brace.start()]
        at = brace.start()
        part: Part = text[at]
        length = 1
        if text.startswith("}}", at) and opened:  # else the end of nested JSON
            opened -= 1
            length = 2
        elif text.startswith("{{", at):
            part, length = _doubled(text, at)
            opened += not isinstance(part, Jinja)
        elif text.startswith("{%", at) and "%}" in text[at:]:
            part = Jinja(text[at : text.index("%}", at) + 2])
        elif part == "{":
            part, length = _single(text, at)
        yield part, text[at : at + length]
        at += length
    yield text[at:], text[at:]


def _doubled(text: str, at: int) -> tuple[Part, int]:
    """What ``{{`` begins: a brace, or Jinja, which is written with blanks or a bar."""
    match = _DOUBLED.match(text, at)
    inside, end = (match[1], match[2]) if match else ("", None)
    written = "{{" + inside.strip("-") + "}}"
    if end == "}}" and _JINJA.fullmatch(inside) and inside.strip() and placeholders(written):
        return Jinja(text[at : at + len(inside) + 4]), 2
    if match and end == "}":
        return Braces(match[0], "{", "is closed by a single brace"), 2
    return "{", 2


def _single(text: str, at: int) -> tuple[Part, int]:
    end = at
    for _ in range(_MOST_ENDS):
        end = text.find("}", end + 1, at + _LONGEST)
        if end < 0:
            break
        if field := _field(text[at : end + 1]):
            return field, len(field.source)
    group = re.compile(r"\{[^{}]*\}").match(text, at)
    if group:
        return Braces(group[0], "{"), 1
    rest = re.compile(r"\{\s*([^\W\d]\w*)").match(text, at)
    if rest and "}" not in text[at:]:
        return Braces(rest[0], "{", "the brace is not closed"), 1
    return "{", 1


def _field(source: str) -> Field | None:
    """The field that ``{…}`` is as a whole; None where it is none, or looks up no name."""
    inside = source[1:-1]
    split = _split(inside)
    if split is None or split[2].count("{") != split[2].count("}"):
        return None
    expression, conversion, spec = split
    label = ""
    if re.search(r"(?<![=!<>])=\s*\Z", expression):
        label, expression = expression, expression.rstrip()[:-1]
        conversion = conversion or ("" if spec else "r")
    tree = _parsed(expression)
    if tree is None:
        return None
    names = _names_in(tree)
    if not names:
        return None
    keys = (node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript))
    optional = {id(key) for key in keys if isinstance(key, ast.Name)}
    needed = _names_in(tree, optional)
    form = Template(spec, "a format") if spec else None
    names |= form.names if form else set()
    return Field(source, tree, names, needed, label, conversion, form)


def _split(inside: str) -> tuple[str, str, str] | None:
    """Expression, conversion and format of a field; None where brackets or quotes do not close."""
    closing: list[str] = []
    quote = ""
    at = 0
    while at < len(inside):
        sign = inside[at]
        if quote:
            at += sign == "\\"
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in _PAIRS:
            closing.append(_PAIRS[sign])
        elif sign in ")]}":
            if not closing or closing.pop() != sign:
                return None
        elif not closing and sign == ":":
            return inside[:at], "", inside[at + 1 :]
        elif not closing and (found := re.compile(r"!([rsa])(:|\Z)").match(inside, at)):
            return inside[:at], found[1], inside[found.end() :]
        at += 1
    return None if closing or quote else (inside, "", "")


def _parsed(expression: str) -> ast.Expression | None:
    if not _WORD.search(expression) or _split(expression) != (expression, "", ""):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes and comparisons that look wrong
            return ast.parse(f"({expression.strip()})", mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _names_in(tree: ast.AST, without: Collection[int] = ()) -> frozenset[str]:
    """The names that are looked up, without those that the expression itself binds."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return frozenset(node.id for node in found if id(node) not in without) - _bound(tree)


def _bound(tree: ast.AST) -> set[str]:
    stored = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return stored | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
