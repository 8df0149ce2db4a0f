"""A task pays once: it submits, or goes on with what an earlier attempt of it submitted.

The record is written before the POST and again right after the reply. What it says to do is
decided in ``core.submission``; a POST whose reply was lost is looked up in the gateway's log, and
so are the earlier tries of a task whose record is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core import submission
from ..core.errors import (
    GenerationNotFoundError,
    InvalidRequestError,
    KlingError,
    LedgerError,
    NextStep,
    RateLimitedError,
    ServerError,
    SubmissionUncertainError,
    Verb,
)
from ..core.generation import Generation, Status
from ..core.request import VideoRequest
from ..core.schedule import Schedule
from ..core.submission import Action, Decision, Record, State
from ..core.waiting import LATEST_POST
from . import earlier_tries
from .durable import StoredSubmission, SubmissionStore
from .facts import seconds_of
from .hints import render
from .siblings import FormerTasks, Siblings
from .task_identity import TaskIdentity

if TYPE_CHECKING:
    from ..core.http.client import KlingClient

# How long after a POST its generation would have ended, so that the gateway's log lists it: so
# many times the expected seconds, and so many seconds more.
_ENDED_AFTER, _MARGIN = 1.5, 60.0 + LATEST_POST

# A state store is bounded; the ids of that many replaced generations are kept.
_MOST_REPLACED = 100


@dataclass(slots=True)
class Submitter:
    """Finds or makes the generation of a request, for one attempt of a task.

    ``store`` has loaded what earlier attempts recorded; ``siblings`` are there where the task is
    mapped, ``former`` where the record is kept. ``make_request`` may fail with
    InvalidRequestError, because an image is gone: what is paid for is found without it.
    ``inputs`` is what the request is made of, fit for screens. ``waits``: the task waits for the
    end and records it; without that, a clear has to ask the gateway whether there was one.
    ``regenerate``: a clear pays for another video once this one is finished.
    ``resubmit_uncertain``: an earlier POST that the gateway's log does not know is passed over.
    ``before_paying`` raises what makes the POST pointless; ``on_accepted`` gets the new id at
    once; ``pause`` lets time pass up to a moment (Unix seconds), and may raise instead of
    returning, when a later call of this goes on.
    """

    client: KlingClient
    make_request: Callable[[], VideoRequest]
    inputs: Mapping[str, Any]
    store: SubmissionStore
    task: TaskIdentity
    log: Any
    kling_conn_id: str
    siblings: Siblings | None = None
    former: FormerTasks | None = None
    waits: bool = True
    regenerate: bool = False
    resubmit_uncertain: bool = False
    before_paying: Callable[[VideoRequest], object] = lambda request: None
    on_accepted: Callable[[str], object] = lambda generation_id: None
    pause: Callable[[float], object] = lambda until: time.sleep(max(0.0, until - time.time()))
    picked_up: bool = False
    """Whether the generation is one that an earlier attempt submitted."""
    open: Record | None = None
    """The submission whose outcome is not known at this moment: it may be paid."""
    is_settled_later: bool = False
    """Whether the next attempt can tell what became of an open submission."""

    def attach_or_submit(self) -> Generation:
        """The generation that the record names, or a new one; the record is written either way.

        A generation that is picked up is of unknown status. Raises SubmissionUncertainError for
        a record that may have been paid, and what ``KlingClient.submit`` raises.
        """
        record, cleared = self._recorded()
        if record is not None and record.state is State.INTENT:
            record = self._settled(record)
        if record is not None and record.state is State.INTENT and self.resubmit_uncertain:
            record = self._read_again(record)
        if record and record.state is State.SUBMITTED and cleared and not self.waits:
            record = earlier_tries.with_outcome(self.client, record)
        decision = self._decide(record, cleared)
        if record is not None and decision.action is Action.REFUSE:
            raise submission.refusal(record)
        if record is not None and decision.picks_up and not self._holds(record):
            record, decision = None, submission.decide(None, ())
        if not decision.picks_up and (made := self._made_before(record)):
            record, cleared = made, True
            decision = Decision(Action.ATTACH, f"generation {made.generation_id} was made for this")
        self.log.info("%s: %s.", decision.action.capitalize(), decision.reason)
        if record is None or not decision.picks_up:
            return self._submit(record)
        # From here on this clear is in the record, and what follows it is a retry.
        waiting_since = time.time() if cleared else None
        self.store.note(replace(record, max_tries=self.task.max_tries), waiting_since)
        self.picked_up = True
        assert record.generation_id is not None
        if not cleared:
            self.warn_of_changes(record)
        return Generation(record.generation_id, Status.UNKNOWN, model=record.model)

    def warn_of_changes(self, record: Record, *, looks_into_images: bool = True) -> None:
        """Logs what is asked for now and was not when the record's generation was submitted.

        Without ``looks_into_images`` a picture that changed under the same name is not noticed.
        """
        differences = submission.changed(record, self.inputs)
        if record.inputs is not None and not differences and not looks_into_images:
            return
        try:
            if record.fingerprint in self._fingerprints(self.make_request()):
                return
        except InvalidRequestError:
            if not differences:
                return
        self.log.warning(
            "The input has changed since generation %s was submitted (%s). That video is paid for "
            "and is the one that is delivered; for one of the new input, clear the task.",
            record.generation_id,
            "; ".join(differences) or "its record does not say what: perhaps an image's content",
        )

    def asks_for(self, record: Record) -> bool:
        """Whether the record's generation is what is asked for now."""
        try:
            return record.fingerprint in self._fingerprints(self.make_request())
        except KlingError:  # an image that is gone
            return False

    # --- deciding ------------------------------------------------------------------------------

    def _recorded(self) -> tuple[Record | None, bool]:
        """What earlier attempts recorded, and whether the task was cleared since."""
        stored = self.store.current
        if stored is None:
            return None, False
        if stored.record.state in _PAID and self._asks_siblings(
            lambda siblings: siblings.is_lost(stored.record), unknown=False
        ):
            self.log.info(
                "Another instance of this task has taken generation %s over.",
                stored.record.generation_id,
            )
            return None, False
        if stored.record.generation_id and not self._is_known(stored.record):
            return None, False
        return stored.record, stored.is_cleared(self.task)

    def _is_known(self, record: Record) -> bool:
        """Of a test only: the sandbox that made it may be another one, of an earlier test."""
        if not (self.task.is_test and self.client.is_sandbox):
            return True
        try:
            self.client.get(record.generation_id or "")
        except GenerationNotFoundError:
            return False
        return True

    def _asks_siblings(self, ask: Callable[[Siblings], bool], *, unknown: bool) -> bool:
        """About what is paid for: a store that fails is no reason to leave it."""
        if self.siblings is None:
            return unknown
        try:
            return ask(self.siblings)
        except LedgerError as error:
            self.log.warning("%s Going on with this task's own record.", error.message)
            return unknown

    def _holds(self, record: Record) -> bool:
        def hold(siblings: Siblings) -> bool:
            place = siblings.hold(record)
            if place is not None:
                self.store.also_in(place)
            return place is not None

        return self._asks_siblings(hold, unknown=True)

    def _decide(self, record: Record | None, cleared: bool) -> Decision:
        # The sandbox's videos are no substitute for real ones: another gateway, another input.
        here = record is not None and self.client.is_sandbox == _of_sandbox(record)
        retried = here and not cleared
        fingerprints: tuple[str, ...] = ()
        if record is not None and record.generation_id and not retried:
            try:
                fingerprints = self._fingerprints(self.make_request())
            except InvalidRequestError:
                # An image that is gone: what else was asked for tells whether it is the same.
                if not here or submission.changed(record, self.inputs):
                    raise
                fingerprints = (record.fingerprint,)
        return submission.decide(
            record,
            fingerprints,
            retried=retried,
            cleared=cleared,
            regenerate=self.regenerate,
            resubmit_uncertain=self.resubmit_uncertain,
        )

    def _fingerprints(self, request: VideoRequest) -> tuple[str, ...]:
        """All under which a record of the request may stand, the newest form first."""
        prefix = _SANDBOX if self.client.is_sandbox else ""
        return tuple(f"{prefix}{fingerprint}" for fingerprint in request.fingerprints)

    # --- what was made before ------------------------------------------------------------------

    def _made_before(self, record: Record | None) -> Record | None:
        """A generation of this input that is paid for, where the task's own record names none.

        Another instance of the mapped task may have made it; or an earlier try, whose record is
        gone. Raises LedgerError, ServerError and RateLimitedError where that cannot be told.
        """
        if not self.store.is_durable:
            return None
        has_looked = record is None and self.task.try_number > 1
        is_moved = self.siblings is not None and not self.regenerate
        is_new = not self.regenerate and (record is None or self.task.is_test)
        if not has_looked and not is_moved and not is_new:
            return None
        fingerprints = self._fingerprints(self.make_request())
        if record is not None and (record.state not in _PAID or record.fingerprint in fingerprints):
            return None
        self.store.require_all()
        if is_moved:
            if record is not None:
                # First: of several in a new order, each may wait for what another one has.
                self.store.give_up()
            if taken := self._taken(self.siblings, fingerprints):
                return taken
        if is_new and self.former and (taken := self._taken(self.former, fingerprints)):
            return taken
        return self._of_earlier_tries(fingerprints) if has_looked else None

    def _taken(
        self, others: Siblings | FormerTasks | None, fingerprints: tuple[str, ...]
    ) -> Record | None:
        assert others is not None
        while taken := others.take(fingerprints):
            record, place = taken
            if record.state is State.INTENT:
                record = self._settled(record)
                if record.state is State.INTENT:
                    raise submission.refusal(record)
            if not self._is_known(record):
                record = record.ended(State.FORGOTTEN)
            else:
                record = earlier_tries.with_outcome(self.client, record)
            if record.state not in (State.FAILED, State.FORGOTTEN):
                self.store.also_in(place)
                return record
            place.write(StoredSubmission(record, record.created_at).to_json())
        return None

    def _of_earlier_tries(self, fingerprints: tuple[str, ...]) -> Record | None:
        first = self.task.since_clear if self.regenerate else 1
        found = earlier_tries.submitted(
            self.client, self.task, fingerprints, self.log, first_try=first
        )
        for client_request_id, generation_id in found:
            record = replace(
                Record.intent(self.make_request(), self.task.max_tries, client_request_id),
                fingerprint=fingerprints[0],
                inputs=self.inputs,
            )
            if self.siblings and self.siblings.is_lost(record):
                continue  # another instance uses it
            record = earlier_tries.with_outcome(self.client, record.submitted(generation_id))
            if record.state is not State.FAILED:
                return record
        return None

    # --- an open submission --------------------------------------------------------------------

    def _settled(self, record: Record) -> Record:
        """An open submission as the gateway's log knows it, looked up once it would have ended.

        Raises SubmissionUncertainError while the log is out of reach.
        """
        self.open = record
        found = self._look_up(record)
        if not found and time.time() < (end := self._would_have_ended(record)):
            self.log.info(
                "A POST of an earlier attempt has no known outcome (client request id %s): the "
                "gateway's log lists it once it has ended. Looking again in %d s.",
                record.client_request_id,
                end - time.time() + 1,
            )
            self.pause(end)
            found = self._look_up(record)
        return self._found(record, found) if found else record

    def _read_again(self, doubt: Record) -> Record:
        """Before a doubt is given up: another attempt may still run, and have had the reply.

        Raises LedgerError where not every place can be read, SubmissionUncertainError where the
        record has another doubt by now.
        """
        stored = self.store.load()
        self.store.require_all()
        if stored is None or stored.record == doubt:
            return doubt
        if stored.record.state is State.INTENT:
            raise submission.refusal(stored.record)
        self.open = None
        return stored.record

    def _found(self, record: Record, generation_id: str) -> Record:
        self.open = None
        self.log.info("The gateway's log names it: generation %s.", generation_id)
        return self.store.note(record.submitted(generation_id))

    def _look_up(self, record: Record) -> str | None:
        try:
            return self.client.find_submission(record.client_request_id, record.created_at)
        except KlingError as error:
            if not self.resubmit_uncertain and not isinstance(error, _PASSES):
                self.log.info("The gateway's log cannot be read: %s", error.message)
                return None
            # Nothing is passed over that a log may name. And without a record the next attempt
            # would not even look.
            self.is_settled_later = self.store.is_durable
            uncertain = submission.refusal(record)
            uncertain.hint = f"The gateway's log is out of reach: {error.message}"
            raise uncertain from None

    def _would_have_ended(self, record: Record) -> float:
        """Unix seconds."""
        expected = Schedule.expecting(record.model, duration=duration_of(record)).expected
        return record.created_at + self.client.clock.real(_ENDED_AFTER * expected + _MARGIN)

    # --- submitting ----------------------------------------------------------------------------

    def _submit(self, earlier: Record | None) -> Generation:
        request = self.make_request()
        self.before_paying(request)
        fingerprint = self._fingerprints(request)[0]
        post: str | None = self.task.client_request_id(fingerprint)
        before = self.store.current
        if before and post in (before.record.client_request_id, *before.earlier_posts):
            post = None  # the run was deleted and made anew: each POST has an id of its own
        record = replace(
            Record.intent(request, self.task.max_tries, post),
            fingerprint=fingerprint,
            inputs=self.inputs,
            replaced=self._left_behind(earlier),
        )
        first_places = [
            each.first_place(record) for each in (self.siblings, self.former) if each is not None
        ]
        self.store.intend(record, *first_places)
        self.open = record
        try:
            generation = self.client.submit(request, client_request_id=record.client_request_id)
        except BaseException as error:
            after = record.after(error)
            if after.state is State.INTENT:
                self.is_settled_later = self.store.is_durable or self.resubmit_uncertain
            else:
                self.open = None
            if after.state is State.REFUSED and before and before.record.state in _PAID:
                # What an earlier attempt paid for is given up only for a POST that was taken.
                self.store.note(before.record, before.waiting_since)
            elif after != record:
                self.store.note(after)
            if self._looks_now(error) and (found := self._look_later(record)):
                return found
            raise
        self._accepted(request, record, generation)
        return generation

    def _accepted(self, request: VideoRequest, record: Record, generation: Generation) -> None:
        # Before the store, which may fail: then the id is in the log at least, and in XCom.
        self.log.info("Submitted: generation %s of %r", generation.id, request)
        self.on_accepted(generation.id)
        self.store.note(record.submitted(generation.id))
        self.open = None

    def _looks_now(self, error: BaseException) -> bool:
        """Whether only this attempt can look into the log: the next one, without a record, pays."""
        return (
            isinstance(error, SubmissionUncertainError)
            and self.resubmit_uncertain
            and not self.store.is_durable
        )

    def _look_later(self, record: Record) -> Generation | None:
        time.sleep(max(0.0, self._would_have_ended(record) - time.time()))
        generation_id = self._look_up(record)
        if generation_id is None:
            return None
        self.on_accepted(generation_id)
        self._found(record, generation_id)
        return Generation(generation_id, Status.UNKNOWN, model=record.model)

    def _left_behind(self, earlier: Record | None) -> tuple[str, ...]:
        """The ids of what the new submission replaces; what was paid for is named in the log."""
        if earlier is None:
            return ()
        if earlier.state is State.INTENT:
            self.log.warning(
                "The submission with the client request id %s has no known outcome, and the "
                "gateway's log does not name it: it may have been paid, and is passed over "
                '(on_ambiguous_submit="resubmit").',
                earlier.client_request_id,
            )
        if not earlier.generation_id:
            return earlier.replaced
        if earlier.state in _PAID:
            changes = submission.changed(earlier, self.inputs)
            self.log.warning(
                "Generation %s, which is %s, is left behind for a new one%s. %s",
                earlier.generation_id,
                "finished and paid for"
                if earlier.state is State.COMPLETED
                else "billed when it completes (there is no cancel)",
                f" ({'; '.join(changes)})" if changes else "",
                render(NextStep(Verb.WAIT, earlier.generation_id), self.kling_conn_id, kept=None),
            )
        return (*earlier.replaced, earlier.generation_id)[-_MOST_REPLACED:]


_PAID = (State.INTENT, State.SUBMITTED, State.COMPLETED)
"""States of a record that names, or may stand for, something that is paid for."""

_PASSES = (ServerError, RateLimitedError)
"""What a log may answer now and not later."""

_SANDBOX = "sandbox:"


def _of_sandbox(record: Record) -> bool:
    return record.fingerprint.startswith(_SANDBOX)


def duration_of(record: Record) -> int | None:
    """Seconds of video that the record's request asked for, where it says so."""
    return seconds_of((record.inputs or {}).get("duration"))
