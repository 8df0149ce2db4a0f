"""USD that several processes may spend together, in a store of records that all of them reach.

Each reservation is an entry with a number, and of all processes one can create the next one. Who
creates it has read what all entries before it hold, so the sum stays within the limit however many
race. Later an entry only ends, by its owner's hand: at what it cost, or at nothing.

An entry carries the sum of those that had ended before it and the numbers of those that had not,
so that a reservation reads what is under way and not all that ever was.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import cost
from ..errors import InvalidRequestError
from ..records import RecordStore, unreadable

_ROUNDING = 1e-9  # USD: sums of prices are no exact decimals
_LONGEST_PAUSE = 0.25  # seconds before the next try of a process that came second


class OverBudgetError(InvalidRequestError):
    """It does not fit into what is left; nothing was submitted."""


@dataclass(frozen=True, slots=True)
class Totals:
    """USD: ``spent`` by what has ended, ``reserved`` for what is under way."""

    spent: float = 0.0
    reserved: float = 0.0

    @property
    def all(self) -> float:
        return self.spent + self.reserved


@dataclass(frozen=True, slots=True)
class _Entry:
    """``usd`` is reserved, or what it cost once ``ended``. The last two are about those before."""

    number: int
    owner: str
    usd: float
    ended: bool = False
    generation_id: str | None = None
    ended_before: float = 0.0
    open_before: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "owner": self.owner,
            "usd": self.usd,
            "ended": self.ended,
            "generation_id": self.generation_id,
            "ended_before": self.ended_before,
            "open_before": list(self.open_before),
        }

    @classmethod
    def from_json(cls, number: int, stored: Mapping[str, Any], where: str) -> _Entry:
        try:
            return cls(
                number,
                str(stored["owner"]),
                float(stored["usd"]),
                bool(stored["ended"]),
                stored["generation_id"],
                float(stored["ended_before"]),
                tuple(int(each) for each in stored["open_before"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(where, type(error).__name__) from None


@dataclass(frozen=True, slots=True)
class _Book:
    """What was read: the number of the last entry, what has ended, and what has not."""

    last: int
    spent: float
    open: tuple[_Entry, ...]

    @property
    def totals(self) -> Totals:
        return Totals(self.spent, sum(entry.usd for entry in self.open))

    def unused(self, owner: str) -> list[_Entry]:
        """Reservations of the owner that name no generation: an attempt that died left them."""
        return [one for one in self.open if one.owner == owner and one.generation_id is None]


class SharedBudget:
    """The budget ``name`` (``runs/1a2b…``) in a store. Every method raises LedgerError.

    An ``owner`` is what pays once and may be tried again: what an attempt reserved and did not
    use is the next attempt's.
    """

    def __init__(
        self, store: RecordStore, name: str, *, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self._store = store
        self._name = name
        self._pause = pause
        self._ended: dict[int, _Entry] = {}  # an entry that has ended stays as it is

    def __str__(self) -> str:
        return f"{self._name} in {self._store}"

    def totals(self) -> Totals:
        return self._read().totals

    def reserve(self, owner: str, usd: float, limit: float, *, in_doubt: bool = False) -> None:
        """Reserves so much in all for what the owner pays next.

        ``in_doubt``: the owner's last POST may have been taken, so what it reserved stays counted.
        Raises OverBudgetError, with the figures.
        """
        tries = 0
        while True:
            book = self._read()
            unused = book.unused(owner)
            if in_doubt:
                for entry in unused:
                    self._end(entry, entry.usd)
                in_doubt = False
                continue
            missing = usd - sum(entry.usd for entry in unused)
            if book.totals.all + max(0.0, missing) > limit + _ROUNDING:
                raise _over(usd, limit, book.totals, sum(entry.usd for entry in unused))
            if missing <= _ROUNDING or self._create(book, owner, missing):
                return
            tries += 1
            self._pause(random.uniform(0.0, min(_LONGEST_PAUSE, 0.02 * tries)))

    def paid(self, owner: str, generation_id: str) -> None:
        """What the owner has reserved is this generation's from now on.

        Attempts that died may have left several reservations: one of them holds the sum.
        """
        unused = self._read().unused(owner)
        if not unused:
            return
        first, *others = unused
        usd = sum(entry.usd for entry in unused)
        self._write(replace(first, usd=usd, generation_id=generation_id))
        self._store.write(self._mark(generation_id), {"number": first.number})
        for entry in others:
            self._end(entry, 0.0)

    def release(self, owner: str) -> None:
        """Nothing was paid by what the owner has reserved."""
        for entry in self._read().unused(owner):
            self._end(entry, 0.0)

    def settle(self, owner: str, generation_id: str, usd: float | None) -> None:
        """The generation has ended and cost so much; None: what was reserved for it.

        What was paid without a reservation is counted from now on. Twice is once.
        """
        entry = self._entry_of(owner, generation_id)
        if entry is None:
            while not self._create(self._read(), owner, usd or 0.0, generation_id):
                self._pause(random.uniform(0.0, _LONGEST_PAUSE))
            entry = self._entry_of(owner, generation_id)
            assert entry is not None
        if not entry.ended:
            bound = replace(entry, generation_id=generation_id)
            self._store.write(self._mark(generation_id), {"number": entry.number})
            self._end(bound, entry.usd if usd is None else usd)

    def settle_all(self, owner: str, usd: float) -> None:
        """All that the owner has ever reserved has ended, and it cost so much together."""
        earlier = [entry for entry in self._all() if entry.owner == owner]
        left = max(0.0, usd - sum(entry.usd for entry in earlier if entry.ended))
        for entry in earlier:
            if not entry.ended:
                self._end(entry, left)
                left = 0.0
        if left > _ROUNDING:  # it was paid without a reservation
            while not self._create(self._read(), owner, left, ended=True):
                self._pause(random.uniform(0.0, _LONGEST_PAUSE))

    # --- entries -------------------------------------------------------------------------------

    def _read(self) -> _Book:
        last = max(self._numbers(), default=0)
        while self._store.read(self._entry_name(last + 1)) is not None:
            last += 1  # made since the list, or a list that lags behind
        if not last:
            return _Book(0, 0.0, ())
        newest = self._entries([last])[0]
        entries = [*self._entries(newest.open_before), newest]
        spent = newest.ended_before + sum(entry.usd for entry in entries if entry.ended)
        return _Book(last, spent, tuple(entry for entry in entries if not entry.ended))

    def _create(
        self,
        book: _Book,
        owner: str,
        usd: float,
        generation_id: str | None = None,
        *,
        ended: bool = False,
    ) -> bool:
        entry = _Entry(
            book.last + 1,
            owner,
            usd,
            ended,
            generation_id=generation_id,
            ended_before=book.spent,
            open_before=tuple(each.number for each in book.open),
        )
        return self._store.create(self._entry_name(entry.number), entry.to_json())

    def _end(self, entry: _Entry, usd: float) -> None:
        self._write(replace(entry, usd=usd, ended=True))

    def _write(self, entry: _Entry) -> None:
        self._store.write(self._entry_name(entry.number), entry.to_json())

    def _entry_of(self, owner: str, generation_id: str) -> _Entry | None:
        mark = self._store.read(self._mark(generation_id))
        if mark is not None and isinstance(mark.get("number"), int):
            return self._entries([mark["number"]])[0]
        book = self._read()  # the process may have died before the mark
        of_it = [entry for entry in book.open if entry.generation_id == generation_id]
        return next(iter(of_it or book.unused(owner)), None)

    def _all(self) -> list[_Entry]:
        return self._entries(sorted(self._numbers()))

    def _entries(self, numbers: list[int] | tuple[int, ...]) -> list[_Entry]:
        names = {self._entry_name(one): one for one in numbers if one not in self._ended}
        stored = self._store.read_many(names)
        found = {}
        for name, number in names.items():
            if name not in stored:
                raise unreadable(f"{name} in {self._store}", "it is gone")
            entry = _Entry.from_json(number, stored[name], f"{name} in {self._store}")
            found[number] = entry
            if entry.ended:
                self._ended[number] = entry
        return [self._ended.get(number) or found[number] for number in numbers]

    def _numbers(self) -> list[int]:
        prefix = f"{self._name}/entries/"
        ends = (name.removeprefix(prefix) for name in self._store.names(prefix))
        return [int(end) for end in ends if end.isdecimal()]

    def _entry_name(self, number: int) -> str:
        return f"{self._name}/entries/{number:08d}"

    def _mark(self, generation_id: str) -> str:
        digest = hashlib.sha256(generation_id.encode()).hexdigest()[:24]
        return f"{self._name}/generations/{digest}"


def _over(usd: float, limit: float, totals: Totals, own: float) -> OverBudgetError:
    left = max(0.0, limit - totals.all + own)
    return OverBudgetError(
        f"This is expected to cost {cost.dollars(usd)}, and {cost.dollars(left)} is left of "
        f"{cost.dollars(limit)}: {cost.dollars(totals.spent)} is spent and "
        f"{cost.dollars(max(0.0, totals.reserved - own))} reserved for what is under way. "
        "Nothing was submitted."
    )
