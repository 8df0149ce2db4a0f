"""Template fields that show less than they hold.

Airflow shows template fields to everyone who may see the DAG. An image can be a signed URL, which
opens it to every reader, or a data URI of megabytes: what is shown is the URL without its query,
or a hash and a size.
"""

from __future__ import annotations

from typing import Any

from ..core.request import shrunk


class MaskedField:
    """An attribute that reads as its masked form; ``MaskedField.value`` reads what it holds.

    Airflow renders a field by reading the attribute and assigning the result. A value that still
    holds a template is read as it is (it is the DAG's own text); assigning the masked form, which
    is what rendering does to a value without a template, changes nothing.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return masked(instance.__dict__.get(self._name))

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = _unmasked(value, instance.__dict__.get(self._name))

    @staticmethod
    def value(instance: Any, name: str) -> Any:
        return instance.__dict__.get(name)


def masked(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    if isinstance(value, str):
        return value if _has_template(value) else shrunk(value)
    if isinstance(value, dict):
        return {key: masked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    return value


def _unmasked(value: Any, held: Any) -> Any:
    """``value``, with what was held wherever it is only the masked form of that."""
    if isinstance(value, dict) and isinstance(held, dict):
        return {key: _unmasked(inner, held.get(key)) for key, inner in value.items()}
    if isinstance(value, list) and isinstance(held, list | tuple) and len(value) == len(held):
        return [_unmasked(inner, old) for inner, old in zip(value, held, strict=True)]
    return held if held is not None and value == masked(held) else value


def _has_template(text: str) -> bool:
    return "{{" in text or "{%" in text
