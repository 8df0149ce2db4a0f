"""From the cells of a table to the parameters of a request: whatever wrote the table. No I/O.

A cell of a CSV is text, one of a DataFrame can be a NumPy scalar or NaN, one of a JSONL anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from .. import catalog, values
from ..catalog import Parameter
from ..media.images import is_remote_path
from ..validation import typed

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


def folded(name: str) -> str:
    """A column's name as it is compared: ``Aspect Ratio`` is ``aspect_ratio``."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def is_blank(value: Any) -> bool:
    """Whether a cell says nothing: blank text, None, NaN, NA, NaT."""
    return not value.strip() if isinstance(value, str) else values.is_missing(value)


def plain(value: Any) -> Any:
    """A scalar of another library as Python's own; anything else as it is."""
    return values.scalar(value)


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
