"""From the cells of a table to parameters and keys, whatever wrote the table. No I/O.

A cell of a CSV is text, one of a DataFrame can be a NumPy scalar or NaN, one of a JSONL anything.
The key 7 is a float where its column has a hole, the text ``7.0`` once that was saved as CSV, and a
Decimal out of a database: the same row, which is paid for once.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any

from .. import catalog, values
from ..catalog import Parameter
from ..errors import InvalidRequestError, NextStep, Verb
from ..media.images import is_remote_path
from ..validation import is_missing_text, placeholders, typed

NAMED = (
    "prompt",
    "model",
    "duration",
    "aspect_ratio",
    "negative_prompt",
    "cfg_scale",
    "image",
    "tail_image",
    "audio",
    "extra",
)
"""The columns that mean a parameter for every model; ``VideoRequest`` has the same names."""

_WIRE_NAMES = {"image": "image_url", "tail_image": "tail_image_url", "audio": "generate_audio"}
# What a spreadsheet makes of 16:9: the time of day 16:09:00.
_RATIO = re.compile(r"0*([1-9]\d?):0*([1-9]\d?)(:00)?")
_SENT = re.compile(r"https?://|data:", re.IGNORECASE)  # a picture that is sent as it is
_IMAGES = ("image", "tail_image", "image_url", "tail_image_url", "last_image_url")


_KEY_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{0,40})?(e[+-][0-9]{1,3})?", re.IGNORECASE)
_MOMENT = re.compile(
    r"(?P<day>[0-9]{4,5}-[0-9]{2}-[0-9]{2})"
    r"([T ](?P<time>[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)"
    r" ?(?P<zone>Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_FORMER_LONGEST = 200  # characters, of which keys were cut at first


class BadCellError(Exception):
    """A cell that cannot be meant. ``literal``: it could be, where it is taken as it is."""

    def __init__(self, column: str, reason: str, *, literal: bool = False) -> None:
        super().__init__(reason)
        self.column, self.reason, self.literal = column, reason, literal


def folded(name: str) -> str:
    """A column's name as it is compared: ``Aspect Ratio`` is ``aspect_ratio``."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def is_blank(value: Any) -> bool:
    """Whether a cell says nothing: blank text, None, NaN, NA, NaT."""
    return not value.strip() if isinstance(value, str) else values.is_missing(value)


def plain(value: Any) -> Any:
    """A scalar of another library as Python's own; anything else as it is."""
    return values.scalar(value)


def plain_text(cell: Any) -> str | None:
    """A cell as text; None for one that says nothing."""
    return None if is_blank(cell) else str(plain(cell)).strip()


@cache
def wire_names(model: str) -> frozenset[str]:
    """The gateway's own names of parameters that a row of this model can have as columns.

    For an alias those of all models that it can mean; for an unknown model those of all models.
    """
    known = catalog.candidates(model) or catalog.models()
    return frozenset(name for each in known for name in each.parameters)


@cache
def _parameter(model: str, name: str) -> Parameter | None:
    wire = _WIRE_NAMES.get(name, name)
    for each in (*catalog.candidates(model), *catalog.models()):
        if wire in each.parameters:
            return each.parameters[wire]
    return None


def value_of(model: str, name: str, cell: Any) -> Any:
    """A cell as ``VideoRequest`` takes the parameter; what it cannot mean stays as it is.

    The request itself says what is wrong with such a value.
    """
    cell = values.scalar(cell)
    if name == "aspect_ratio" and (ratio := _RATIO.fullmatch(str(cell).strip())):
        return f"{ratio[1]}:{ratio[2]}"
    if name in ("prompt", "negative_prompt") or not isinstance(cell, str):
        return cell
    text = cell.strip()
    if name == "extra":
        return _json(text, cell)
    parameter = _parameter(model, name)
    kind = parameter.type if parameter else ""
    if kind in ("integer", "number", "boolean"):
        return typed(Parameter(name, kind), text)  # within the bounds of its own model
    if text[:1] in "[{" and ("array" in kind or kind == "object"):
        return _json(text, cell)
    return text


def is_image(name: str) -> bool:
    """Whether a cell under this name can be a picture's path."""
    return name in _IMAGES


def is_read(picture: Any) -> bool:
    """Whether a picture is read from somewhere; a link and one that is in the cell are not."""
    return not (isinstance(picture, str) and _SENT.match(picture))


def is_remote(picture: Any) -> bool:
    """Whether it is in object storage: its address, or what opens it (an ``UPath``, say)."""
    if isinstance(picture, str):
        return "://" in picture and not _SENT.match(picture) and not picture.startswith("file:")
    return is_remote_path(picture)


def _json(text: str, otherwise: Any) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return otherwise
    return value if isinstance(value, list | Mapping) else otherwise


_FIELD = re.compile(
    r"\{\{(?P<twice>.{0,200}?)\}\}|\{%.{0,200}?%\}|\{(?P<once>[^{}]{0,200})\}", re.DOTALL
)


