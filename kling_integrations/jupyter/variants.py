"""Several videos in one cell: every combination of what is varied, in one grid."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..commands import UsageError, request_from
from ..core import values
from ..core.errors import InvalidRequestError, KlingError
from ..core.request import VideoRequest
from ..core.validation import is_missing_text
from .clips import Clips
from .display.grid import Cell
from .display.grid_view import GridView
from .errors import noting
from .frontend import print_notes
from .job import Job
from .session import current
from .templating import Template, look_up

_MOST = 100  # generations in one cell: more is probably a mistake

_FLAGS = {"aspect": "aspect_ratio", "negative": "negative_prompt", "cfg": "cfg_scale"}


@dataclass(frozen=True)
class Variant:
    """One generation of a cell. ``differs`` says what tells it from the others."""

    request: VideoRequest
    take: int = 1
    differs: Mapping[str, str] = field(default_factory=dict)


def plan(
    args: argparse.Namespace, body: str, names: Mapping[str, Any]
) -> tuple[list[Variant], list[str]]:
    """The variants of a cell, and what the user should know about them (warnings of the core).

    Raises UsageError and InvalidRequestError, before anything is sent.
    """
    prompt = body if args.raw else Template(body)
    pictures = {key: picture(getattr(args, key), names) for key in ("image", "tail_image")}
    dimensions = _dimensions(args, prompt, names)
    count = args.takes
    for _, choices in dimensions:
        count *= len(choices)
    if count > _MOST:
        raise UsageError(f"That is {count} generations; one cell makes at most {_MOST}.")
    variants: list[Variant] = []
    notes: dict[str, None] = {}
    keys = [name for name, _ in dimensions]
    for combination in itertools.product(*(choices for _, choices in dimensions)):
        chosen = dict(zip(keys, combination, strict=True))
        request, noted = noting(partial(_request, args, prompt, names, chosen, pictures))
        notes.update(dict.fromkeys(noted))
        differs = {name: _text(value) for name, value in chosen.items()}
        for take in range(1, args.takes + 1):
            labels = {**differs, "take": str(take)} if args.takes > 1 else differs
            variants.append(Variant(request, take, labels))
    _check_distinct(variants)
    return variants, list(notes)


def _check_distinct(variants: Sequence[Variant]) -> None:
    names = [(name, each.take) for each in variants for name in {*each.request.fingerprints}]
    if len({*names}) < len(names):
        raise UsageError(
            f"Two of the {len(variants)} would be the same video: for several of one use --takes."
        )


def _request(
    args: argparse.Namespace,
    prompt: str | Template,
    names: Mapping[str, Any],
    chosen: Mapping[str, Any],
    pictures: Mapping[str, Any],
) -> VideoRequest:
    changes = dict(chosen)
    if isinstance(prompt, Template):
        varied = {key: changes.pop(key) for key in prompt.names & set(chosen)}
        prompt = prompt.fill({**names, **varied}, varied)
    for key in ("image", "tail_image"):
        if key in changes:
            changes[key] = _picture(key, changes[key], names)
    text = changes.pop("prompt", prompt)
    check_prompt(text, raw=args.raw)
    text = text.strip() or None if isinstance(text, str) else text
    return request_from(args, text, **pictures, **changes)


def check_prompt(prompt: Any, *, raw: bool) -> None:
    """Raises UsageError for a prompt that is what is left of a missing value, unless ``raw``."""
    if not raw and isinstance(prompt, str) and is_missing_text(prompt):
        raise UsageError(
            f"The prompt is {prompt.strip()!r}, which is what is left of a missing value.",
            hint="To mean it, use --raw. Nothing was submitted.",
        )


def picture(word: str | None, names: Mapping[str, Any]) -> Any:
    """What ``--image`` names: a notebook variable, else a path or URL; None without the flag.

    Raises InvalidRequestError where there is no picture: it must not become text-to-video.
    """
    return None if word is None else _picture(word, word, names)


def _picture(name: str, value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        name = value
        found, held = look_up(value, names)
        value = held if found else value
    if values.is_missing(value) or (isinstance(value, str) and not value.strip()):
        shown = f"{name} is {value}" if name.strip() else "The name of a picture is blank"
        raise InvalidRequestError(f"{shown}: it holds no picture. Nothing was submitted.")
    return value


def _dimensions(
    args: argparse.Namespace, prompt: str | Template, names: Mapping[str, Any]
) -> list[tuple[str, list[Any]]]:
    """What is varied, in the order of the flags, with the values of each."""
    dimensions: list[tuple[str, list[Any]]] = []
    if args.models:
        models = [word.strip() for word in args.models.split(",") if word.strip()]
        if args.model:
            models.insert(0, args.model)
        dimensions.append(("model", models))
    fields = prompt.names if isinstance(prompt, Template) else set()
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


# --- running ---------------------------------------------------------------------------------


def run_batch(
    args: argparse.Namespace,
    variants: Sequence[Variant],
    pattern: str = "",
    notes: Sequence[str] = (),
) -> Any:
    """Starts all variants, shows them in one grid and waits for them (not with ``--bg``).

    ``pattern`` is the prompt before its fields were filled in; ``notes`` are as in ``run_one``.
    Raises the first error, as the whole cell's, once all are over.
    """
    if args.file and not args.file.endswith("/") and "{id}" not in args.file:
        raise UsageError(
            f"-f {args.file} is one file for {len(variants)} videos: name a folder (ending in "
            "/), or have {id} in the name."
        )
    session = current()
    notebook = session.notebook
    with session.interruptible() as jobs:
        for variant in variants:
            session.start(
                variant.request,
                take=variant.take,
                new=args.new,
                file=args.file,
                overwrite=args.overwrite,
                timeout=args.timeout,
                jobs=jobs,
                is_within_limit=True,
            )
        notebook.assign(args.out, Clips(jobs))
        view = GridView(
            [Cell(_labels(variant), job) for variant, job in zip(variants, jobs, strict=True)],
            prompt=_shared_prompt(variants, pattern),
            embed=args.embed,
            width=args.width and 2 * args.width,
        )
        if not args.quiet:
            view.begin()
        if args.bg:
            print_notes(notes)
            return None if args.out and not args.quiet else list(jobs)
        session.wait(jobs, None if args.quiet else view.show_news, notes)
    made = Clips(job.video or job for job in jobs)
    notebook.assign(args.out, made)
    raise_first(jobs)
    return made if args.quiet else None


def _labels(variant: Variant) -> dict[str, str]:
    return {name: value for name, value in variant.differs.items() if name != "prompt"}


def _shared_prompt(variants: Sequence[Variant], pattern: str) -> str | None:
    """The prompt of all; prompts that only differ in what is varied share their pattern."""
    if any("prompt" in variant.differs for variant in variants):
        return None
    prompts = {variant.request.prompt for variant in variants}
    return pattern if len(prompts) > 1 else prompts.pop()


def raise_first(jobs: Sequence[Job]) -> None:
    """Raises the first job's error, as that of all: a headless run must not pass."""
    bad = [job for job in jobs if job.error is not None]
    if not bad:
        return
    error = bad[0].error
    kind = type(error) if isinstance(error, KlingError) else KlingError
    first = (error.message if isinstance(error, KlingError) else str(error)).splitlines()[0]
    if len(bad) == len(jobs):
        hint = error.hint if isinstance(error, KlingError) else None
        raise kind(f"None of the {len(jobs)} ended with a video. {first}", hint=hint)
    raise kind(
        f"{len(bad)} of {len(jobs)} ended without a video; the others are there. {first}",
        hint="Run the cell again: what is there is reused, only the rest is asked for anew.",
    )
