"""Rows whose POST has no known outcome: what the gateway's log says of them, and how long to look.

No I/O. The log names a generation only once it has ended, so one that it does not name may still
run: it is looked for until it would have ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..recovery import Recovered
from .plan import Need, Step
from .results import now_iso
from .schedules import Schedules

# The age of a POST at which a generation of it would be listed: so many expectations, and seconds.
_EXPECTATIONS, _SECONDS = 1.5, 60.0


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
