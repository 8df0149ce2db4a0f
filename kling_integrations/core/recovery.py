"""Looking for submissions whose outcome is unknown, in the gateway's log of requests.

There is no list of generations and no idempotency key. But ``GET /v2/logs`` has a row per
request, with the client request id that went out with the POST and the generation's id. It says
only "succeeded" or "failed" of a request, so a generation that still runs is probably not in it
(docs of the gateway; not verified): a missing row proves nothing, and nothing is guessed here.

``search`` and ``look_up`` are flows: they yield effects and do no I/O themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import identity, protocol, settings
from .errors import KlingError, RateLimitedError, ServerError
from .generation import Generation
from .protocol import Endpoint, LogRow
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
_APART = 300.0  # seconds between two clocks that call for a second walk


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of the search for one submission; ``generation_id`` is None if not listed.

    ``is_complete``: the log was read to its end, so "not listed" is what it says.
    """

    entry: Entry
    generation_id: str | None
    reason: str
    is_complete: bool = False


def look_up(endpoint: Endpoint, entries: list[Entry]) -> Flow[list[Recovered]]:
    """What the gateway's log says about each of these uncertain submissions. Costs nothing.

    Raises what the gateway answers the log request with (AuthenticationError, ServerError,
    RateLimitedError).
    """
    if not entries:
        return []
    wanted = {entry.record.client_request_id for entry in entries}
    moments = [entry.record.created_at for entry in entries]
    found, unclear = yield from search(endpoint, wanted, moments)
    own_key = identity.key_hash(endpoint.api_key)
    results = []
    for entry in entries:
        asked = entry.record.client_request_id
        generation_id, is_complete = found.get(asked), asked not in unclear
        reason = _reason(entry, generation_id, is_complete)
        if generation_id is None and entry.key_hash not in (None, own_key):
            is_complete = False  # the log is that of a key
            reason = f"it was posted with another key (its hash begins with {entry.key_hash})"
        results.append(Recovered(entry, generation_id, reason, is_complete))
    return results


def search(
    endpoint: Endpoint, wanted: set[str], moments: Iterable[float]
) -> Flow[tuple[dict[str, str], set[str]]]:
    """Generation ids by client request id, as far as the log lists them and the gateway knows them.

    ``moments``: when the POSTs left (Unix seconds, by this machine's clock); the log is read
    around each, and once more by the gateway's own clock where the two are apart. The second
    value are those of which the log says nothing for sure: it was not read to its end, or it lists
    what cannot be looked at. Any other that is not found is not in the log.
    """
    walk = _Walk(endpoint, wanted)
    moments = list(moments)
    yield from walk.read(moments)
    if not walk.is_done and abs(walk.skew) > _APART:
        # A sandbox's clock goes faster: it was less ahead when the POST left.
        faster = settings.clock_for(endpoint.base_url).speed - 1.0
        now = time.time()
        yield from walk.read([each + walk.skew - faster * (now - each) for each in moments])
    found: dict[str, str] = {}
    unclear: set[str] = set()
    for asked in wanted:
        generation_id, is_clear = yield from _known(endpoint, walk.candidates(asked))
        if generation_id:
            found[asked] = generation_id
        elif not (is_clear and walk.complete):
            unclear.add(asked)
    return found, unclear


def moments_since(since: float) -> list[float]:
    """Moments (Unix seconds) whose windows cover everything from ``since`` until now."""
    now = time.time()
    step = _BEFORE + _AFTER
    count = max(0, math.ceil((now - since) / step))
    return [*(since + number * step for number in range(count)), now]


def _known(endpoint: Endpoint, rows: list[LogRow]) -> Flow[tuple[str | None, bool]]:
    """The first of these rows that the gateway has a generation for; whether none is sure.

    A row is a request, not a generation: one that was refused has an id, too. One that succeeded
    and cannot be looked at (another account's, a key without rights) may well be paid for.
    """
    is_clear = True
    for row in rows:
        generation_id = row.generation_id
        outcome = yield Ask(endpoint.poll(generation_id))
        try:
            answer = protocol.read_poll(outcome, generation_id)
        except KlingError:
            is_clear &= row.succeeded is False
            continue
        if isinstance(answer, Generation):
            return generation_id, True
        if answer.status == 404:
            is_clear &= row.succeeded is False
        else:
            raise ServerError(
                f"Generation {generation_id} is in the gateway's log, but cannot be looked at now "
                f"({answer.reason}). Try again in a minute.",
                generation_id=generation_id,
            )
    return None, is_clear


class _Walk:
    """A walk through the log: the rows that matter, and what was learned on the way."""

    def __init__(self, endpoint: Endpoint, wanted: set[str]) -> None:
        self._endpoint = endpoint
        self._wanted = wanted
        self._rows: dict[str, list[LogRow]] = {}
        self.complete = True
        self.skew = 0.0  # the gateway's clock minus this machine's, seconds

    @property
    def is_done(self) -> bool:
        """Whether each is listed as succeeded: no later row can be better."""
        return all(
            any(row.succeeded for row in self._rows.get(asked, ())) for asked in self._wanted
        )

    def candidates(self, asked: str) -> list[LogRow]:
        """The rows of one submission, a row for each id, those that succeeded first."""
        order = {True: 0, None: 1, False: 2}
        rows = sorted(self._rows.get(asked, ()), key=lambda row: order[row.succeeded], reverse=True)
        return [*{row.generation_id: row for row in rows}.values()][::-1]

    def read(self, moments: Iterable[float]) -> Flow[None]:
        for start, end in _windows(moments):
            if self.is_done:
                return
            self.complete &= yield from self._read_window(start, end)

    def _read_window(self, start: float, end: float) -> Flow[bool]:
        """Reads the log between two Unix times; False where it is too long."""
        offset = pages = 0
        limited = False
        while pages < _MOST_PAGES:
            outcome = yield Ask(self._endpoint.logs(_iso(start), _iso(end), offset))
            if (theirs := protocol.gateway_time(outcome)) is not None:
                self.skew = theirs - time.time()
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
            for row in protocol.read_logs(page):
                if row.client_request_id in self._wanted:
                    self._rows.setdefault(row.client_request_id, []).append(row)
            count = protocol.count_log_rows(page)
            offset += count
            if self.is_done or not count or not _more(page, count):
                return True
            yield Sleep(_PACE)
        return False


def not_read_to_its_end() -> ServerError:
    """What is not found in a part of the log may stand in the rest of it."""
    return ServerError("The gateway's log is too long to be read to its end.")


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
