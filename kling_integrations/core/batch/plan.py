"""What each row still needs, held against what is paid for already and what an earlier run wrote.

Reads the ledger and looks at files; sends and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Protocol

from .. import cost
from ..errors import InvalidRequestError
from ..generation import Usage
from ..request import VideoRequest
from ..submission import Action, Decision, Entry, Record, State
from . import cells
from .results import WORTH_REPEATING, Result, RowStatus, counted, now_iso
from .rows import Row, row_id_of

_BILLED = (RowStatus.COMPLETED, RowStatus.RUNNING, RowStatus.UNCERTAIN)
_READERS = 16  # pictures that are read from object storage side by side


class Need(Enum):
    NOTHING = "nothing"  # it has ended, and its video is there
    SUBMIT = "submit"
    ATTACH = "attach"  # it is paid for: wait, or only save
    LOOK_UP = "look up"  # a POST of it has no known outcome


@dataclass(slots=True)
class Step:
    """One row, what it needs, and its result so far. ``reserved`` in USD."""

    row: Row
    need: Need
    result: Result
    entry: Entry | None = None
    resubmit: str | None = None  # the POST in doubt that the next one may pass over
    reserved: float | None = None
    client_request_id: str | None = None  # of the POST that is looked up

    @property
    def paid(self) -> float | None:
        """USD that it has cost, or will for all that is known."""
        result = self.result
        usage = None if result.usd is None else Usage(usd_spent=result.usd)
        return cost.charged(usage, result.expected_usd).usd


class Previews(Protocol):
    """Says what a submit would do; raises LedgerError."""

    def preview(self, request: VideoRequest, base_url: str, *, take: int = 1) -> Decision: ...


class RowLedger(Protocol):
    """What a plan needs of a ledger; raises LedgerError."""

    def prefetch(self, base_url: str, requests: Iterable[tuple[str, int]]) -> Previews: ...

    def uncertain(self, base_url: str) -> list[Entry]: ...


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user said about rows that were tried before, and where the videos shall be.

    ``folder`` None: the videos stay at the gateway, or with ``saves`` they go to another place.
    ``retry_failed`` pays again for failures of
    the provider, ``retry_uncertain`` for POSTs that the gateway's log does not name.
    """

    folder: Path | None = None
    retry_failed: bool = False
    retry_uncertain: bool = False
    saves: bool = False


def plan(
    rows: list[Row],
    ledger: RowLedger,
    base_url: str,
    earlier: Mapping[str, Result],
    wishes: Wishes,
    price: Callable[[VideoRequest], float | None],
) -> list[Step]:
    """A step for each row, in their order. ``earlier`` are results by the id of their row.

    ``price`` says what a request is expected to cost, in USD.
    """
    known = {row.number: earlier[row.id] for row in rows if row.id in earlier}
    settled = {number for number, before in known.items() if _is_settled(before, wishes)}
    asked = [row for row in rows if row.number not in settled]
    previews = ledger.prefetch(base_url, (name for row in asked for name in row.names()))
    steps = {
        number: Step(row, Need.NOTHING, replace(known[number], row=number))
        for row in rows
        if (number := row.number) in settled
    }
    for row, request in zip(asked, _requests(asked), strict=True):
        before = known.get(row.number)
        steps[row.number] = _step(row, request, previews, base_url, before, wishes, price)
    return [steps[row.number] for row in rows]


def committed(
    steps: Iterable[Step],
    earlier: Mapping[str, Result],
    ledger: RowLedger,
    base_url: str,
) -> float:
    """USD that the table has cost, or may have, beside its steps; counts against its limit.

    Rows that were taken out or edited since are paid for all the same, and so may be a POST in
    doubt that was passed over.
    """
    steps = list(steps)
    here = {step.result.row_id for step in steps}
    # A failure that was billed all the same, and whose row is tried once more.
    repeated = {step.result.row_id for step in steps if step.need is Need.SUBMIT}
    gone = sum(
        counted(result)
        for row_id, result in earlier.items()
        if row_id not in here or (row_id in repeated and result.status == RowStatus.FAILED)
    )
    expected = {name: step.result.expected_usd for step in steps for name in step.row.names()}
    passed = 0.0
    for entry in ledger.uncertain(base_url):
        if entry.state is not State.ABANDONED:
            continue
        name = (entry.record.fingerprint, entry.take)
        if name in expected:
            passed += expected[name] or 0.0
        elif before := earlier.get(row_id_of(base_url, *name)):  # of a row that is gone
            passed += before.expected_usd or 0.0
    return gone + passed


def doubted_before(steps: Iterable[Step], earlier: Mapping[str, Result]) -> list[Step]:
    """The steps that would submit what an earlier run left in doubt.

    Where the records know nothing at all (another machine, a home that is gone), its results are
    all that tells of a POST that may have been paid.
    """
    return [
        step
        for step in steps
        if step.need is Need.SUBMIT
        and (before := earlier.get(step.result.row_id)) is not None
        and before.status == RowStatus.UNCERTAIN
    ]


