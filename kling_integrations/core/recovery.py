"""Looking for submissions whose outcome is unknown, in the gateway's log of requests.

There is no list of generations and no idempotency key. But ``GET /v2/logs`` has a row per
request, with the client request id that went out with the POST and the generation's id. It says
only "succeeded" or "failed" of a request, so a generation that still runs is probably not in it
(docs of the gateway; not verified): a missing row proves nothing, and nothing is guessed here.

``search`` and ``look_up`` are flows: they yield actions and do no I/O themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import protocol
from .errors import RateLimitedError
from .protocol import Endpoint
from .submission import Entry
from .waiting import Ask, Flow, Sleep

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


def look_up(endpoint: Endpoint, entries: list[Entry]) -> Flow[list[Recovered]]:
    """What the gateway's log says about each of these uncertain submissions. Costs nothing.

    Raises what the gateway answers the log request with (AuthenticationError, ServerError,
    RateLimitedError).
    """
    if not entries:
        return []
    wanted = {entry.record.client_request_id for entry in entries}
    found, complete = yield from search(
        endpoint, wanted, [entry.record.created_at for entry in entries]
    )
    results = []
    for entry in entries:
        generation_id = found.get(entry.record.client_request_id)
        results.append(Recovered(entry, generation_id, _reason(entry, generation_id, complete)))
    return results


def search(
    endpoint: Endpoint, wanted: set[str], moments: Iterable[float]
) -> Flow[tuple[dict[str, str], bool]]:
    """Generation ids by client request id, as far as the log lists them.

    ``moments``: when the POSTs left (Unix seconds); the log is read around each. The second value
    says whether all of it was read.
    """
    found: dict[str, str] = {}
    complete = True
    for start, end in _windows(moments):
        complete &= yield from _read_window(endpoint, start, end, wanted, found)
        if wanted <= set(found):
            break
    return found, complete


def _read_window(
    endpoint: Endpoint, start: float, end: float, wanted: set[str], found: dict[str, str]
) -> Flow[bool]:
    """Reads the log between two Unix times into ``found``; False where it is too long."""
    offset = pages = 0
    limited = False
    while pages < _MOST_PAGES:
        outcome = yield Ask(endpoint.logs(_iso(start), _iso(end), offset))
        try:
            page: Any = protocol.read_service(outcome, "the logs")
        except RateLimitedError:
            if limited:
                raise
            limited = True
            yield Sleep(_RATE_WINDOW)
            continue
        limited = False
        pages += 1
        rows = protocol.read_logs(page)
        found |= {asked: made for asked, made in rows if asked in wanted}
        count = protocol.count_log_rows(page)
        offset += count
        if wanted <= set(found) or not count or not _more(page, count):
            return True
        yield Sleep(_PACE)
    return False


def _reason(entry: Entry, generation_id: str | None, complete: bool) -> str:
    if generation_id:
        return "found in the gateway's log"
    if not complete:
        return "not found in the part of the gateway's log that was read, which is very long"
    minutes = (time.time() - entry.record.created_at) / 60
    if minutes < 20:
        return "not listed, which says little: a generation that still runs is probably not listed"
    return "not listed, where a generation of that time would mostly be: probably not taken"


def _windows(moments: Iterable[float]) -> list[tuple[float, float]]:
    """Spans of time (Unix seconds) around the submissions, those that overlap made one."""
    spans: list[tuple[float, float]] = []
    for moment in sorted(moments):
        start, end = moment - _BEFORE, moment + _AFTER
        if spans and start <= spans[-1][1]:
            start = spans.pop()[0]
        spans.append((start, end))
    return spans


def _more(page: Any, count: int) -> bool:
    pagination = page.get("pagination") if isinstance(page, dict) else None
    has_more = pagination.get("has_more") if isinstance(pagination, dict) else None
    return has_more if isinstance(has_more, bool) else count >= _PAGE


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
