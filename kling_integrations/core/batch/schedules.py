"""When to ask for the generations of a batch: one expectation for each kind, learned as they end.

No I/O. A batch of thousands need not read the ledger for each: its own finish times say more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..progress import Progress
from ..schedule import Schedule
from .learned import Kind

_REMEMBERED = 20  # finish times; ten make the most of it


class Schedules:
    """Schedules by model and duration; ``times`` are those that an earlier run saw."""

    def __init__(self, times: Mapping[Kind, Sequence[float]] | None = None) -> None:
        self.times: dict[Kind, list[float]] = {
            kind: list(found)[-_REMEMBERED:] for kind, found in (times or {}).items()
        }
        self._made: dict[Kind, Schedule] = {}

    def of(self, model: str, duration: int | None) -> Schedule:
        kind = (model, duration)
        if kind not in self._made:
            times = self.times.get(kind, ())
            self._made[kind] = Schedule.expecting(model, duration, finished=times)
        return self._made[kind]

    def saw(self, model: str, duration: int | None, last: Progress) -> None:
        """One has finished, and this was the last progress of its wait.

        Its first poll says nothing about when: it may have ended long before.
        """
        if last.polls <= 1:
            return
        kind = (model, duration)
        times = self.times.setdefault(kind, [])
        times.append(last.elapsed - last.queued)
        del times[:-_REMEMBERED]
        self._made.pop(kind, None)
