"""What a client does for each verb, written once.

A flow is a generator. It yields effects (``waiting.Effect``): carry a call, let time pass, report
progress, do blocking work on disk, save a video. It is sent what came of each, or gets raised in it
what the effect raised, and returns the verb's result. ``KlingClient`` and ``AsyncKlingClient`` only
carry out effects, each in its own way, so the order of record, POST, id and outcome is the same
in both.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from . import identity, protocol, recovery
from .errors import (
    DownloadError,
    GenerationNotFoundError,
    InvalidRequestError,
    KlingError,
    LedgerError,
    LinkExpiredError,
    NextStep,
    RateLimitedError,
    Verb,
    warn,
)
from .generation import Generation, Saved, Status, Video
from .payloads import figure
from .progress import Progress
from .protocol import Endpoint
from .recovery import Recovered
from .request import VideoRequest
from .schedule import Schedule
from .settings import Clock
from .submission import Decision, Entry, Record
from .waiting import (
    Ask,
    Flow,
    OnDisk,
    Patience,
    Sleep,
    Transfer,
    TransferProgress,
    Wait,
    name_generation,
    seconds,
    submitting,
)

T = TypeVar("T")

_REMEMBERED = 20_000  # submits that one client remembers without a ledger
_LOCK_INTERVAL = 0.05  # real seconds between two tries to get a request's lock
_CLAIM_INTERVAL = 1.0  # and to claim a request that another machine is submitting
_LEASED = 0.8  # of a lease: a POST that leaves then has its reply before it is over
_NOTICE = 2.0  # real seconds after which the user hears of it


class RequestLock(Protocol):
    """Held while one request is decided and posted; it falls with the process that holds it."""

    def try_acquire(self) -> bool:
        """Whether the lock is held now; returns at once."""
        ...

    def release(self) -> None: ...


class SubmissionLedger(Protocol):
    """What the flows need of a ledger; every method may block and raise LedgerError."""

    def lock(self, request: VideoRequest) -> RequestLock: ...

    def claim(
        self,
        request: VideoRequest,
        base_url: str,
        *,
        new: bool,
        take: int,
        key_hash: str | None,
        resubmit: str | None,
    ) -> tuple[Decision, Record] | None:
        """None while another machine submits the same: ask again soon."""
        ...

    def advance(self, record: Record) -> None: ...

    def completed(self, base_url: str, generation: Generation, elapsed: float | None) -> None: ...

    def wait_failed(self, base_url: str, error: BaseException) -> None: ...

    def saved(self, base_url: str, generation_id: str, saved: Saved) -> None: ...

    def entry(self, base_url: str, generation_id: str) -> Entry | None: ...

    def finished(self, base_url: str, model: str, duration: int | None) -> list[float]: ...

    def uncertain(self, base_url: str) -> list[Entry]: ...

    def submission(self, client_request_id: str) -> Entry | None: ...

    def is_submitting(self, entry: Entry) -> bool: ...


class Flows:
    """The verbs of one client. Safe to share between threads; reads no clock but ``clock``."""

    def __init__(
        self,
        endpoint: Endpoint,
        clock: Clock,
        patience: Patience,
        ledger: SubmissionLedger | None,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._patience = patience
        self._ledger = ledger
        self._rng = random.Random()
        self._key_hash = identity.key_hash(endpoint.api_key)
        # When each POST left, on the client's clock, and what it asked for.
        self._submits: OrderedDict[str, tuple[float, str, int | None]] = OrderedDict()
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """In a child process: locks that were held at the fork would be held for ever."""
        self._lock, self._rng = threading.Lock(), random.Random()

    # --- submitting ------------------------------------------------------------------------

    def submit(
        self,
        request: VideoRequest,
        *,
        new: bool = False,
        take: int = 1,
        client_request_id: str | None = None,
        resubmit: str | None = None,
    ) -> Flow[Generation]:
        """Decide, write the intent, POST, write the id."""
        ledger = self._ledger
        if ledger is None:
            if new or take != 1 or resubmit:
                raise InvalidRequestError("new=, take= and resubmit= need a client with a ledger.")
            own = client_request_id or protocol.new_client_request_id()
            return (yield from self._post(request, own))
        lock: RequestLock = yield OnDisk(partial(ledger.lock, request))
        yield from self._until(lock.try_acquire, _LOCK_INTERVAL)
        try:
            began = [0.0]

            def claim() -> tuple[Decision, Record] | None:
                began[0] = self._clock.now()
                return ledger.claim(
                    request,
                    self._endpoint.base_url,
                    new=new,
                    take=take,
                    key_hash=self._key_hash,
                    resubmit=resubmit,
                )

            decided: tuple[Decision, Record] = yield from self._until(claim, _CLAIM_INTERVAL)
            decision, record = decided
            if decision.entry is not None and decision.picks_up:
                return decision.entry.generation()
            before = self._while_leased(ledger, began[0], record.created_at)
            return (yield from self._post_recorded(ledger, request, record, before))
        finally:
            lock.release()

    def _while_leased(
        self, ledger: SubmissionLedger, began: float, written_at: float
    ) -> Callable[[], None] | None:
        """What is asked right before a POST leaves; None where the intent holds without end.

        Others take an intent for one left behind once its lease is over, and may pay. A POST can
        wait long for its turn, and a machine can be asleep between intent and POST, where only one
        of the two clocks goes on.
        """
        lease: float | None = getattr(ledger, "lease", None)
        if lease is None:
            return None

        def check() -> None:
            waited = max(self._clock.real(self._clock.now() - began), time.time() - written_at)
            if waited > _LEASED * lease:
                raise RateLimitedError(
                    f"Nothing was submitted: its turn came {waited:.0f} s after it was written "
                    "down, when others may take it over.",
                    next_steps=[NextStep(Verb.SUBMIT_AGAIN)],
                )

        return check

    def _until(self, work: Callable[[], T | None], interval: float) -> Flow[T]:
        """The first result of ``work`` that is neither None nor False; ``interval`` in real s."""
        waited = 0.0
        while not (result := (yield OnDisk(work))):
            if waited < _NOTICE <= waited + interval:
                warn("Another process is submitting the same request: waiting for its reply.")
            waited += interval
            yield Sleep(interval * self._clock.speed)
        found: T = result
        return found

    def _post_recorded(
        self,
        ledger: SubmissionLedger,
        request: VideoRequest,
        record: Record,
        before: Callable[[], None] | None,
    ) -> Flow[Generation]:
        try:
            generation = yield from self._post(request, record.client_request_id, before)
        except GeneratorExit:  # the driver is gone: nothing can be written any more
            raise
        except BaseException as error:
            after = record.after(error)
            if after != record:
                try:
                    yield OnDisk(partial(ledger.advance, after))
                except LedgerError as trouble:
                    error.add_note(f"Its record could not be written: {trouble.message}")
            raise
        try:
            yield OnDisk(partial(ledger.advance, record.submitted(generation.id)))
        except LedgerError as error:
            raise LedgerError(
                f"Generation {generation.id} was submitted, but its id could not be written down "
                f"({error.message})",
                generation_id=generation.id,
                hint="Note the id.",
                next_steps=[NextStep(Verb.WAIT, generation.id)],
            ) from error
        return generation

    def _post(
        self,
        request: VideoRequest,
        client_request_id: str,
        before: Callable[[], None] | None = None,
    ) -> Flow[Generation]:
        request.check_reachable(self._endpoint.base_url)
        moment = self._clock.now()
        generation = yield from submitting(
            self._endpoint,
            request,
            client_request_id,
            now=self._clock.now,
            patience=self._patience,
            rng=self._rng,
            before=before,
        )
        with self._lock:
            if generation.id in self._submits:  # a cache in between that answers POSTs, for example
                raise protocol.uncertain(
                    f"the gateway answered with generation {generation.id}, which is another's",
                    client_request_id,
                )
            self._submits[generation.id] = (moment, request.model, request.duration)
            while len(self._submits) > _REMEMBERED:
                self._submits.popitem(last=False)
        return generation

    # --- looking and waiting ---------------------------------------------------------------

    def get(self, generation_id: str) -> Flow[Generation]:
        """One poll."""
        generation_id = protocol.check_id(generation_id)
        outcome = yield Ask(self._endpoint.poll(generation_id))
        generation = protocol.read_one_poll(outcome, generation_id)
        if odd := protocol.odd_status(generation):
            warn(odd)
        return generation

    def wait(
        self,
        generation: Generation,
        *,
        timeout: float | timedelta | None,
        poll_interval: float | timedelta | None = None,
        schedule: Schedule | None = None,
        elapsed: float | None = None,
    ) -> Flow[Generation]:
        """Polls until it ends, and writes down how."""
        protocol.check_id(generation.id)
        limit = seconds(timeout, "timeout")
        interval = seconds(poll_interval, "poll_interval", none=0.0)
        patience, other_key = self._patience, None
        if schedule is None:
            schedule, elapsed, entry = yield from self._expectation(generation)
            if interval:  # replaces when to ask, not what to expect
                schedule = schedule.every(interval)
            if entry is not None and entry.key_hash not in (None, self._key_hash):
                other_key, patience = entry.key_hash, replace(patience, not_found=0.0)
        wait = Wait(self._endpoint, schedule, self._clock.now, patience, self._rng)
        base_url = self._endpoint.base_url
        try:
            done = yield from wait.run(generation, elapsed, limit)
        except KlingError as error:
            if other_key and isinstance(error, GenerationNotFoundError):
                error.hint = (
                    f"It was submitted with another key (its hash begins with {other_key})."
                )
            failed = error
            name_generation(error, generation.id)
            yield from self._note(lambda ledger: ledger.wait_failed(base_url, failed), None)
            raise
        except BaseException as error:  # of the caller's on_update, or of a signal
            name_generation(error, generation.id)
            raise
        took = _seconds_taken(wait.last)
        yield from self._note(lambda ledger: ledger.completed(base_url, done, took), None)
        return done

    def _expectation(
        self, generation: Generation
    ) -> Flow[tuple[Schedule, float | None, Entry | None]]:
        """The schedule to wait by, the seconds since the submit (None when unknown), the record."""
        base_url, elapsed = self._endpoint.base_url, None
        model, duration = generation.model, None
        entry: Entry | None = None
        with self._lock:
            known = self._submits.get(generation.id)
        if known:
            moment, model, duration = known
            elapsed = max(0.0, self._clock.now() - moment)
        else:
            entry = yield from self._note(
                lambda ledger: ledger.entry(base_url, generation.id), None
            )
            if entry is not None:
                elapsed = max(0.0, time.time() - entry.since) * self._clock.speed
                model, duration = entry.record.model, entry.duration
        finished: list[float] = []
        if model:
            known_model = model
            finished = yield from self._note(
                lambda ledger: ledger.finished(base_url, known_model, duration), finished
            )
        return Schedule.expecting(model, duration=duration, finished=finished), elapsed, entry

    def _note(self, work: Callable[[SubmissionLedger], T], otherwise: T) -> Flow[T]:
        """Beside a generation that is paid for, a ledger out of order is a warning, no error."""
        if self._ledger is None:
            return otherwise
        try:
            result: T = yield OnDisk(partial(work, self._ledger))
        except LedgerError as error:
            warn(f"{error.message} The generation itself goes on.")
            return otherwise
        return result

    # --- saving ----------------------------------------------------------------------------

    def save(
        self,
        generation: Generation | str,
        target: str | Path,
        *,
        prompt: str | None = None,
        progress: TransferProgress | None = None,
        overwrite: bool = True,
    ) -> Flow[Saved]:
        """Saves the video; a link that has expired is asked for anew once."""
        if isinstance(generation, str):
            generation = yield from self.get(generation)
        if generation.video is None:
            generation = yield from self.get(generation.id)

        def transfer(video: Video) -> Transfer:
            return Transfer(video, generation_id, target, prompt, progress, overwrite)

        generation_id = generation.id
        expired: LinkExpiredError | None = None
        try:
            saved: Saved = yield transfer(_video_of(generation))
        except LinkExpiredError as error:
            expired = error
        if expired is not None:
            saved = yield transfer((yield from self._fresh_link(generation_id, expired)))
        base_url = self._endpoint.base_url
        yield from self._note(lambda ledger: ledger.saved(base_url, generation_id, saved), None)
        return saved

    def _fresh_link(self, generation_id: str, expired: LinkExpiredError) -> Flow[Video]:
        try:
            return _video_of((yield from self.get(generation_id)))
        except KlingError as trouble:
            why = trouble.message
        raise LinkExpiredError(
            f"{expired.message} A new link could not be had: {why}",
            generation_id=generation_id,
            hint=expired.hint,
            next_steps=expired.next_steps,
        )

    # --- free services ---------------------------------------------------------------------

    def balance(self) -> Flow[dict[str, Any]]:
        outcome = yield Ask(self._endpoint.balance())
        answer = protocol.read_service(outcome, "the balance")
        if not isinstance(answer, Mapping):
            return {}
        return {**answer, "current_balance": figure(answer.get("current_balance"))}

    def prices(self, model: str) -> Flow[Any]:
        outcome = yield Ask(self._endpoint.prices(model))
        return protocol.read_service(outcome, "the prices")

    def logs(self, start: str, end: str, offset: int = 0) -> Flow[Any]:
        outcome = yield Ask(self._endpoint.logs(start, end, offset))
        return protocol.read_service(outcome, "the logs")

    # --- recovering ------------------------------------------------------------------------

    def recover(self) -> Flow[list[Recovered]]:
        """Looks up every uncertain submission of the ledger; what is found is attached."""
        ledger = self._ledger
        if ledger is None:
            raise InvalidRequestError("recover needs a client with a ledger.")
        entries: list[Entry] = yield OnDisk(partial(ledger.uncertain, self._endpoint.base_url))
        results = yield from recovery.look_up(self._endpoint, entries)
        for number, result in enumerate(results):
            results[number] = yield from self._attached(ledger, result)
        return results

    def _attached(self, ledger: SubmissionLedger, result: Recovered) -> Flow[Recovered]:
        """What was found is written down; one that cannot be does not stop the others."""
        if result.generation_id is None:
            return result
        found = result.entry.record.submitted(result.generation_id)
        try:
            yield OnDisk(partial(ledger.advance, found))
        except KlingError as error:
            return replace(
                result, reason=f"{result.reason}, but it cannot be written down: {error.message}"
            )
        return result

    def find_submission(self, client_request_id: str, submitted_at: float) -> Flow[str | None]:
        """The generation that the gateway's log names for one POST, or None.

        None means that the log was read to its end. Raises ServerError where it was not.
        """
        found, unclear = yield from recovery.search(
            self._endpoint, {client_request_id}, [submitted_at]
        )
        if unclear:
            raise recovery.not_read_to_its_end()
        return found.get(client_request_id)

    def find_submissions(
        self, client_request_ids: Iterable[str], since: float
    ) -> Flow[dict[str, str]]:
        """The generations that the gateway's log names for POSTs from ``since`` on, by their id."""
        wanted = set(client_request_ids)
        moments = recovery.moments_since(since)
        found, unclear = yield from recovery.search(self._endpoint, wanted, moments)
        if unclear:
            raise recovery.not_read_to_its_end()
        return found


def _seconds_taken(last: Progress | None) -> float | None:
    """Seconds from submit to a finish that was seen to happen, without the queue.

    One poll only means that it was over already, for an unknown time.
    """
    return last.elapsed - last.queued if last is not None and last.polls > 1 else None


def _video_of(generation: Generation) -> Video:
    if generation.video is not None:
        return generation.video
    if generation.status is Status.COMPLETED:
        problem, verb = "It is completed, but the gateway names no video", Verb.SHOW
    elif generation.status is Status.FAILED:
        why = generation.error.message if generation.error else "the gateway does not say why"
        problem, verb = f"It failed: {why}", Verb.SHOW
    else:
        problem, verb = "It is not finished yet", Verb.WAIT
    raise DownloadError(
        f"{problem}. Generation: {generation.id}",
        generation_id=generation.id,
        next_steps=[NextStep(verb, generation.id)],
    )
