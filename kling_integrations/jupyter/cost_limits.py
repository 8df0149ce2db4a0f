"""What a cell is expected to cost, and the limits that it is held against before it submits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..commands import UsageError, connect
from ..core import settings
from ..core.cost import explain
from ..core.errors import InvalidRequestError, KlingError, NextStep, Verb
from .batch import Variant
from .frontend import print_line
from .options import options
from .session import current


@dataclass(frozen=True)
class BatchCost:
    """What a cell will cost: nothing for what is paid already, ``usd`` None where unknown.

    ``known`` is the sum of what is known in USD, ``picked_up`` how many are paid already.
    """

    usd: float | None
    known: float
    picked_up: int
    reason: str = ""

    def __str__(self) -> str:
        if self.usd is None:
            more = f"; ${self.known:.2f} of it is known" if self.known else ""
            return f"unknown ({self.reason}{more})"
        return f"${self.usd:.2f}"


def expected_cost(variants: Sequence[Variant], *, new: bool) -> BatchCost:
    """The sum over what would be submitted now, by the gateway's price list."""
    ledger, base_url = current().ledger, settings.base_url()
    known, picked_up, reason = 0.0, 0, ""
    prices: dict[str, Any] = {}
    for variant in variants:
        request = variant.request
        if ledger.preview(request, base_url, new=new, take=variant.take).picks_up:
            picked_up += 1
            continue
        if request.model not in prices:
            prices[request.model] = _prices(request.model)
        estimate = explain(request, prices[request.model])
        if estimate.usd is None:
            reason = reason or estimate.reason
        else:
            known += estimate.usd
    return BatchCost(None if reason else round(known, 6), round(known, 6), picked_up, reason)


def _prices(model: str) -> Any:
    try:
        with connect() as client:
            return client.prices(model)
    except KlingError:
        return None


def check_cost(args: argparse.Namespace, variants: Sequence[Variant]) -> None:
    """Holds the cell against ``--max-cost`` and the options, and prints what a batch will cost.

    Raises InvalidRequestError above a limit, UsageError for a batch that needs ``--yes``.
    """
    limits = [limit for limit in (args.max_cost, options().max_cost) if limit is not None]
    if not limits and len(variants) == 1:
        return
    cost = expected_cost(variants, new=args.new)
    if cost.picked_up == len(variants):
        return
    there = f" ({cost.picked_up} of them are there already)" if cost.picked_up else ""
    what = f"Expected cost: {cost} for {len(variants)} videos{there}."
    if limits and (cost.usd is None or cost.usd > min(limits) + 1e-9):
        raise InvalidRequestError(
            f"{what} The limit is ${min(limits):.2f}. Nothing was submitted.",
            next_steps=[NextStep(Verb.RAISE_COST_LIMIT)],
        )
    if len(variants) == 1:
        return
    confirm_above = options().confirm_above
    if not args.yes and (cost.usd is None or cost.usd > confirm_above):
        raise UsageError(
            f"{what} Nothing was submitted.",
            hint=f"To go ahead add --yes. Sums up to ${confirm_above:.2f} need none "
            "(%config KlingMagics.confirm_above).",
        )
    if not args.quiet:
        print_line(what)


def dry_run(args: argparse.Namespace, variants: Sequence[Variant]) -> None:
    """Prints what would be sent and cost; sends nothing."""
    for variant in variants:
        summary = variant.request.summary()
        if variant.take > 1:
            summary["take"] = variant.take
        print_line("\n".join(f"{name:<16}{value}" for name, value in summary.items()) + "\n")
    cost = expected_cost(variants, new=args.new)
    there = f", {cost.picked_up} of them there already" if cost.picked_up else ""
    plural = "videos" if len(variants) > 1 else "video"
    print_line(f"{len(variants)} {plural}{there}. Expected cost: {cost}. Nothing was sent.")
