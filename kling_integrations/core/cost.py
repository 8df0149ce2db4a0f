"""What a generation will cost, as far as the gateway says, and what it did cost.

Prices come from ``GET /v1/models?id=…&include=pricing`` (docs of the gateway, "Model Catalogue
API", 2026-08). Nothing here knows a price by itself, and what is not known is None, never 0.

Of a price block ``kind`` tells how to read it:

- ``fixed``: one rate, in ``units[]``;
- ``variants``: ``variants[]`` with a rate for each combination of the request parameters that
  ``dimensions`` names, given in ``when``;
- ``variable``: not known ahead of the request.

A rate is ``price`` USD for ``per`` units (1 where it does not say, as the documented rates per
second). The documentation shows ``unit`` in variants; units of other models were seen with
``name`` instead, so either is read. Units that a video request can be counted in are seconds of
video, and videos, requests or generations; a rate in anything else (tokens, megapixels) is
unknown here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import catalog
from .errors import InvalidRequestError, NextStep, Verb

if TYPE_CHECKING:
    from .generation import Usage
    from .request import VideoRequest

_FAR = 100.0  # times what was expected, beyond which a figure is more likely a mistake

CREDITS_PER_USD = 2_000_000  # docs of the gateway, "Balance" and FAQ

_SECONDS = frozenset({"second", "seconds", "sec", "s", "video_second", "video_seconds"})
_WHOLES = frozenset(
    {"video", "videos", "request", "requests", "generation", "generations", "item", "call"}
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request is expected to cost: ``usd`` is None where the gateway does not say."""

    usd: float | None
    reason: str = ""
    """Why it is unknown, as the end of a sentence; empty otherwise."""

    def __str__(self) -> str:
        return f"unknown ({self.reason})" if self.usd is None else dollars(self.usd)


def dollars(usd: float) -> str:
    """``$0.50``; below ten cents ``$0.0294``, because a small price is not nothing."""
    if 0 < usd < 0.00005:
        return "less than $0.0001"
    return f"${usd:.4f}" if 0 < usd < 0.1 else f"${usd:,.2f}"


def limit(value: object, name: str = "max_cost_usd") -> float | None:
    """A limit in USD out of a number or its text; None for None.

    Raises InvalidRequestError for what is not a finite number of at least 0: such a limit
    would let everything through.
    """
    if value is None:
        return None
    try:
        usd = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        usd = math.nan
    if isinstance(value, bool) or not math.isfinite(usd) or usd < 0:
        raise InvalidRequestError(
            f"{name}={str(value)[:40]!r} is no limit: it takes USD, a finite number from 0 on."
        )
    return usd


def estimate(request: VideoRequest, prices: object) -> float | None:
    """USD that the request will cost by ``client.prices(request.model)``; None when unknown."""
    return explain(request, prices).usd


def check_cost(request: VideoRequest, prices: object, max_usd: float) -> Estimate:
    """The estimate, when it is within ``max_usd``.

    Raises InvalidRequestError when it says more, and when it says nothing: a limit that cannot
    be held against a price does not protect.
    """
    max_usd = limit(max_usd) or 0.0
    expected = explain(request, prices)
    if expected.usd is None:
        raise InvalidRequestError(
            f"The cost of {request.model} is unknown beforehand ({expected.reason}), so the limit "
            f"of {dollars(max_usd)} cannot be kept. Nothing was submitted.",
            next_steps=[NextStep(Verb.DROP_COST_LIMIT)],
        )
    if expected.usd > max_usd + 1e-9:
        raise InvalidRequestError(
            f"This is expected to cost {dollars(expected.usd)}, and the limit is "
            f"{dollars(max_usd)}. Nothing was submitted.",
            hint="A shorter video or a smaller model costs less.",
            next_steps=[NextStep(Verb.RAISE_COST_LIMIT)],
        )
    return expected


def explain(request: VideoRequest, prices: object) -> Estimate:
    """``estimate``, with the reason where there is none."""
    pricing = _pricing(request.model, prices)
    if pricing is None:
        return Estimate(None, "the gateway's price list does not have it")
    kind = pricing.get("kind")
    if kind == "variable":
        return Estimate(None, "its price depends on the result")
    rates = _rates(request, pricing)
    costs = {_cost(request, rate) for rate in rates}
    if len(costs) == 1:
        usd = costs.pop()
        if usd is not None:
            return Estimate(usd)
    if len(costs) > 1:
        return Estimate(None, "its price depends on parameters that the request leaves open")
    if rates and seconds_of(request) is None:
        return Estimate(None, "the length of the video is not known beforehand")
    return Estimate(None, "the gateway's price list says it in a way that is not understood")


def spent(usage: Usage | None) -> float | None:
    """USD that a generation did cost by what the gateway reported; None when it did not."""
    if usage is None:
        return None
    if usage.usd_spent is not None:
        return usage.usd_spent
    return None if usage.credits_used is None else usage.credits_used / CREDITS_PER_USD


