"""From a cell to the requests that it asks for: one, or every combination of a batch."""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..commands import UsageError, request_from
from ..core import cost
from ..core.errors import InvalidRequestError, KlingWarning
from ..core.request import VideoRequest
from .fill import fields_of, fill, look_up

MOST = 100  # generations in one cell: more is a mistake sooner than a wish

_FLAGS = {"aspect": "aspect_ratio", "negative": "negative_prompt", "cfg": "cfg_scale"}


@dataclass(frozen=True)
class Variant:
    """One generation of a cell. ``differs`` says what tells it from the others."""

    request: VideoRequest
    take: int = 1
    differs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a batch will cost: of what is paid already nothing, None where it is unknown."""

    usd: float | None
    known: float
    there: int
    reason: str = ""

    def __str__(self) -> str:
        if self.usd is None:
            more = f"; ${self.known:.2f} of it is known" if self.known else ""
            return f"unknown ({self.reason}{more})"
        return f"${self.usd:.2f}"


def plan(
    args: argparse.Namespace, body: str, names: Mapping[str, Any]
) -> tuple[list[Variant], list[str]]:
    """The variants of a cell, and what the user should know about them (warnings of the core).

    Raises UsageError and InvalidRequestError, before anything is sent.
    """
    dimensions = _dimensions(args, body, names)
    count = args.takes
    for _, values in dimensions:
        count *= len(values)
    if count > MOST:
        raise UsageError(f"That is {count} generations; one cell makes at most {MOST}.")
    variants: list[Variant] = []
    notes: dict[str, None] = {}
    keys = [name for name, _ in dimensions]
    for combination in itertools.product(*(choices for _, choices in dimensions)):
        chosen = dict(zip(keys, combination, strict=True))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", KlingWarning)
            request = _request(args, body, names, chosen)
        notes.update(dict.fromkeys(str(each.message) for each in caught))
        differs = {name: _text(value) for name, value in chosen.items()}
        for take in range(1, args.takes + 1):
            told = {**differs, "take": str(take)} if args.takes > 1 else differs
            variants.append(Variant(request, take, told))
    seen: set[tuple[str, int]] = set()
    for variant in variants:
        key = (variant.request.fingerprint, variant.take)
        if key in seen:
            raise UsageError(
                f"Two of the {len(variants)} would be the same video: for several of one use "
                "--takes."
            )
        seen.add(key)
    return variants, list(notes)


def _request(
    args: argparse.Namespace, body: str, names: Mapping[str, Any], chosen: Mapping[str, Any]
) -> VideoRequest:
    in_prompt = set() if args.raw else fields_of(body) & set(chosen)
    prompt = body if args.raw else fill(body, {**names, **{key: chosen[key] for key in in_prompt}})
    changes = {key: value for key, value in chosen.items() if key not in in_prompt}
    for key in ("image", "tail_image"):
        if isinstance(changes.get(key), str):
            changes[key] = picture(changes[key], names)
    return request_from(
        args,
        changes.pop("prompt", None) or prompt.strip() or None,
        image=picture(args.image, names),
        tail_image=picture(args.tail_image, names),
        **changes,
    )


def picture(word: str | None, names: Mapping[str, Any]) -> Any:
    """What ``--image`` means: a notebook variable of that name, else a path or URL."""
    if word is None:
        return None
    found, value = look_up(word, names)
    if found and value is None:
        raise InvalidRequestError(f"The variable {word} is None: it holds no picture.")
    return value if found else word


def _dimensions(
    args: argparse.Namespace, body: str, names: Mapping[str, Any]
) -> list[tuple[str, list[Any]]]:
    """What is varied, in the order it was said, with the values of each."""
    dimensions: list[tuple[str, list[Any]]] = []
    if args.models:
        models = [word.strip() for word in args.models.split(",") if word.strip()]
        if args.model:
            models.insert(0, args.model)
        dimensions.append(("model", models))
    fields = set() if args.raw else fields_of(body)
    for text in args.sweep:
        key, sign, values = text.partition("=")
        key = key.strip().removeprefix("--")
        if key not in fields:  # a parameter: flags are written with dashes, parameters without
            key = key.replace("-", "_")
            key = _FLAGS.get(key, key)
        if not sign or not key:
            raise UsageError(f"--sweep {text}: say KEY=A,B,…, such as duration=5,10.")
        if key in dict(dimensions):
            raise UsageError(f"{key} is varied twice.")
        given = getattr(args, key, None)
        if given not in (None, [], False) and key not in ("models", "sweep", "takes"):
            raise UsageError(f"{key} is given both as a flag and as --sweep.")
        choices = _values(values, names)
        if not choices:
            raise UsageError(f"--sweep {key}= names no value.")
        dimensions.append((key, choices))
    return dimensions


def _values(text: str, names: Mapping[str, Any]) -> list[Any]:
    """``5,10``, a JSON list, or a notebook variable that holds several."""
    found, value = look_up(text.strip(), names)
    if found and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return list(value)
    try:
        parsed = json.loads(text)
        if isinstance(parsed, list):
            return parsed
    except ValueError:
        pass
    return [_scalar(part.strip()) for part in text.split(",") if part.strip()]


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def expected_cost(
    variants: Sequence[Variant],
    *,
    is_there: Callable[[Variant], bool],
    prices: Callable[[str], Any],
) -> Cost:
    """The sum over what is still to pay. ``prices(model)`` is the gateway's list, or None."""
    known, there, reason = 0.0, 0, ""
    lists: dict[str, Any] = {}
    for variant in variants:
        if is_there(variant):
            there += 1
            continue
        model = variant.request.model
        if model not in lists:
            lists[model] = prices(model)
        estimate = cost.explain(variant.request, lists[model])
        if estimate.usd is None:
            reason = reason or estimate.reason
        else:
            known += estimate.usd
    return Cost(None if reason else round(known, 6), round(known, 6), there, reason)
