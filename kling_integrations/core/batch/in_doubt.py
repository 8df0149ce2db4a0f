"""Rows whose POST has no known outcome: what records and the gateway's log say, how long to look.

The records come first: another process may be at that very POST, or know its outcome by now. The
log names a generation only once it has ended, so one that it does not name may still run: it is
looked for until it would have ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..errors import KlingError, ServerError, SubmissionUncertainError
from ..http.async_client import AsyncKlingClient
from ..recovery import Recovered
from ..submission import Entry, State
from ..waiting import LATEST_POST
from .plan import Need, Step
from .results import now_iso
from .schedules import Schedules

_MOST_IN_A_ROW = 5  # POSTs without a known outcome, after which no more leave
# The age of a POST at which a generation of it would be listed: so many expectations, and seconds.
_EXPECTATIONS, _SECONDS = 1.5, 60.0 + LATEST_POST
_SUBMITTING = 1.0  # real seconds between two looks at a POST of another process


class Doubts:
    """The ``steps`` of one run that are in doubt. ``trouble``: why the log cannot be read."""

    def __init__(self, client: AsyncKlingClient, schedules: Schedules) -> None:
        self.steps: list[Step] = []
        self.trouble = ""
        self._client = client
        self._schedules = schedules
        self._records = client.ledger
        self._in_a_row = 0
        self._submitting: set[str] = set()  # POSTs that other processes have under way
        self._missing: dict[str, Recovered] = {}  # those that the log, read to its end, lacks

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
        """Asks the records, then the gateway's log; returns the steps that are out of doubt.

        A step without a generation among them is to be submitted: its POST was not taken, or
        another one took its place, which the next claim finds.
        """
        self._missing = {}
        if not self.steps:
            return []
        try:
            clear = await asyncio.to_thread(self._by_records)
            if self._in_question():
                clear += self._by_log(await self._client.recover())
            self.trouble = ""
        except KlingError as error:
            self.trouble = f"submissions in doubt cannot be looked up: {error.message}"
            clear = [step for step in self.steps if step.need is not Need.LOOK_UP]
        self.steps = [step for step in self.steps if step.need is Need.LOOK_UP]
        return clear

    def _by_records(self) -> list[Step]:
        """The steps whose record has an outcome by now; notes which are being submitted."""
        self._submitting = set()
        clear = []
        for step in self.steps:
            own = step.client_request_id
            entry = self._records.submission(own) if self._records and own else None
            if entry is None:
                continue
            if entry.generation_id and entry.state in (State.SUBMITTED, State.COMPLETED):
                _attach(step, entry)
                clear.append(step)
            elif entry.state is not State.INTENT:
                step.need = Need.SUBMIT
                clear.append(step)
            elif self._records and self._records.is_submitting(entry):
                self._submitting.add(entry.record.client_request_id)
        return clear

    def _in_question(self) -> bool:
        return any(
            step.need is Need.LOOK_UP and step.client_request_id not in self._submitting
            for step in self.steps
        )

    def _by_log(self, looked_up: list[Recovered]) -> list[Step]:
        self._missing = {
            each.entry.record.client_request_id: each
            for each in looked_up
            if not each.generation_id and each.is_complete
        }
        if not all(each.is_complete or each.generation_id for each in looked_up):
            self.trouble = "the gateway's log is too long to be read to its end"
        return list(attach(self.steps, looked_up))

    def seconds_left(self) -> float:
        """Seconds on the gateway's clock until each has been looked for long enough, 0 at the end.

        What cannot be looked up now is not waited for: it stays in doubt.
        """
        speed = self._client.clock.speed
        left = seconds_left(self.steps, self._missing.values(), self._schedules, speed)
        return max(left, _SUBMITTING * speed) if self._submitting else left

    def give_up(self) -> list[Step]:
        """The steps that the log does not name, to be submitted again past their POSTs.

        Only what was looked for to the end: a log that is out of reach says nothing.
        """
        given_up = [step for step in self.steps if step.client_request_id in self._missing]
        self.steps = [step for step in self.steps if step.client_request_id not in self._missing]
        for step in given_up:
            step.resubmit, step.need = step.client_request_id, Need.SUBMIT
        return given_up


def attach(steps: Iterable[Step], looked_up: Iterable[Recovered]) -> Iterator[Step]:
    """The steps that the log has a generation for; they wait for it from now on."""
    found = {each.entry.record.client_request_id: each for each in looked_up}
    for step in steps:
        each = found.get(step.client_request_id or "")
        if each is not None and each.generation_id:
            record = each.entry.record.submitted(each.generation_id)
            _attach(step, replace(each.entry, record=record))
            yield step


def _attach(step: Step, entry: Entry) -> None:
    step.entry, step.need = entry, Need.ATTACH
    step.result.generation_id = entry.generation_id
    step.result.submitted_at = now_iso(entry.since)


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
