"""The fields of an operator, rendered, as a VideoRequest."""

from __future__ import annotations

import ast
import json
import math
import os
from collections.abc import Collection, Mapping
from typing import Any

from ..core.catalog import DEFAULT_MODEL
from ..core.errors import InvalidRequestError
from ..core.media import frames
from ..core.request import VideoRequest
from ..core.validation import is_missing_text
from ..core.values import is_missing
from . import version_compat
from .facts import origin_of
from .masked_fields import MaskedField, masked
from .object_storage import open_file, read_file

# A manifest as text is short; longer text is none.
_LONGEST_MANIFEST = 100_000

# A longer value of a field is cut in the record: a state store is bounded.
_LONGEST_INPUT = 2000


FIELDS = (
    "model",
    "prompt",
    "duration",
    "aspect_ratio",
    "negative_prompt",
    "cfg_scale",
    "image",
    "image_frame",
    "tail_image",
    "audio",
    "parameters",
    "extra",
)
"""What a request is made of, by the names of an operator's arguments."""

_PICTURES = ("image", "tail_image")
_MASKED = (*_PICTURES, "parameters", "extra")


def fields_of(task: Any) -> dict[str, Any]:
    """The arguments of ``request_from`` as an operator holds them."""
    return {
        name: MaskedField.value(task, name) if name in _MASKED else getattr(task, name)
        for name in FIELDS
    }


def pictures_of(task: Any) -> set[str]:
    """Which of the pictures are given by the DAG, whatever is left of them when it runs.

    As the DAG was read (a template, the output of a task), or as one of the values that a mapped
    task is expanded over. ``None`` in the DAG itself is no picture.
    """
    held = {name for name in _PICTURES if given(MaskedField.value(task, name)) is not None}
    return held | (version_compat.expanded_names(task) & set(_PICTURES))


def request_from(
    *,
    model: str | None,
    prompt: str | None,
    parameters: Any = None,
    extra: Any = None,
    pictures: Collection[str] = (),
    **optional: Any,
) -> VideoRequest:
    """The request; an optional field whose template rendered to nothing is left out.

    ``optional`` and ``parameters`` are named as the fields of VideoRequest. ``image`` and
    ``tail_image`` may also be a path in any store, or the manifest of an earlier task; those named
    in ``pictures`` were given, and are lost where nothing is left of them. Raises
    InvalidRequestError, also for a prompt or an image that a template lost: it would make, and
    pay for, another video than was asked for.
    """
    if prompt is not None and given(prompt) is None:
        raise InvalidRequestError(
            f"The prompt is {prompt!r}: say what the video should show. Nothing was submitted."
        )
    parameters = mapping_of("parameters", parameters)
    extra = mapping_of("extra", extra)
    which = given(optional.pop("image_frame", None))
    if which is not None:
        optional["image"] = _frame_of(optional.get("image"), which)
    for name in _PICTURES:
        value = optional.get(name)
        if name in pictures and given(value) is None:
            raise _lost(name, value)
        optional[name] = _image(name, value)
    optional = {name: given(value) for name, value in optional.items()}
    optional["duration"] = _whole(optional.get("duration"))
    fields = {
        "model": given(model) or DEFAULT_MODEL,
        "prompt": prompt,
        "extra": extra or None,
        **optional,
    }
    named = {name: value for name, value in fields.items() if value is not None}
    if twice := named.keys() & parameters.keys():
        raise InvalidRequestError(f"Given twice, once in parameters: {', '.join(twice)}.")
    return VideoRequest(**named, **parameters)


def given(value: Any) -> Any:
    """None for what is left of a missing value: blank text, ``None`` or ``nan`` as text, NaN."""
    if isinstance(value, str):
        return None if not value.strip() or is_missing_text(value) else value
    return None if is_missing(value) else value


def _whole(value: Any) -> Any:
    """5 for 5.0 and its text, as a form's or a table's number comes; else the value."""
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        number = math.nan
    is_fraction = isinstance(value, float) or (isinstance(value, str) and "." in value)
    return int(number) if is_fraction and number.is_integer() else value


