"""Every documented Kling model: look-up, aliases, parameters, expected seconds.

``models.json`` holds facts from the gateway's documentation as of 2026-08-21. The gateway adds
models monthly, so the catalogue helps and does not gate: what it does not know is not an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DEFAULT_MODEL = "v2.5-turbo-pro"

# Inputs that tell one task from another: an alias with an image means image-to-video.
_TASK_INPUTS = (
    "image_url",
    "tail_image_url",
    "last_image_url",
    "image_list",
    "elements",
    "video_url",
    "audio_url",
    "effect_scene",
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One documented parameter. Bounds are inclusive; lengths count characters or items."""

    name: str
    type: str  # string, integer, number, boolean, array, object, "string or array"
    required: bool = False
    enum: tuple[Any, ...] = ()
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    min_items: int | None = None
    max_items: int | None = None
    max_length: int | None = None
    format: str | None = None
    items: Parameter | None = None
    properties: Mapping[str, Parameter] | None = None

    @classmethod
    def from_facts(cls, name: str, facts: Mapping[str, Any]) -> Parameter:
        known = dict(facts)
        known["enum"] = tuple(known.get("enum", ()))
        if "items" in known:
            known["items"] = cls.from_facts(f"{name}[]", known["items"])
        if "properties" in known:
            known["properties"] = {
                key: cls.from_facts(f"{name}.{key}", value)
                for key, value in known["properties"].items()
            }
        return cls(name=name, **known)


@dataclass(frozen=True, slots=True)
class Model:
    """One documented model and what it takes."""

    id: str
    family: str
    tier: str | None
    task: str
    output: str
    spellings: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    seconds: Mapping[str, tuple[float, float]]
    seconds_from: str | None
    legacy_url: bool
    deprecated: bool

    @property
    def alias(self) -> str:
        """The short name: the family and its tier, ``v2.5-turbo-pro``."""
        last = self.tier or (self.task if self.task == "motion-control" else None)
        return "-".join(part for part in (self.family, last) if part)

    def expected_seconds(self, duration: int | None = None) -> float | None:
        """How long one run took in the documentation, in seconds; None where it says nothing.

        Mostly one sample run per model, some with a range per duration; figures of kind
        "at least" were counted from a sample log, so a run takes a little longer.
        """
        low_high = self.seconds.get(str(duration)) or self.seconds.get("any")
        if low_high is None:
            low_high = self.seconds.get("5")
        return sum(low_high) / 2 if low_high else None


@cache
def models() -> tuple[Model, ...]:
    """All documented models, in the documentation's order (oldest family first)."""
    text = Path(__file__).with_name("models.json").read_text(encoding="utf-8")
    return tuple(
        Model(
            id=facts["id"],
            family=facts["family"],
            tier=facts["tier"],
            task=facts["task"],
            output=facts["output"],
            spellings=tuple(facts.get("spellings", ())),
            parameters={
                name: Parameter.from_facts(name, value)
                for name, value in facts["parameters"].items()
            },
            seconds={key: (pair[0], pair[1]) for key, pair in facts.get("seconds", {}).items()},
            seconds_from=facts.get("seconds_from"),
            legacy_url=facts["legacy_url"],
            deprecated=facts.get("deprecated", False),
        )
        for facts in json.loads(text)
    )


@cache
def _by_id() -> dict[str, Model]:
    found: dict[str, Model] = {}
    for model in models():
        for name in (model.id, *model.spellings):
            found[name] = model
    return found


def _words(name: str) -> tuple[str, ...]:
    """``klingai/v2.5-turbo/pro`` and ``V2-5_turbo-pro`` are the same words in any order."""
    name = re.sub(r"^(klingai|kling-video|kling)[/-]", "", name.strip().lower())
    name = re.sub(r"^(kling-)?video-", "", name).replace("std", "standard")
    return tuple(sorted(word for word in re.split(r"[^a-z0-9]+", name) if word))


@cache
def _by_words() -> dict[tuple[str, ...], tuple[Model, ...]]:
    """An alias is a family, a family with its tier, or either with the task."""
    found: dict[tuple[str, ...], list[Model]] = {}
    short = {"text-to-video": "t2v", "image-to-video": "i2v"}
    for model in models():
        tiers = model.tier.split("-") if model.tier else []
        part_tiers = {(), tuple(tiers), *((tier,) for tier in tiers)}
        for tier in part_tiers:
            for task in {"", model.task, short.get(model.task, "")}:
                words = _words("-".join(filter(None, (model.family, *tier, task))))
                if model not in found.setdefault(words, []):
                    found[words].append(model)
    return {words: tuple(group) for words, group in found.items()}


def candidates(name: str) -> tuple[Model, ...]:
    """The models that ``name`` can mean: one for an id, several for an alias, none if unknown."""
    if exact := _by_id().get(name):
        return (exact,)
    group = _by_words().get(_words(name), ())
    whole = _words(name)
    # "v3-pro" is the tier "pro", not "turbo-pro", when a model has exactly these words.
    exactly = tuple(m for m in group if whole in (_words(m.alias), _words(f"{m.alias}-{m.task}")))
    return exactly or group


def find(name: str, given: Iterable[str] = ()) -> Model | None:
    """The model that ``name`` (id, other spelling or alias) means, or None when unknown.

    ``given`` names the inputs at hand (``image_url``, ``video_url`` …): they choose the task of
    an alias. Raises ValueError, naming the choices, when an alias leaves a tier open.
    """
    group = [model for model in candidates(name) if not model.deprecated] or candidates(name)
    if len(group) <= 1:
        return group[0] if group else None
    tiers = sorted({model.alias for model in group})
    if len(tiers) > 1:
        raise ValueError(f"{name!r} names several models: say {', '.join(tiers)}.")
    inputs = {key for key in given if key in _TASK_INPUTS}

    def misfit(model: Model) -> tuple[int, int]:
        needed = {key for key, p in model.parameters.items() if p.required and key in _TASK_INPUTS}
        return (len(inputs - set(model.parameters)), len(needed - inputs))

    return min(group, key=misfit)


def suggestions(name: str, known: Iterable[str] | None = None, most: int = 3) -> list[str]:
    """Known names close to ``name``, nearest first: the did-you-mean of every integration."""
    if known is None:
        names = [*(model.alias for model in models()), *_by_id()]
        known = dict.fromkeys(names)
    import difflib  # for mistakes only

    return difflib.get_close_matches(name, list(known), n=most, cutoff=0.6)


def did_you_mean(name: str, known: Iterable[str] | None = None) -> str:
    """A sentence's end: `` Did you mean a, b?`` or nothing."""
    close = suggestions(name, known)
    return f" Did you mean {' or '.join(close)}?" if close else ""
