"""A round of a batch that waits elsewhere: saves what has ended, submits more, and returns.

For a scheduler that frees its worker while generations run: a round, a wait for some of those that
run, the next round. Between two rounds the state is the results so far: a row that runs is there
with its generation.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from ..errors import WaitTimeoutError
from ..generation import Generation
from ..submission import Entry
from .learned import Learned
from .options import GoesOnError
from .plan import Need, Step
from .results import RowStatus
from .run import Run


class Round(Run):
    """One round. After ``run``, ``left`` run at the gateway and ``again`` says whether more is due.

    ``ended``: ids of generations that are said to have ended, None where nothing is known. Those
    are looked at, and those that are as old as one is when it ends: a worker takes its time to
    start, and meanwhile more have ended. The other arguments are those of Run.
    """

    def __init__(self, *args: Any, ended: Collection[str] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._said_to_have_ended = ended
        self.uncertain_for = 0.0
        """Seconds on the gateway's clock until its log would name every POST in doubt."""

    @property
    def left(self) -> list[Step]:
        return self._left

    @property
    def again(self) -> bool:
        return bool(self._left) or self.uncertain_for > 0.0

    @property
    def learned(self) -> Learned:
        """For the options of the next round."""
        limit, patience = self._window.learned
        return Learned(limit, patience, self._schedules.times)

    @property
    def submits_more(self) -> bool:
        """Whether rows wait for a place in the window."""
        return bool(self._queue)

    async def run(self) -> None:
        await super().run()
        for step in self._left:
            step.result.status = RowStatus.RUNNING

    def _begin(self) -> None:
        super()._begin()
        if self._said_to_have_ended is None:
            return
        for step in list(self._queue):
            if step.need is Need.ATTACH and not self._may_have_ended(step):
                self._queue.remove(step)
                self._window.attach()
                self._left.append(step)

    def _may_have_ended(self, step: Step) -> bool:
        said, entry = self._said_to_have_ended or (), step.entry
        if step.result.generation_id in said or entry is None:
            return True
        expected = self._schedules.of(step.row.model, step.row.duration).expected
        return entry.age * self._client.clock.speed >= expected

    async def _wait(self, step: Step, generation: Generation, entry: Entry | None) -> Generation:
        if entry is None and generation.raw:
            raise GoesOnError
        try:
            return await super()._wait(step, generation, entry)
        except WaitTimeoutError:
            age = entry.age * self._client.clock.speed if entry else 0.0
            if age < self._options.timeout:
                raise GoesOnError from None
            raise

    def _timeout(self, entry: Entry | None) -> float:
        return 0.0  # one look

    async def _settle_doubts(self) -> None:
        if self._left or not self._doubts.steps:
            return
        await self._look_up()
        if self._queue:
            await self._drain()
        self.uncertain_for = self._doubts.seconds_left()
        if not self._left and self.uncertain_for <= 0.0:
            await self._repeat_doubts()

    def _close(self, step: Step) -> None:
        """What is not got to in this round has its turn in another, as long as there is one."""
        if not self.again or self.interrupted:
            super()._close(step)
        elif step.need is Need.LOOK_UP:
            step.result.status = RowStatus.UNCERTAIN

    def running(self) -> list[tuple[Step, float]]:
        """What runs, with the Unix seconds since which it does."""
        now = time.time()
        return [(step, step.entry.since if step.entry else now) for step in self._left]
