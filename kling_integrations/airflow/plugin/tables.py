"""The table of results of a KlingBatchOperator, for its page: counts, and rows a page at a time.

The operator writes a line of JSON per row in every round. The file is read once per version; what
is kept of it is a few figures per row, and where its line is.
"""

from __future__ import annotations

import json
import threading
import time
from array import array
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nlargest
from math import ceil
from statistics import median
from typing import Any, BinaryIO

from ...core.batch.results import Result, RowStatus
from ...core.schedule import Schedule
from ...core.storage.result_files import result_of
from .streaming import OpenFile

PAGE = 50
NEWEST = 6
_MOST_ROWS = 50_000
_LONGEST_LINE = 2**20
_MOST_TABLES = 8
_MEASURED = 50  # of the rows that ended last, how long each took says how long others will

_BAD = (RowStatus.FAILED, RowStatus.REFUSED, RowStatus.UNCERTAIN, RowStatus.NOT_SUBMITTED)


class NotATable(Exception):  # noqa: N818
    """What is at the address holds no results of a batch, or too many."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table: its own columns, and what became of it."""

    own: Mapping[str, Any]
    result: Result

    @property
    def prompt(self) -> str:
        return str(self.own.get("prompt") or "")

    @property
    def name(self) -> str:
        return str(self.own.get("key") or f"Row {self.result.row}")

    @property
    def is_bad(self) -> bool:
        """Whether it ended without a video; a row whose turn is yet to come has no kind."""
        return self.result.status in _BAD and self.result.error_kind is not None


@dataclass(slots=True)
class Table:
    """One version of the file. Times in Unix seconds, money in USD."""

    address: str
    counts: Counter[str] = field(default_factory=Counter)
    usd: float = 0.0
    newest: list[int] = field(default_factory=list)
    ends_at: float | None = None
    """When all rows are expected to have ended; None where none runs."""
    _begins: array[int] = field(default_factory=lambda: array("Q"))
    _bad: array[int] = field(default_factory=lambda: array("L"))

    @property
    def total(self) -> int:
        return len(self._begins)

    @property
    def ended(self) -> int:
        return self.counts[RowStatus.COMPLETED] + len(self._bad)

    @property
    def bad(self) -> int:
        return len(self._bad)

    @property
    def waiting(self) -> int:
        return self.total - self.ended - self.counts[RowStatus.RUNNING]

    def numbers(self, page: int, *, bad: bool) -> list[int]:
        """The rows of a page, counted from 0."""
        chosen = self._bad if bad else range(self.total)
        return list(chosen[page * PAGE : (page + 1) * PAGE])

    def lines(self, numbers: list[int]) -> list[Line]:
        """Raises NotATable, and what the store's driver raises."""
        if not all(0 <= number < self.total for number in numbers):
            raise NotATable
        with OpenFile.at(self.address).file as file:
            found = []
            for number in numbers:
                file.seek(self._begins[number])
                found.append(_line(file.readline(_LONGEST_LINE)))
        return found


def table_at(address: str) -> Table:
    """The table as it is now. Raises NotATable, and what the store's driver raises."""
    opened = OpenFile.at(address)
    with opened.file as file:
        key = (address, opened.etag)
        with _lock:
            known = _tables.get(key)
        if known is None:
            known = _read(address, file)
            with _lock:
                _tables[key] = known
                while len(_tables) > _MOST_TABLES:
                    _tables.popitem(last=False)
    return known


_tables: OrderedDict[tuple[str, str], Table] = OrderedDict()
_lock = threading.Lock()


def _read(address: str, file: BinaryIO) -> Table:
    table, position = Table(address), 0
    finished: list[tuple[str, int, float]] = []
    running: list[tuple[float, float]] = []
    while text := file.readline(_LONGEST_LINE):
        begin, position = position, position + len(text)
        if not text.endswith(b"\n") or table.total >= _MOST_ROWS:
            raise NotATable
        line, number = _line(text), table.total
        result = line.result
        table._begins.append(begin)
        table.counts[result.status] += 1
        if line.is_bad:
            table._bad.append(number)
        elif result.status == RowStatus.COMPLETED:
            table.usd += _usd(result)
            finished.append((result.finished_at or "", number, _took(result)))
        elif result.status == RowStatus.RUNNING:
            running.append((_unix(result.submitted_at) or time.time(), _expected(line)))
        if len(finished) > 2 * _MEASURED:
            finished = nlargest(_MEASURED, finished)
    finished = nlargest(_MEASURED, finished)
    table.newest = [number for _, number, _ in finished[:NEWEST]]
    table.ends_at = _end(running, [took for *_, took in finished if took > 0], table.waiting)
    return table


def _end(running: list[tuple[float, float]], took: list[float], waiting: int) -> float | None:
    """``running``: since when each does and how long it usually takes; ``took`` what others did."""
    if not running:
        return None
    typical = median(took) if took else max(expected for _, expected in running)
    last = max(since + (typical if took else expected) for since, expected in running)
    return last + typical * ceil(waiting / len(running))


def _usd(result: Result) -> float:
    usd = result.expected_usd if result.usd is None else result.usd
    return usd if isinstance(usd, int | float) else 0.0


def _took(result: Result) -> float:
    """Real seconds from submit to end; 0 where that is not known."""
    begin, end = _unix(result.submitted_at), _unix(result.finished_at)
    return 0.0 if begin is None or end is None else max(0.0, end - begin)


def _unix(instant: object) -> float | None:
    try:
        return datetime.fromisoformat(instant).timestamp() if isinstance(instant, str) else None
    except ValueError:
        return None


def _expected(line: Line) -> float:
    model, duration = line.own.get("model"), str(line.own.get("duration"))
    length = int(duration) if duration.isdecimal() and len(duration) < 6 else None
    return Schedule.expecting(model if isinstance(model, str) else None, duration=length).expected


def _line(text: bytes) -> Line:
    result = result_of(text)
    if result is None:
        raise NotATable
    return Line(json.loads(text), result)
