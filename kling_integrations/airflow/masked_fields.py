"""Template fields that show less than they hold.

Airflow shows template fields to everyone who may see the DAG. A picture can be a signed URL,
which opens it to whoever reads it, or a data URI of megabytes: what is shown is the URL without
its query, and a hash and a size.
"""

from __future__ import annotations

from typing import Any

from ..core.request import shrunk


class Discreet:
    """An attribute whose value is read with ``Discreet.value`` and shown shortened.

    Airflow renders a field by reading the attribute and assigning the result. A value that still
    holds a template is read as it is (it is the DAG's own text); assigning what was shown, which
    is what rendering does to a value without a template, changes nothing.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return shown(instance.__dict__.get(self._name))

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = _restored(value, instance.__dict__.get(self._name))

    @staticmethod
    def value(instance: Any, name: str) -> Any:
        return instance.__dict__.get(name)


def shown(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    if isinstance(value, str):
        return value if _has_template(value) else shrunk(value)
    if isinstance(value, dict):
        return {key: shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shown(inner) for inner in value]
    return value


def _restored(value: Any, held: Any) -> Any:
    """``value`` with what was held wherever it is only what was shown of that."""
    if isinstance(value, dict) and isinstance(held, dict):
        return {key: _restored(inner, held.get(key)) for key, inner in value.items()}
    if isinstance(value, list) and isinstance(held, list | tuple) and len(value) == len(held):
        return [_restored(inner, old) for inner, old in zip(value, held, strict=True)]
    return held if held is not None and value == shown(held) else value


def _has_template(text: str) -> bool:
    return "{{" in text or "{%" in text
