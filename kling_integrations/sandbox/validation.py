"""The gateway's check of a submit: what it expected, what it received.

Bounds come from the catalogue of documented models. Parameters that the documents do not name
pass: what the gateway does with them is not documented.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from ..core import catalog
from ..core.catalog import Model, Parameter

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64}")
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "string or array": lambda value: isinstance(value, str | list),
}


@cache
def _spellings() -> dict[str, Model]:
    return {name: model for model in catalog.models() for name in (model.id, *model.spellings)}


def find_model(name: str) -> Model | None:
    """By an exact id or its other documented spelling: the gateway knows no short aliases."""
    return _spellings().get(name)


def problems(payload: Mapping[str, Any], model: Model) -> list[str]:
    """What is wrong with a body for that model, one sentence each; empty when all is well."""
    found = [
        hint
        for parameter in model.parameters.values()
        for hint in _check(parameter, payload.get(parameter.name), parameter.name)
    ]
    if "multi_prompt" in model.parameters and not (
        _filled(payload.get("prompt")) or payload.get("multi_prompt")
    ):
        found.append("prompt: Expected prompt or multi_prompt, received neither")
    if (
        "omni" in model.id
        and payload.get("tail_image_url")
        and payload.get("generate_audio", True) is True
    ):
        found.append("tail_image_url: Expected generate_audio=false with it, received true")
    return found


def _filled(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check(parameter: Parameter, value: Any, path: str) -> Iterator[str]:
    if value is None:
        if parameter.required:
            yield f"{path}: Required. Expected {parameter.type}, received undefined"
        return
    # Working samples of the documents send the duration in both ways.
    if path == "duration" and isinstance(value, str) and value.isdigit():
        value = int(value)
    if not _TYPES.get(parameter.type, lambda _: True)(value):
        yield f"{path}: Expected {parameter.type}, received {_type(value)}"
        return
    if parameter.enum and value not in parameter.enum:
        choices = " | ".join(repr(choice) for choice in parameter.enum)
        yield f"{path}: Invalid enum value. Expected {choices}, received {value!r}"
    if isinstance(value, str):
        yield from _check_text(parameter, value, path)
    elif isinstance(value, list):
        yield from _check_list(parameter, value, path)
    elif isinstance(value, dict):
        for name, inner in (parameter.properties or {}).items():
            yield from _check(inner, value.get(name), f"{path}.{name}")
    elif isinstance(value, int | float):
        if parameter.minimum is not None and value < parameter.minimum:
            yield f"{path}: Expected a number >= {parameter.minimum:g}, received {value!r}"
        if parameter.maximum is not None and value > parameter.maximum:
            yield f"{path}: Expected a number <= {parameter.maximum:g}, received {value!r}"


def _check_text(parameter: Parameter, value: str, path: str) -> Iterator[str]:
    if parameter.required and not value.strip():
        yield f"{path}: Expected at least 1 character(s), received an empty string"
    if parameter.max_length is not None and len(value) > parameter.max_length:
        yield (
            f"{path}: Expected at most {parameter.max_length} character(s), received {len(value)}"
        )
    if parameter.format == "uri" and not _is_source(value, path):
        yield f"{path}: Invalid url. Expected a URL or a data URI, received {value[:40]!r}"


def _check_list(parameter: Parameter, value: list[Any], path: str) -> Iterator[str]:
    if parameter.min_items is not None and len(value) < parameter.min_items:
        yield f"{path}: Expected at least {parameter.min_items} item(s), received {len(value)}"
    if parameter.max_items is not None and len(value) > parameter.max_items:
        yield f"{path}: Expected at most {parameter.max_items} item(s), received {len(value)}"
    if parameter.items is not None:
        for number, item in enumerate(value):
            yield from _check(parameter.items, item, f"{path}[{number}]")


def _is_source(value: str, path: str) -> bool:
    """A URL or a data URI; for pictures also bare base64, as the documents allow."""
    if value.startswith(("http://", "https://", "data:")):
        return True
    return ("image" in path or "mask" in path) and _BASE64.match(value) is not None


def _type(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
    return kinds.get(type(value), "object")
