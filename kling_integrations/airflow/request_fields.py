"""The fields of an operator, rendered, as a VideoRequest."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Mapping
from typing import Any

from ..core.errors import InvalidRequestError
from ..core.media import frames
from ..core.request import VideoRequest
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

_MASKED = ("image", "tail_image", "parameters", "extra")


def fields_of(task: Any) -> dict[str, Any]:
    """The arguments of ``request_from`` as an operator holds them."""
    return {
        name: MaskedField.value(task, name) if name in _MASKED else getattr(task, name)
        for name in FIELDS
    }


def request_from(
    *,
    model: str,
    prompt: str | None,
    parameters: Any = None,
    extra: Any = None,
    **optional: Any,
) -> VideoRequest:
    """The request; an optional field whose template rendered to nothing is left out.

    ``optional`` and ``parameters`` are named as the fields of VideoRequest. ``image`` and
    ``tail_image`` may also be a path in any store, or the manifest of an earlier task. Raises
    InvalidRequestError, also for a prompt or an image that a template lost: it would make, and
    pay for, another video than was asked for.
    """
    if isinstance(prompt, str) and _given(prompt) is None:
        raise InvalidRequestError(
            f"The prompt is {prompt!r}: say what the video should show. Nothing was submitted."
        )
    for name, value in {"parameters": parameters, "extra": extra}.items():
        if not isinstance(value or {}, Mapping):
            raise InvalidRequestError(f"{name} is a dictionary, not {type(value).__name__}.")
    which = _given(optional.pop("image_frame", None))
    if which is not None:
        optional["image"] = _frame_of(optional.get("image"), which)
    for name in optional.keys() & {"image", "tail_image"}:
        optional[name] = _image(name, optional[name])
    optional = {name: _given(value) for name, value in optional.items()}
    fields = {"model": model, "prompt": prompt, "extra": extra or None, **optional}
    given = {name: value for name, value in fields.items() if value is not None}
    parameters = parameters or {}
    if twice := given.keys() & parameters.keys():
        raise InvalidRequestError(f"Given twice, once in parameters: {', '.join(twice)}.")
    return VideoRequest(**given, **parameters)


def _given(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip() in ("", "None") else value


def manifest_or(value: Any) -> Any:
    """The manifest that a template rendered to text (a dictionary, or JSON); else the value."""
    text = value.strip() if isinstance(value, str) else ""
    if not text.startswith("{") or len(text) > _LONGEST_MANIFEST:
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            manifest = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        if isinstance(manifest, Mapping):
            return manifest
    return value


def inputs_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a request is made of, as plain JSON fit for screens; fields without a value are out."""
    return {
        name: _short(masked(_plain_input(name, value)))
        for name, value in fields.items()
        if _given(value) is not None
    }


def _plain_input(name: str, value: Any) -> Any:
    value = manifest_or(value)
    if name in ("image", "tail_image") and isinstance(value, Mapping):
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
    if not isinstance(path, str) or _given(path) is None or path.startswith(("http:", "https:")):
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


def _image(name: str, value: Any) -> Any:
    value = manifest_or(value)
    if isinstance(value, str) and value.strip() == "None":
        raise InvalidRequestError(
            f"{name} is the text 'None': what its template names does not exist. For no image, let "
            "it render to empty text. Nothing was submitted."
        )
    if isinstance(value, Mapping):
        path = value.get("path")
        if not isinstance(path, str) or _given(path) is None:
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
