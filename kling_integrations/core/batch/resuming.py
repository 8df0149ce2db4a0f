"""The steps of a batch out of the results that its last round wrote. No I/O but the plan's.

What a round wrote just before it let go says all, so no record is read for it; of a row that it
says nothing about, or is in doubt about, the records decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..request import VideoRequest
from .plan import Need, RowLedger, Step, Wishes, entry_of, plan
from .results import Result, RowStatus
from .rows import Row


def resume(
    rows: list[Row],
    ledger: RowLedger,
    base_url: str,
    earlier: Mapping[str, Result],
    wishes: Wishes,
    price: Callable[[VideoRequest], float | None],
) -> list[Step]:
    """A step for each row, in their order; the arguments are those of ``plan``."""
    known: dict[int, Step] = {}
    for row in rows:
        if step := _known(row, base_url, earlier.get(row.id)):
            known[row.number] = step
    unknown = [row for row in rows if row.number not in known]
    for step in plan(unknown, ledger, base_url, {}, wishes, price):
        known[step.row.number] = step
    return [known[row.number] for row in rows]


def _known(row: Row, base_url: str, before: Result | None) -> Step | None:
    if before is None:
        return None
    result = replace(before, row=row.number)
    if result.status in (RowStatus.COMPLETED, RowStatus.FAILED):
        return Step(row, Need.NOTHING, result)
    if result.status == RowStatus.RUNNING and result.generation_id:
        return Step(row, Need.ATTACH, result, entry_of(row, base_url, result))
    if result.status == RowStatus.NOT_SUBMITTED and result.generation_id is None:
        expected = result.expected_usd
        fresh = Result(row.number, row.id, RowStatus.NOT_SUBMITTED, expected_usd=expected)
        return Step(row, Need.SUBMIT, fresh)
    return None
