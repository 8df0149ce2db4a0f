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

    Airflow renders a field by reading the attribute and assigning the result. Until then a value
    that holds a template is read as it is (it is the DAG's own text); from then on nothing is,
    whatever it looks like. Assigning the masked form, which is what rendering does to a value
    without a template, changes nothing.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._rendered = f"_{name}_is_rendered"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        held = instance.__dict__.get(self._name)
        return masked(held, shows_templates=not instance.__dict__.get(self._rendered))

    def __set__(self, instance: Any, value: Any) -> None:
        held = instance.__dict__.get(self._name)
        shows_templates = not instance.__dict__.get(self._rendered)
        # The first value is the DAG's; what is assigned over it is what rendering made of it.
        instance.__dict__[self._rendered] = self._name in instance.__dict__
        instance.__dict__[self._name] = _unmasked(value, held, shows_templates)

    @staticmethod
    def value(instance: Any, name: str) -> Any:
        return instance.__dict__.get(name)


def masked(value: Any, *, shows_templates: bool = False) -> Any:
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    if isinstance(value, str):
        return value if shows_templates and _has_template(value) else shrunk(value)
    if isinstance(value, dict):
        return {key: masked(inner, shows_templates=shows_templates) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, shows_templates=shows_templates) for inner in value]
    return value


def _unmasked(value: Any, held: Any, shows_templates: bool) -> Any:
    """``value``, with what was held wherever it is only the masked form of that."""
    if isinstance(value, dict) and isinstance(held, dict):
        return {
            key: _unmasked(inner, held.get(key), shows_templates) for key, inner in value.items()
        }
    if isinstance(value, list) and isinstance(held, list | tuple) and len(value) == len(held):
        return [
            _unmasked(inner, old, shows_templates) for inner, old in zip(value, held, strict=True)
        ]
    is_masked = held is not None and value == masked(held, shows_templates=shows_templates)
    return held if is_masked else value


def _has_template(text: str) -> bool:
    return "{{" in text or "{%" in text