@dataclass(frozen=True, slots=True)
class Charged:
    """What a generation that has ended counts as, in USD; None: nothing says. ``odd`` is why the
    gateway's own figure was not believed, empty where it was."""

    usd: float | None
    odd: str = ""


def charged(usage: Usage | None, expected: float | None, *, failed: bool = False) -> Charged:
    """What a limit counts for a generation that has ended: the one place that decides it.

    The gateway's figure, unless that cannot be meant: less than nothing, or a hundredth or a
    hundred times of what was ``expected``. Such a figure never frees money: the larger one counts.
    A failed generation is not billed (docs of the gateway), unless its usage says otherwise.
    """
    usd = spent(usage)
    if usd is None:
        return Charged(0.0 if failed else expected)
    if failed and usd == 0.0:
        return Charged(0.0)
    if usd < 0.0 or not math.isfinite(usd):
        return Charged(expected, f"The gateway says that it cost {usd:g} USD, which cannot be")
    if expected and not expected / _FAR <= usd <= expected * _FAR:
        odd = f"The gateway says that it cost {usd:g} USD, where {dollars(expected)} were expected"
        return Charged(max(usd, expected), odd)
    return Charged(usd)


def seconds_of(request: VideoRequest) -> float | None:
    """Seconds of video that the request asks for; None where its inputs decide."""
    if "duration" not in request.payload() and (shots := request.payload().get("multi_prompt")):
        lengths = [_figure(shot.get("duration")) for shot in shots if isinstance(shot, Mapping)]
        if len(lengths) == len(shots) and None not in lengths:
            return sum(length for length in lengths if length)
    return request.duration


def _pricing(model: str, prices: object) -> Mapping[str, Any] | None:
    """The price block of ``model``, out of the list, one entry of it, or the block itself."""
    if isinstance(prices, Mapping):
        if "kind" in prices:
            return prices
        if isinstance(prices.get("pricing"), Mapping):
            return _pricing(model, prices["pricing"])
        prices = prices.get("data")
    if not isinstance(prices, list):
        return None
    entries = [entry for entry in prices if isinstance(entry, Mapping)]
    # A name can live on as an alias of another id (docs of the gateway).
    named = [
        entry
        for entry in entries
        if model == entry.get("id") or model in (entry.get("aliases") or ())
    ]
    found = (named or (entries if len(entries) == 1 else []))[:1]
    pricing = found[0].get("pricing") if found else None
    return pricing if isinstance(pricing, Mapping) else None


def _rates(request: VideoRequest, pricing: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rates that can apply to the request: one where the list leaves nothing open."""
    if pricing.get("kind") == "variants":
        fits = [(_fit(request, one), one) for one in _mappings(pricing.get("variants"))]
        possible = [one for fit, one in fits if fit == _PERHAPS]
        surely = [(fit, one) for fit, one in fits if fit is not None and fit != _PERHAPS]
        # A combination that says more about the request is meant rather than a general one.
        most = max((fit for fit, _ in surely), default=0)
        return [one for fit, one in surely if fit == most] + possible
    units = _mappings(pricing.get("units"))
    if not units and "price" in pricing:
        return [pricing]
    # Several units add up in ways that are not documented.
    return units if len(units) == 1 else []


_PERHAPS = -1


def _fit(request: VideoRequest, variant: Mapping[str, Any]) -> int | None:
    """How many conditions of a variant hold; None if one does not, _PERHAPS if one is open."""
    when = variant.get("when", {})
    if not isinstance(when, Mapping):
        return _PERHAPS
    fit = len(when)
    for name, wanted in when.items():
        given = _given(request, str(name))
        if given is None or isinstance(wanted, Mapping):
            fit = _PERHAPS
        elif not any(
            _same(given, one) for one in (wanted if isinstance(wanted, list) else [wanted])
        ):
            return None
    return fit


def _given(request: VideoRequest, name: str) -> Any:
    """The request's value of a price dimension: as asked, else the documented default."""
    if name == "duration":
        return seconds_of(request)
    value = request.payload().get(name)
    if value is not None:
        return value
    known = catalog.candidates(request.model)
    parameter = known[0].parameters.get(name) if len(known) == 1 else None
    return parameter.default if parameter else None


def _same(given: Any, wanted: Any) -> bool:
    """``5``, ``"5"`` and ``"5s"`` are one duration; True and ``"true"`` one answer."""
    numbers = _figure(given), _figure(wanted)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return str(given).strip().lower() == str(wanted).strip().lower()


def _cost(request: VideoRequest, rate: Mapping[str, Any]) -> float | None:
    price, per = _figure(rate.get("price")), _figure(rate.get("per", 1))
    unit = str(rate.get("unit") or rate.get("name") or "").strip().lower().removeprefix("per ")
    count = seconds_of(request) if unit in _SECONDS else 1.0 if unit in _WHOLES else None
    if not price or not per or price < 0 or per < 0 or not count:
        return None  # a price of nothing is more likely a gap in the list than a present
    return round(price / per * count, 6)


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _figure(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value.strip().removesuffix("s"))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
