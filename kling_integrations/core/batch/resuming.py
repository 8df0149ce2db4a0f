"""The steps of a batch out of the results that its last round wrote. No I/O but the plan's.

What a round wrote just before it let go says all, so no record is read for it; of a row that it
says nothing about, or is in doubt about, the records decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ..request import VideoRequest
from ..submission import Entry, Record, State
from .plan import Need, RowLedger, Step, Wishes, plan
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


def entry_of(row: Row, base_url: str, result: Result) -> Entry:
    """The record of a row that runs, as far as its result says."""
    since = _unix(result.submitted_at)
    record = Record(
        fingerprint=row.fingerprint,
        client_request_id="",
        model=row.model,
        created_at=since,
        state=State.SUBMITTED,
        generation_id=result.generation_id,
    )
    return Entry(
        record=record,
        base_url=base_url,
        take=row.take,
        duration=row.duration,
        prompt=row.prompt,
        request={},
        submitted_at=since,
        elapsed=None,
        usage={},
        error=None,
        path=None,
        size=None,
        sha256=None,
    )


def _unix(text: str | None) -> float:
    """The Unix seconds of ``now_iso``; those of long ago for anything else, so it is asked soon."""
    try:
        return datetime.strptime(text or "", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
