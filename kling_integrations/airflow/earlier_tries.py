"""What the tries before this one submitted, where no record of it is left: the last resort.

Their POSTs have ids that follow from the task instance, the try and the input, and the gateway's
log lists by these what has ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.errors import KlingError, RateLimitedError, ServerError
from ..core.generation import Status
from ..core.submission import Record, State
from .task_identity import TaskIdentity

if TYPE_CHECKING:
    from ..core.http.client import KlingClient

# How far back (seconds) the gateway's log is read.
_LOOK_BACK = 3 * 86_400.0

_STATES = {Status.COMPLETED: State.COMPLETED, Status.FAILED: State.FAILED}


def submitted(
    client: KlingClient,
    task: TaskIdentity,
    fingerprints: Iterable[str],
    log: Any,
    *,
    take: int = 1,
    first_try: int = 1,
) -> list[tuple[str, str]]:
    """Client request ids and generation ids, those of the latest try first.

    Raises ServerError and RateLimitedError where the log is out of reach: then nothing may be
    submitted. A gateway without a log is one that knows nothing.
    """
    posts = task.earlier_client_request_ids(fingerprints, take, first_try=first_try)
    if not posts:
        return []
    try:
        found = client.find_submissions(posts, max(task.run_after, time.time() - _LOOK_BACK))
    except (ServerError, RateLimitedError) as error:
        error.message = (
            "An earlier try of this task may have submitted, its record is gone, and the "
            f"gateway's log is out of reach: nothing is submitted. {error.message}"
        )
        raise
    except KlingError as error:
        log.info("The gateway's log cannot be read: %s", error.message)
        return []
    return [(post, found[post]) for post in posts if post in found]


def with_outcome(client: KlingClient, record: Record) -> Record:
    """The record as the gateway knows its generation: asked once."""
    assert record.generation_id is not None
    status = client.get(record.generation_id).status
    return replace(record, state=_STATES[status]) if status in _STATES else record
