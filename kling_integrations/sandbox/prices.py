"""Prices of the sandbox: invented, and marked as such wherever they are shown.

The gateway's documents quote no Kling prices; these only have the right order of magnitude, so
that budgets, balances and cost reports have figures to work with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.catalog import Model

NOTE = "Invented by the sandbox: not a price of AI/ML API or Kling."
_USD_PER_SECOND = {"standard": 0.05, "pro": 0.10, "master": 0.28}
_AUDIO = 1.5


def seconds_of(payload: Mapping[str, Any]) -> float:
    """The length of the video that the body asks for, in seconds."""
    duration = payload.get("duration")
    if duration is None and isinstance(payload.get("multi_prompt"), list):
        shots = [s.get("duration") for s in payload["multi_prompt"] if isinstance(s, Mapping)]
        lengths = [shot for shot in shots if isinstance(shot, int)]
        if len(lengths) == len(shots):
            duration = sum(lengths)
    try:
        seconds = float(duration or 5)
    except (TypeError, ValueError):
        return 5.0
    return seconds if 0 < seconds <= 60 else 5.0


def has_audio(model: Model | None, payload: Mapping[str, Any]) -> bool:
    chosen = payload.get("generate_audio")
    if chosen is None and model is not None and "generate_audio" in model.parameters:
        chosen = model.parameters["generate_audio"].default
    return chosen is True


def usd_per_second(model: Model | None) -> float:
    words = (model.tier or "pro").split("-") if model else ["pro"]
    return next((_USD_PER_SECOND[word] for word in words if word in _USD_PER_SECOND), 0.10)


def cost(model: Model | None, payload: Mapping[str, Any]) -> float:
    """What this generation costs here, in sandbox dollars."""
    factor = _AUDIO if has_audio(model, payload) else 1.0
    return round(usd_per_second(model) * factor * seconds_of(payload), 6)


def pricing(model: Model) -> dict[str, Any]:
    """The `pricing` block of the model list; `price` is in USD for `per` units."""
    rate = usd_per_second(model)
    unit = {"unit": "second", "per": 1}
    if "generate_audio" not in model.parameters:
        return {"kind": "fixed", "units": [{"price": rate, **unit}], "note": NOTE}
    return {
        "kind": "variants",
        "dimensions": ["generate_audio"],
        "variants": [
            {"when": {"generate_audio": False}, "price": rate, **unit},
            {"when": {"generate_audio": True}, "price": round(rate * _AUDIO, 6), **unit},
        ],
        "note": NOTE,
    }
