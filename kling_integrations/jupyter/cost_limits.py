"""What a cell is expected to cost, and the limits that it is held against before it submits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..commands import UsageError, connect
from ..core import settings
from ..core.cost import dollars, explain
from ..core.errors import InvalidRequestError, KlingError, NextStep, Verb
from .display.preview import Preview, preview, text
from .frontend import choose_ui, print_line, publish
from .options import options
from .session import current
from .variants import Variant


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
            more = f"; {dollars(self.known)} of it is known" if self.known else ""
            return f"unknown ({self.reason}{more})"
        return dollars(self.usd)


def previews(variants: Sequence[Variant], *, new: bool) -> list[Preview]:
    """What would become of each, and what it would cost by the gateway's price list."""
    ledger, base_url = current().ledger, settings.base_url()
    prices: dict[str, Any] = {}
    made = []
    for variant in variants:
        request = variant.request
        decision = ledger.preview(request, base_url, new=new, take=variant.take)
        estimate = None
        if not decision.picks_up:
            if request.model not in prices:
                prices[request.model] = _prices(request.model)
            estimate = explain(request, prices[request.model])
        made.append(Preview(request, variant.take, decision, estimate))
    return made


def expected_cost(previews: Sequence[Preview]) -> BatchCost:
    """The sum over what would be submitted now."""
    estimates = [each.estimate for each in previews if each.estimate is not None]
    known = round(sum(each.usd for each in estimates if each.usd is not None), 6)
    reason = next((each.reason for each in estimates if each.usd is None), "")
    picked_up = len(previews) - len(estimates)
    return BatchCost(None if reason else known, known, picked_up, reason)


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
    session, of_cell = current(), options().max_cost
    limits = [limit for limit in (args.max_cost, of_cell) if limit is not None]
    if of_cell is not None:  # further lines of the same cell count, too
        limits.append(max(0.0, of_cell - session.cell_cost))
    if not limits and len(variants) == 1:
        return
    cost = expected_cost(previews(variants, new=args.new))
    if cost.picked_up == len(variants):
        return
    there = f" ({cost.picked_up} of them are there already)" if cost.picked_up else ""
    what = f"Expected cost: {cost} for {len(variants)} videos{there}."
    if limits and (cost.usd is None or cost.usd > min(limits) + 1e-9):
        raise InvalidRequestError(
            f"{what} The limit is {dollars(min(limits))}. Nothing was submitted.",
            next_steps=[NextStep(Verb.RAISE_COST_LIMIT)],
        )
    session.add_cell_cost(cost.usd or 0.0)
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
    """Shows what would be sent and cost, as a card where there can be one; sends nothing."""
    for variant in variants:
        variant.request.check_reachable(settings.base_url())
    shown = previews(variants, new=args.new)
    cost = expected_cost(shown)
    there = f", {cost.picked_up} of them there already" if cost.picked_up else ""
    plural = "videos" if len(variants) > 1 else "video"
    total = f"{len(variants)} {plural}{there}. Expected cost: {cost}. Nothing was sent."
    if choose_ui().has_cards:
        publish(preview(shown, total, sandbox=settings.is_sandbox(settings.base_url())))
    else:
        print_line(text(shown, total))