def mapping_of(name: str, value: Any) -> dict[str, Any]:
    """A dictionary that is there, or as the text that a template made of it; empty for nothing."""
    value = read_text(given(value))
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        what = "text that is none" if isinstance(value, str) else f"a {type(value).__name__}"
        raise InvalidRequestError(
            f"{name} is a dictionary, not {what}. Nothing was submitted.",
            hint="As the text of a template: {{ … | tojson }}.",
        )
    return dict(value)


def read_text(value: Any, opens: str = "{", longest: float = _LONGEST_MANIFEST) -> Any:
    """What a template rendered to text, JSON or Python's own; else the value itself.

    ``opens``: the sign that the text begins with, ``{`` for a mapping and ``[`` for a list.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text.startswith(opens) or len(text) > longest:
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        if isinstance(found, Mapping if opens == "{" else list):
            return found
    return value


manifest_or = read_text
"""The manifest that a template rendered to text; else the value."""


def inputs_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a request is made of, as plain JSON fit for screens; fields without a value are out."""
    return {
        name: _short(masked(_plain_input(name, value)))
        for name, value in fields.items()
        if given(value) is not None
    }


def _plain_input(name: str, value: Any) -> Any:
    value = manifest_or(value)
    if name in _PICTURES and isinstance(value, Mapping):
        return origin_of(value)  # not the whole history of a film that grows shot by shot
    return value


def _short(value: Any) -> Any:
    try:
        text = json.dumps(value, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return json.loads(text) if len(text) <= _LONGEST_INPUT else f"{text[:_LONGEST_INPUT]}…"


def _plain(value: Any) -> str:
    """A path as its text; of a picture or another object only what it is."""
    is_path = isinstance(value, os.PathLike) or hasattr(value, "protocol")
    return str(masked(str(value))) if is_path else f"a {type(value).__name__}"


def _frame_of(value: Any, which: object) -> Any:
    """The first or last frame of a video in any store, as a picture."""
    if which not in ("first", "last"):
        raise InvalidRequestError(f'image_frame is "first" or "last", not {which!r}.')
    path = manifest_or(value)
    if isinstance(path, Mapping):
        path = path.get("path")
    if hasattr(path, "protocol") and hasattr(path, "path"):  # an ObjectStoragePath
        path = str(path)
    if not isinstance(path, str) or given(path) is None or path.startswith(("http:", "https:")):
        raise InvalidRequestError(
            "image_frame needs a video as the image: the manifest of the task that saved it, or "
            "the path of its file. Nothing was submitted."
        )
    try:
        with open_file(path) as file:
            return frames.last_frame(file) if which == "last" else frames.frame(file, 0)
    except InvalidRequestError:
        raise
    except Exception as error:
        raise InvalidRequestError(
            f"The video {path} cannot be read ({type(error).__name__}). Nothing was submitted."
        ) from error


def _lost(name: str, value: Any) -> InvalidRequestError:
    return InvalidRequestError(
        f"{name} was given, and what it names does not exist: it is {value!r}. That would be a "
        "video of the text alone. Nothing was submitted.",
        hint=f"For no picture, leave {name} out.",
    )


def _image(name: str, value: Any) -> Any:
    value = manifest_or(value)
    if isinstance(value, str) and value.strip() and given(value) is None:
        raise _lost(name, value)
    if isinstance(value, Mapping):
        path = value.get("path")
        if not isinstance(path, str) or given(path) is None:
            raise InvalidRequestError(
                f"{name} is a manifest without a path: the task that made it saved no file (it "
                "has no output_path). Nothing was submitted."
            )
        value = path
    if hasattr(value, "protocol") and hasattr(value, "path"):  # an ObjectStoragePath
        value = str(value)
    if isinstance(value, str) and "://" in value and not value.startswith(("http://", "https://")):
        try:
            return read_file(value)
        except Exception as error:
            raise InvalidRequestError(
                f"The image {value.partition('?')[0]} cannot be read ({type(error).__name__})."
            ) from error
    return value
