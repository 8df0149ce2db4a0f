"""A task pays once: it submits, or goes on with what an earlier attempt of it submitted.

The record is written before the POST and again right after the reply. What it says to do is
decided in ``core.submission``; a POST whose reply was lost is looked up in the gateway's log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core import submission
from ..core.errors import KlingError
from ..core.generation import Generation, Status
from ..core.request import VideoRequest
from ..core.submission import Action, Record, State
from .durable import SubmissionStore

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient


@dataclass(slots=True)
class Submitter:
    """Finds or makes the generation of ``request``, for one attempt of a task.

    ``waits``: the task waits for the end and records it; without that, a clear has to ask the
    gateway whether there was one. ``resubmit_uncertain``: an earlier POST without a known outcome
    is passed over. ``before_paying`` raises what makes the POST pointless; ``on_accepted`` gets
    the new id at once.
    """

    client: KlingClient
    request: VideoRequest
    store: SubmissionStore
    max_tries: int | None
    log: Any
    waits: bool = True
    resubmit_uncertain: bool = False
    before_paying: Callable[[], object] = lambda: None
    on_accepted: Callable[[str], object] = lambda generation_id: None
    picked_up: bool = False
    """Whether the generation is one that an earlier attempt submitted."""

    def attach_or_submit(self) -> Generation:
        """The generation that the record names, or a new one; the record is written either way.

        A generation that is picked up is of unknown status. Raises SubmissionUncertainError for
        a record that may have been paid, LedgerError for an unreadable one, and what
        ``KlingClient.submit`` raises.
        """
        stored = self.store.load()
        record = stored.record if stored else None
        cleared = record is not None and record.max_tries != self.max_tries
        if record and record.state is State.SUBMITTED and cleared and not self.waits:
            record = self._with_outcome(record)
        decision = submission.decide(
            record,
            self._fingerprints,
            cleared=cleared,
            resubmit_uncertain=self.resubmit_uncertain,
        )
        if record is not None and decision.action is Action.REFUSE:
            found = self._look_up(record)
            if found is None:
                raise submission.refusal(record)
            record = self.store.save(record.submitted(found)).record
            decision = submission.decide(record, self._fingerprints)
        self.log.info("%s: %s.", decision.action.capitalize(), decision.reason)
        if record is None or not decision.picks_up:
            return self._submit()
        # From here on this clear is in the record, and what follows it is a retry.
        waiting_since = time.time() if cleared else None
        record = self.store.save(replace(record, max_tries=self.max_tries), waiting_since).record
        self.picked_up = True
        assert record.generation_id is not None
        return Generation(record.generation_id, Status.UNKNOWN, model=record.model)

    def _submit(self) -> Generation:
        self.before_paying()
        intent = Record.intent(self.request, self.max_tries)
        record = replace(intent, fingerprint=self._fingerprints[0])
        self.store.save(record, record.created_at)
        try:
            generation = self.client.submit(
                self.request, client_request_id=record.client_request_id
            )
        except BaseException as error:
            self.store.save(record.after(error))
            raise
        # Before the store, which may fail: then the id is in the log at least.
        self.log.info("Submitted: generation %s of %r", generation.id, self.request)
        self.on_accepted(generation.id)
        self.store.save(record.submitted(generation.id))
        return generation

    @property
    def _fingerprints(self) -> tuple[str, ...]:
        """All under which a record of the request may stand, the newest form first.

        The sandbox's videos are no substitute for real ones: another gateway, another input.
        """
        prefix = "sandbox:" if self.client.is_sandbox else ""
        return tuple(f"{prefix}{fingerprint}" for fingerprint in self.request.fingerprints)

    def _with_outcome(self, record: Record) -> Record:
        assert record.generation_id is not None
        status = self.client.get(record.generation_id).status
        states = {Status.COMPLETED: State.COMPLETED, Status.FAILED: State.FAILED}
        return record.ended(states[status]) if status in states else record

    def _look_up(self, record: Record) -> str | None:
        try:
            return self.client.find_submission(record.client_request_id, record.created_at)
        except KlingError as error:
            self.log.info("The gateway's log cannot be read: %s", error.message)
            return None


def max_tries(context: Context) -> int | None:
    """Airflow raises it when a user clears a task, and leaves it alone when it retries."""
    tries = getattr(context.get("ti"), "max_tries", None)
    return tries if isinstance(tries, int) else None