def _requests(rows: list[Row]) -> Iterator[VideoRequest | InvalidRequestError]:
    """The request of each row, or why there is none; a few at a time, for pictures are large."""

    def made(row: Row) -> VideoRequest | InvalidRequestError:
        try:
            return row.request()
        except InvalidRequestError as error:
            return error

    if not any(cells.is_remote(value) for row in rows for value in row.pictures()):
        yield from map(made, rows)
        return
    with ThreadPoolExecutor(_READERS, "kling-pictures") as pool:
        for start in range(0, len(rows), _READERS):
            yield from pool.map(made, rows[start : start + _READERS])


def _step(
    row: Row,
    request: VideoRequest | InvalidRequestError,
    previews: Previews,
    base_url: str,
    before: Result | None,
    wishes: Wishes,
    price: Callable[[VideoRequest], float | None],
) -> Step:
    row_id = row.id
    fresh = Result(row.number, row_id, RowStatus.NOT_SUBMITTED)
    if isinstance(request, InvalidRequestError):
        fresh.end(RowStatus.REFUSED, "input", request.message)
        return Step(row, Need.NOTHING, fresh)
    fresh.expected_usd = price(request)
    decision = previews.preview(request, base_url, take=row.take)
    for take in row.older if decision.entry is None else ():
        former = previews.preview(request, base_url, take=take)
        if former.entry is not None:  # an earlier version recorded it there, and so do we
            decision, row = former, replace(row, take=take)
            break
    entry = decision.entry
    if entry is not None:
        _recall(fresh, entry, before)
    if before is not None and (decision.picks_up or decision.action is Action.REFUSE):
        # Not by the price of today: it was reserved, and may be paid, at the one of then.
        fresh.expected_usd = max(
            filter(None, (fresh.expected_usd, before.expected_usd)), default=None
        )
    if decision.action is Action.REFUSE:
        asked = entry.record.client_request_id if entry else None
        return Step(row, Need.LOOK_UP, fresh, entry, client_request_id=asked)
    if decision.picks_up:
        return Step(row, Need.ATTACH, fresh, entry)
    if entry is None and before is not None and before.generation_id and before.status in _BILLED:
        return Step(
            row, Need.ATTACH, replace(before, row=row.number), entry_of(row, base_url, before)
        )
    if entry is not None and entry.state is State.FAILED:
        fresh.end(RowStatus.FAILED, _kind(entry, before), entry.error or "it failed")
        if not wishes.retry_failed or fresh.error_kind not in WORTH_REPEATING:
            return Step(row, Need.NOTHING, fresh, entry)
    expected = fresh.expected_usd
    fresh = Result(row.number, row_id, RowStatus.NOT_SUBMITTED, expected_usd=expected)
    return Step(row, Need.SUBMIT, fresh)


def _is_settled(before: Result, wishes: Wishes) -> bool:
    """Whether an earlier run's result still says all; only cheap looks, for thousands of rows."""
    if before.status == RowStatus.FAILED:
        return not (wishes.retry_failed and before.error_kind in WORTH_REPEATING)
    if before.status != RowStatus.COMPLETED or not before.generation_id:
        return False
    if wishes.folder is None:
        return before.path is not None or not wishes.saves
    if before.path is None or before.size is None:
        return False
    path = Path(before.path)
    try:
        here = path.parent.resolve() == wishes.folder.resolve()
        return here and path.stat().st_size == before.size
    except (OSError, ValueError):
        return False


def _recall(result: Result, entry: Entry, before: Result | None) -> None:
    """What the record of a payment says, for a row that an earlier run submitted."""
    result.generation_id = entry.generation_id
    result.submitted_at = now_iso(entry.since)
    result.seconds = entry.elapsed and round(entry.elapsed, 1)
    result.usd = cost.spent(Usage(**entry.usage)) if entry.usage else None
    if before is not None and before.generation_id == entry.generation_id:
        result.finished_at = before.finished_at


def entry_of(row: Row, base_url: str, result: Result) -> Entry:
    """The record of a row that is paid for, as far as its result says."""
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


def _kind(entry: Entry, before: Result | None) -> str:
    """Why a generation failed. Records that do not say it yet have it in their words."""
    if entry.error_kind:
        return entry.error_kind
    if before is not None and before.status == RowStatus.FAILED and before.error_kind:
        return before.error_kind
    # Those of ``waiting.ended``, as they were at first (``Generation … failed``) and later on.
    words = r"(?:Failed|Generation \S+ failed) \((moderation|input|credits|provider)\)"
    match = re.match(words, entry.error or "")
    return match[1] if match else "unknown"
