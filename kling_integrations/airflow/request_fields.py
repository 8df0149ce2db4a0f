"""The fields of an operator, rendered, as a VideoRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import InvalidRequestError
from ..core.request import VideoRequest
from .object_storage import read_file


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
    InvalidRequestError.
    """
    for name, value in {"parameters": parameters, "extra": extra}.items():
        if not isinstance(value or {}, Mapping):
            raise InvalidRequestError(f"{name} is a dictionary, not {type(value).__name__}.")
    for name in optional.keys() & {"image", "tail_image"}:
        optional[name] = _image(_given(optional[name]))
    optional = {name: _given(value) for name, value in optional.items()}
    fields = {"model": model, "prompt": prompt, "extra": extra or None, **optional}
    given = {name: value for name, value in fields.items() if value is not None}
    parameters = parameters or {}
    if twice := given.keys() & parameters.keys():
        raise InvalidRequestError(f"Given twice, once in parameters: {', '.join(twice)}.")
    return VideoRequest(**given, **parameters)


def _given(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip() in ("", "None") else value


def _image(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = value.get("path")
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
