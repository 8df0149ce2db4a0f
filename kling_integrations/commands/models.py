"""``kling models``, ``cost`` and ``balance``: what there is, and what it costs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..core import catalog, cost
from ..core.catalog import Model, Parameter
from ..core.progress import clock_time
from ._arguments import UsageError, add_command, generation_arguments, request_from
from ._context import connect
from ._exit_codes import DONE
from ._text import columns, money

if TYPE_CHECKING:
    from ._console import Console

_PICTURE = "https://example.com/image.png"  # a price depends on whether there is one, not on which


def add(commands: Any) -> None:
    """Adds the three commands to the grammar."""
    models = add_command(
        commands,
        "models",
        _run_models,
        "the documented models, or all about one of them",
        stray="Put words with spaces in quotes.",
    )
    models.add_argument("filter", metavar="FILTER", nargs="?", default="", help="part of a name")

    price = add_command(
        commands,
        "cost",
        _run_cost,
        "what a generation is expected to cost, by the gateway's price list",
    )
    price.add_argument("prompt", metavar="PROMPT", nargs="?", help="does not matter for the price")
    generation_arguments(price)

    add_command(commands, "balance", _run_balance, "what is left on the account")


# --- models ----------------------------------------------------------------------------------


def _run_models(args: argparse.Namespace, console: Console) -> int:
    found = _matching(args.filter)
    if not found:
        advice = catalog.did_you_mean(args.filter)
        raise UsageError(f"No documented model fits {args.filter!r}.{advice}")
    if args.filter and len({model.alias for model in found}) == 1:
        for model in found:
            _describe(model, console)
    else:
        rows = [
            (
                model.alias,
                model.task,
                _values(model, "duration", " s") if model.output == "video" else "no video",
                "yes" if "generate_audio" in model.parameters else "",
                _usual(model),
                _values(model, "aspect_ratio"),
                model.id,
            )
            for model in found
        ]
        console.table(rows, ("MODEL", "TASK", "LENGTH", "AUDIO", "USUALLY", "ASPECT", "ID"))
        if console.width:
            about = console.command("models MODEL")
            console.note(f"\nMODEL goes after -m. All about one: {about}")
    console.result({"models": [_as_json(model) for model in found]})
    return DONE


def _matching(words: str) -> list[Model]:
    """The models that have this very name, else those whose name contains the words."""
    named = catalog.candidates(words) if words else ()
    exact = [model for model in named if words.lower() in (model.id, model.alias, *model.spellings)]
    parts = words.lower().split()
    return exact or [
        model
        for model in catalog.models()
        if all(part in f"{model.alias} {model.task} {model.id}" for part in parts)
    ]


def _values(model: Model, name: str, unit: str = "") -> str:
    parameter = model.parameters.get(name)
    if parameter is None:
        return ""
    if parameter.enum:
        values = [str(value) for value in parameter.enum]
        # 3, 4, … 15 reads better as a range.
        if len(values) > 4 and values[0].isdecimal():
            return f"{values[0]}-{values[-1]}{unit}"
        return f"{', '.join(values)}{unit}"
    if parameter.minimum is not None:
        return f"{parameter.minimum:g}-{parameter.maximum:g}{unit}"
    return ""


def _usual(model: Model) -> str:
    expected = model.expected_seconds()
    return clock_time(expected) if expected else ""


def _describe(model: Model, console: Console) -> None:
    other = f" (also {', '.join(model.spellings)})" if model.spellings else ""
    console.say(f"{model.id}{other}")
    console.say(f"  alias {model.alias}, {model.task}{', deprecated' if model.deprecated else ''}")
    if usual := _usual(model):
        console.say(f"  takes about {usual} in the documentation's sample")
    for line in _parameters(model):
        console.say(f"  {line}")
    console.say("")


def _parameters(model: Model) -> list[str]:
    rows = [
        (
            name,
            "required" if parameter.required else "",
            _takes(parameter),
            "" if parameter.default is None else f"default {parameter.default}",
        )
        for name, parameter in model.parameters.items()
    ]
    return columns(rows)


def _takes(parameter: Parameter) -> str:
    if parameter.enum:
        most = 8
        values = [str(value) for value in parameter.enum[:most]]
        more = len(parameter.enum) - most
        return ", ".join(values) + (f" and {more} more" if more > 0 else "")
    if parameter.minimum is not None:
        return f"{parameter.type}, {parameter.minimum:g} to {parameter.maximum:g}"
    if parameter.max_length:
        return f"{parameter.type}, up to {parameter.max_length:,} characters"
    return parameter.type


def _as_json(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "alias": model.alias,
        "other_names": list(model.spellings),
        "task": model.task,
        "output": model.output,
        "deprecated": model.deprecated,
        "parameters": sorted(model.parameters),
        "expected_seconds": model.expected_seconds(),
    }


# --- money -----------------------------------------------------------------------------------


def _run_cost(args: argparse.Namespace, console: Console) -> int:
    request = request_from(
        args,
        args.prompt or "a price",
        image=_PICTURE if args.image or _needs_image(args) else None,
        tail_image=_PICTURE if args.tail_image else None,
    )
    with connect() as client:
        expected = cost.explain(request, client.prices(request.model))
    length = f" for {request.duration} s" if request.duration else ""
    sandbox = " (play money of the sandbox)" if client.is_sandbox and expected.usd else ""
    console.say(f"{request.model}{length}: {_price(expected)}{sandbox}")
    console.result(
        {
            "model": request.model,
            "duration": request.duration,
            "expected_usd": expected.usd,
            "reason": expected.reason or None,
            "sandbox": client.is_sandbox,
        }
    )
    return DONE


def _price(expected: cost.Estimate) -> str:
    return str(expected) if expected.usd is None else money(expected.usd)


def _needs_image(args: argparse.Namespace) -> bool:
    named = catalog.candidates(args.model or catalog.DEFAULT_MODEL)
    image = named[0].parameters.get("image_url") if len(named) == 1 else None
    return image is not None and image.required


def _run_balance(args: argparse.Namespace, console: Console) -> int:
    with connect() as client:
        answer = client.balance()
        sandbox = client.is_sandbox
    amount, currency = answer.get("current_balance"), answer.get("currency") or "USD"
    if isinstance(amount, int | float) and not isinstance(amount, bool):
        shown = money(amount) if currency == "USD" else f"{amount:,.2f} {currency}"
    else:
        shown = "unknown: the gateway does not say"
    console.say(shown + (" (play money of the sandbox)" if sandbox else ""))
    console.result({"current_balance": amount, "currency": currency, "sandbox": sandbox})
    return DONE