class Template:
    """A text for all rows, with columns in braces: ``A {product} at the {place}``.

    Doubled braces mean the braces themselves; what is in braces and is no name stays as it is.
    ``{price:.2f}`` is a format of Python. Raises InvalidRequestError for a name that is no column.
    """

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self._parts: list[str | tuple[str, str]] = []
        end = 0
        for match in _FIELD.finditer(text):
            part = self._part(match, columns)
            self._parts += [text[end : match.start()], part]
            end = match.end()
        self._parts.append(text[end:])

    @staticmethod
    def _part(match: re.Match[str], columns: Sequence[str]) -> str | tuple[str, str]:
        once, twice = match["once"], match["twice"]
        if once is not None and (column := _column(once, columns)):
            return column, ""
        name, _, form = (once or "").partition(":")
        column = _column(name, columns) if form else None
        inside = once if twice is None else twice
        is_text = inside is not None and not placeholders(f"{{{inside.strip()}}}", columns)
        if column is None and is_text:
            return match[0] if twice is None else f"{{{twice}}}"
        if column is None:
            known = ", ".join(f"{{{each}}}" for each in columns[:20])
            raise InvalidRequestError(
                f"{match[0]} names no column of the table, and would be sent as it is. Columns are "
                f"filled in by their names: {known}.",
                next_steps=[NextStep(Verb.TAKE_LITERALLY)],
            )
        return column, form

    def fill(self, record: Mapping[str, Any]) -> str:
        """The text for one row. Raises BadCellError where one of its columns is blank."""
        return "".join(
            part if isinstance(part, str) else _filled(record.get(part[0]), *part)
            for part in self._parts
        )


def _column(name: str, columns: Sequence[str]) -> str | None:
    if name in columns:
        return name
    alike = [each for each in columns if folded(each) == folded(name)]
    return alike[0] if len(alike) == 1 else None


def _filled(cell: Any, column: str, form: str) -> str:
    text = cell.strip() if isinstance(cell, str) else normal_key(cell) or ""
    if not text or is_missing_text(text):
        raise BadCellError(column, "it is to be filled in, and is blank")
    if not form:
        return text
    for kind in (int, float, str):  # a cell of a CSV is text, whatever it holds
        with suppress(ValueError):
            return format(kind(text), form)
    raise BadCellError(column, f"it cannot be filled in as {form!r}")


def normal_key(cell: Any) -> str | None:
    """The key that a cell means; None where it says nothing.

    Numbers are known by their value (7, 7.0, ``7.0``, 2e16), True is ``TRUE`` and ``true``, a
    moment at midnight, wherever that is, is its day, another one is that of UTC; bytes are their
    text; letters are composed, and space at the ends, or more than one within, does not count. A
    number with leading zeros (``007``) or a plus is a name, and stays as it is.
    """
    if isinstance(cell, Enum):
        cell = cell.value
    if values.is_missing(cell):
        return None
    if isinstance(cell, bytes | bytearray | memoryview):
        try:
            cell = bytes(cell).decode()
        except UnicodeDecodeError:
            return bytes(cell).hex()
    if getattr(cell, "dtype", None) is not None and str(cell.dtype).startswith("datetime64"):
        cell = str(cell)  # whose years go further than those of Python
    if not isinstance(cell, str):
        cell = values.plain(cell)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, datetime):
        cell = cell.isoformat()  # of a pandas Timestamp, too, with its nanoseconds
    text = unicodedata.normalize("NFC", " ".join(str(cell).replace("\ufeff", "").split()))
    if not text:
        return None
    if text.lower() in ("true", "false"):
        return text.lower()
    if moment := _MOMENT.fullmatch(text):
        return _of_moment(moment)
    return text.lower() if _UUID.fullmatch(text) else _of_number(text) or text


def _of_number(text: str) -> str | None:
    if not _KEY_NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    whole = format(number, "f") if number else "0"
    return whole.rstrip("0").rstrip(".") if "." in whole else whole


def _of_moment(moment: re.Match[str]) -> str:
    day, time, zone = moment["day"], moment["time"] or "00:00", moment["zone"] or ""
    whole, _, fraction = time.partition(".")
    whole, fraction = f"{whole}:00"[:8], fraction.rstrip("0")
    is_midnight = whole == "00:00:00" and not fraction
    if offset := re.fullmatch(r"([+-]\d\d):?(\d\d)?", zone):
        away = timedelta(hours=int(offset[1]), minutes=int(f"{offset[1][0]}{offset[2] or 0}"))
        with suppress(ValueError, OverflowError):
            if not is_midnight:
                there = datetime.fromisoformat(f"{day}T{whole}") - away
                day, _, whole = there.isoformat().partition("T")
                is_midnight = whole == "00:00:00" and not fraction
    return day if is_midnight else f"{day}T{whole}{'.' * bool(fraction)}{fraction}"


def former_keys(cell: Any, key: str) -> Iterator[str]:
    """The forms in which earlier versions kept a key: as the cell was written, or might have been.

    Records under them are found, so that nothing is paid for again.
    """
    found = dict.fromkeys([_as_before(cell), *_spellings(key)])
    yield from (each for each in found if each and each != key)


def _as_before(cell: Any) -> str:
    """The key that versions up to 0.2 made of a cell."""
    if isinstance(cell, bool | str):
        return str(cell).strip()[:_FORMER_LONGEST]
    if getattr(cell, "ndim", None) == 0 and hasattr(cell, "item"):
        cell = cell.item()
    text = str(cell).strip()
    return (text.removesuffix(".0") if isinstance(cell, float) else text)[:_FORMER_LONGEST]


def _spellings(key: str) -> Iterator[str]:
    yield key[:_FORMER_LONGEST]
    if key in ("true", "false"):
        yield from (key.title(), key.upper())
    elif re.fullmatch(r"-?[0-9]+", key) and _of_number(key):
        yield f"{key}.0"
        if len(key) > 15 and float(key) == int(key):
            yield repr(float(key))
    elif re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", key):
        yield f"{key} 00:00:00"
        yield f"{key}T00:00:00"
    elif not key.isascii():
        yield unicodedata.normalize("NFD", key)
