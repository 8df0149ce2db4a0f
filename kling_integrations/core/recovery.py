"""Looking for submissions whose outcome is unknown, in the gateway's log of requests.

There is no list of generations and no idempotency key. But ``GET /v2/logs`` has a row per
request, with the client request id that went out with the POST and the generation's id. It says
only "succeeded" or "failed" of a request, so a generation that still runs is probably not in it
(docs of the gateway; not verified): a missing row proves nothing, and nothing is guessed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from . import protocol
from .errors import RateLimitedError

if TYPE_CHECKING:
    from .http.client import KlingClient
    from .storage.ledger import Ledger
    from .submission import Entry

# The row's time is the gateway's, the record's is this machine's, whose clock may be wrong; and a
# POST that was surely not taken is repeated for a while under the same id.
_BEFORE, _AFTER = 900.0, 1800.0
_PAGE = 100
# The documented limit is 200 requests in 60 seconds; a page each 0.4 s keeps below it.
_PACE = 0.4
_MOST_PAGES = 500
_RATE_WINDOW = 60.0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of the search for one submission; ``generation_id`` is None if not listed."""

    entry: Entry
    generation_id: str | None
    reason: str


def recover(
    client: KlingClient, ledger: Ledger, *, sleep: Callable[[float], None] = time.sleep
) -> list[Recovered]:
    """Looks up every uncertain submission of the ledger; what is found is attached.

    From then on the same request re-attaches to it instead of being refused. Costs nothing.
    Raises what the gateway answers the log request with (AuthenticationError, ServerError,
    RateLimitedError), and LedgerError.
    """
    open_rows = ledger.uncertain(client.endpoint.base_url)
    wanted = {entry.record.client_request_id for entry in open_rows}
    found: dict[str, str] = {}
    complete = True
    for start, end in _windows(open_rows):
        try:
            for asked, made in log_rows(client, start, end, sleep):
                if asked in wanted:
                    found[asked] = made
                if wanted <= set(found):
                    break
        except _TooManyRowsError:
            complete = False
    results = []
    for entry in open_rows:
        generation_id = found.get(entry.record.client_request_id)
        if generation_id:
            ledger.found(entry.record, generation_id)
        results.append(Recovered(entry, generation_id, _reason(entry, generation_id, complete)))
    return results


def _reason(entry: Entry, generation_id: str | None, complete: bool) -> str:
    if generation_id:
        return "found in the gateway's log"
    if not complete:
        return "not found in the part of the gateway's log that was read, which is very long"
    minutes = (time.time() - entry.record.created_at) / 60
    if minutes < 20:
        return "not listed, which says little: a generation that still runs is probably not listed"
    return "not listed, where a generation of that time would mostly be: probably not taken"


class _TooManyRowsError(Exception):
    pass


def _windows(entries: list[Entry]) -> list[tuple[float, float]]:
    """Spans of time (Unix seconds) around the submissions, those that overlap made one."""
    spans: list[tuple[float, float]] = []
    for moment in sorted(entry.record.created_at for entry in entries):
        start, end = moment - _BEFORE, moment + _AFTER
        if spans and start <= spans[-1][1]:
            start = spans.pop()[0]
        spans.append((start, end))
    return spans


def log_rows(
    client: KlingClient, start: float, end: float, sleep: Callable[[float], None]
) -> Iterator[tuple[str, str]]:
    """``(client request id, generation id)`` of the log between two Unix times."""
    offset = pages = 0
    limited = False
    while pages < _MOST_PAGES:
        try:
            page = client.logs(_iso(start), _iso(end), offset)
        except RateLimitedError:
            if limited:
                raise
            limited = True
            sleep(client.clock.real(_RATE_WINDOW))
            continue
        limited = False
        pages += 1
        yield from protocol.read_logs(page)
        count = _count(page)
        offset += count
        if not count or not _more(page, count):
            return
        sleep(client.clock.real(_PACE))
    raise _TooManyRowsError


def _count(page: object) -> int:
    if isinstance(page, dict):  # the key is documented as "data"
        page = page.get("data", page.get("logs", page.get("items")))
    return len(page) if isinstance(page, list) else 0


def _more(page: object, count: int) -> bool:
    pagination = page.get("pagination") if isinstance(page, dict) else None
    says = pagination.get("has_more") if isinstance(pagination, dict) else None
    return says if isinstance(says, bool) else count >= _PAGE


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
