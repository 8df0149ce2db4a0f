"""When to ask for the generations of a batch: one expectation for each kind, learned as they end.

No I/O. A batch of thousands need not read the ledger for each: its own finish times say more.
"""

from __future__ import annotations

from ..schedule import Schedule

_REMEMBERED = 20  # finish times; ten make the most of it

Kind = tuple[str, int | None]


class Schedules:
    """Schedules by model and duration."""

    def __init__(self) -> None:
        self._times: dict[Kind, list[float]] = {}
        self._made: dict[Kind, Schedule] = {}

    def of(self, model: str, duration: int | None) -> Schedule:
        kind = (model, duration)
        if kind not in self._made:
            times = self._times.get(kind, ())
            self._made[kind] = Schedule.expecting(model, duration, finished=times)
        return self._made[kind]

    def add(self, model: str, duration: int | None, seconds: float) -> None:
        """One was seen to finish so many seconds after its submit, the queue apart."""
        kind = (model, duration)
        times = self._times.setdefault(kind, [])
        times.append(seconds)
        del times[:-_REMEMBERED]
        if len(times) < _REMEMBERED or len(times) % 5 == 0:
            self._made.pop(kind, None)
