"""Rows whose POST has no known outcome: what the gateway's log says of them, and how long to look.

The log names a generation only once it has ended, so one that it does not name may still run: it
is looked for until it would have ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..errors import KlingError, ServerError, SubmissionUncertainError
from ..http.async_client import AsyncKlingClient
from ..recovery import Recovered
from .plan import Need, Step
from .results import now_iso
from .schedules import Schedules

_MOST_IN_A_ROW = 5  # POSTs without a known outcome, after which no more leave
# The age of a POST at which a generation of it would be listed: so many expectations, and seconds.
_EXPECTATIONS, _SECONDS = 1.5, 60.0


class Doubts:
    """The ``steps`` of one run that are in doubt. ``trouble``: why the log cannot be read."""

    def __init__(self, client: AsyncKlingClient, schedules: Schedules) -> None:
        self.steps: list[Step] = []
        self.trouble = ""
        self._client = client
        self._schedules = schedules
        self._in_a_row = 0
        self._missing: list[Recovered] = []

    def add(self, step: Step, error: SubmissionUncertainError) -> KlingError | None:
        """One more POST without a known outcome; an error where no more should leave."""
        step.need, step.client_request_id = Need.LOOK_UP, error.client_request_id
        self.steps.append(step)
        self._in_a_row += 1
        if self._in_a_row < _MOST_IN_A_ROW:
            return None
        return ServerError(
            f"{_MOST_IN_A_ROW} submissions in a row had no known outcome "
            f"({error.message.rstrip('.')})."
        )

    def accepted(self) -> None:
        """A POST was taken: the gateway is well."""
        self._in_a_row = 0

    async def look_up(self) -> list[Step]:
        """Asks the gateway's log, which is free; returns the steps that it names, out of doubt."""
        self._missing = []
        if not self.steps:
            return []
        try:
            looked_up = await self._client.recover()
        except KlingError as error:
            self.trouble = f"submissions in doubt cannot be looked up: {error.message}"
            return []
        listed = list(attach(self.steps, looked_up))
        known = {step.client_request_id for step in listed}
        self.steps = [step for step in self.steps if step.client_request_id not in known]
        self._missing = [each for each in looked_up if not each.generation_id]
        return listed

    def seconds_left(self) -> float:
        """Seconds on the gateway's clock until each would be listed, as of the last look."""
        return seconds_left(self.steps, self._missing, self._schedules, self._client.clock.speed)

    def give_up(self) -> list[Step]:
        """The steps, to be submitted again whatever the records say."""
        steps, self.steps = self.steps, []
        for step in steps:
            step.again, step.need = True, Need.SUBMIT
        return steps


def attach(steps: Iterable[Step], looked_up: Iterable[Recovered]) -> Iterator[Step]:
    """The steps that the log has a generation for; they wait for it from now on."""
    found = {each.entry.record.client_request_id: each for each in looked_up}
    for step in steps:
        each = found.get(step.client_request_id or "")
        if each is not None and each.generation_id:
            record = each.entry.record.submitted(each.generation_id)
            step.entry = replace(each.entry, record=record)
            step.need = Need.ATTACH
            step.result.generation_id = each.generation_id
            step.result.submitted_at = now_iso(each.entry.since)
            yield step


def seconds_left(
    steps: Iterable[Step], missing: Iterable[Recovered], schedules: Schedules, speed: float
) -> float:
    """Seconds on the gateway's clock until each of these would be listed; 0 where all would be.

    ``speed``: the seconds of that clock in a second of this machine's.
    """
    posted = {each.entry.record.client_request_id: each.entry.since for each in missing}
    left = 0.0
    for step in steps:
        since = posted.get(step.client_request_id or "")
        if since is not None:
            expected = schedules.of(step.row.model, step.row.duration).expected
            age = max(0.0, time.time() - since) * speed
            left = max(left, _EXPECTATIONS * expected + _SECONDS - age)
    return left
