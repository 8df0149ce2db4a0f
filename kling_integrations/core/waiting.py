"""Sans-I/O: from one reply to what comes next.

``submitting`` and ``waiting`` are generators: they yield an effect (``Ask``, ``Sleep``,
``Report``), are sent what came of it, and return a Generation or raise a KlingError. ``flows``
builds the verbs of a client on them, with two more effects (``OnDisk``, ``Transfer``).

All times are seconds on the caller's clock, handed in as ``now``: nothing here reads a clock,
sleeps or touches the network.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from . import protocol, settings
from .errors import (
    AuthenticationError,
    GenerationFailedError,
    GenerationNotFoundError,
    InsufficientCreditsError,
    InvalidRequestError,
    KlingError,
    NextStep,
    RateLimitedError,
    ServerError,
    StoppedWaiting,
    Verb,
    WaitTimeoutError,
)
from .generation import Generation, Status, Video
from .progress import Progress, clock_time
from .protocol import Call, Endpoint, Outcome, Trouble
from .request import VideoRequest
from .schedule import Schedule

DEFAULT_TIMEOUT = 3600.0  # documented runs reach 14 minutes; the gateway's queue is not documented

# A stand-in on loopback is as quick as its maker likes, whatever the documents say of the model:
# in the first seconds it is asked more often, which costs nothing.
_PROBED = 10.0

_FEW = 4  # tries of a POST that gets 429

_REPEATED = 200.0  # seconds for these: later, others may take the intent for one left behind

LATEST_POST = 240.0
"""Seconds from its intent to the last moment at which a POST may leave, its repetitions included: a
generation in doubt may have begun that late."""

_SILENCE = 20.0  # seconds without an answer after which the user hears of it

_CONFIRMING = (2.0, 5.0, 0.0)  # seconds after each look for a generation that an error named


@dataclass(frozen=True, slots=True)
class Ask:
    """Carry this call and send back its outcome.

    ``likelihood`` gives, when called, how likely the generation is to be done, for a client that
    cannot carry all calls at once. None where a call is no poll. ``before`` is called when the
    connection for it stands: what it raises is raised here, and not a byte has left.
    """

    call: Call
    likelihood: Callable[[], float] | None = None
    before: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let ``seconds`` pass, then send None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Hand this progress to the caller's ``on_update``."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Do this blocking work on disk, and send back what it returns.

    It is short, and an id may wait for it: no download may delay it.
    """

    work: Callable[[], Any]


TransferProgress = Callable[[int, int | None], None]
"""Called with the bytes received and their total, None where the server does not say."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Save this video to a file or into a folder, and send back the Saved; takes minutes."""

    video: Video
    generation_id: str
    target: str | Path
    prompt: str | None = None
    progress: TransferProgress | None = None
    overwrite: bool = True


Effect = Ask | Sleep | Report | OnDisk | Transfer
"""What a flow asks of its driver."""

T = TypeVar("T")
Flow = Generator[Effect, Any, T]
"""Yields effects, is sent what came of them, returns a T."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long trouble is outlived, in seconds: the job goes on meanwhile, and is paid for.

    ``outage``: polls without a usable answer. ``not_found``: polls that answer 404, which is
    normal just after a submit. ``connect`` and ``rate_limit``: a POST that surely was not taken,
    because no connection was had or because of a 429. Delays between tries double from ``first``
    to ``most``; Retry-After wins.
    """

    outage: float = 900.0
    not_found: float = 120.0
    connect: float = 20.0
    rate_limit: float = 120.0
    first: float = 1.0
    most: float = 30.0

    def delay(self, tries: int, retry_after: float | None, rng: random.Random) -> float:
        if retry_after is not None:
            return max(0.1, min(retry_after, self.outage)) * (1 + 0.1 * rng.random())
        return float(min(self.most, self.first * 2 ** min(tries, 16)) * rng.uniform(0.8, 1.2))


def seconds(value: object, name: str, *, none: float = math.inf, above: bool = False) -> float:
    """A span as seconds: a number of them or a timedelta; ``none`` stands for None.

    Checked before anything is paid. Raises InvalidRequestError for all else, also for text, NaN
    and what is below 0, or, ``above``, not above it.
    """
    if value is None:
        return none
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if type(value) is not bool and isinstance(value, Real | Decimal):
        with contextlib.suppress(ValueError, OverflowError):  # a signalling NaN, a huge int
            number = float(value)
            if number > 0.0 or (number == 0.0 and not above):
                return number
    least = "above 0" if above else "from 0 on"
    raise InvalidRequestError(f"{name} is a number of seconds {least}, not {value!r:.60}.")


def name_generation(error: BaseException, generation_id: str) -> None:
    """Whatever is raised once something is paid for says for which generation."""
    if getattr(error, "generation_id", None) is None:
        with contextlib.suppress(AttributeError):
            error.generation_id = generation_id  # type: ignore[attr-defined]
        if not isinstance(error, KlingError | GeneratorExit):
            error.add_note(f"Generation {generation_id} goes on at the gateway and is billed.")


def submitting(
    endpoint: Endpoint,
    request: VideoRequest,
    client_request_id: str,
    *,
    now: Callable[[], float],
    patience: Patience,
    rng: random.Random,
    before: Callable[[], None] | None = None,
) -> Flow[Generation]:
    """One POST, repeated only while it surely was not taken.

    A refusal that names a generation is looked into first: it may exist. ``before``: see ``Ask``.
    Raises RateLimitedError or ServerError when trouble lasts longer than the patience, and what
    ``protocol.read_submit`` raises.
    """
    # From the first refusal, not from the start: a call may wait for its turn among thousands.
    since: float | None = None
    tries, paused = 0, 0.0
    while True:
        outcome = yield Ask(endpoint.submit(request, client_request_id), before=before)
        try:
            answer = protocol.read_submit(outcome, client_request_id)
        except (AuthenticationError, InsufficientCreditsError, InvalidRequestError) as refused:
            if found := (yield from _found(endpoint, outcome, client_request_id)):
                return found
            raise refused from None
        if isinstance(answer, Generation):
            if protocol.is_accepted(outcome):
                return answer
            return (yield from _confirmed(endpoint, answer, client_request_id))
        if found := (yield from _found(endpoint, outcome, client_request_id)):
            return found
        delay = patience.delay(tries, answer.retry_after, rng)
        tries += 1
        limited = answer.status == 429
        limit = patience.rate_limit if limited else patience.connect
        since = now() if since is None else since
        # A few tries are due even where each waits long for its turn.
        paused += delay
        few = limited and tries < _FEW and delay <= limit and paused <= _REPEATED
        if now() + delay - since > limit and not few:
            raise (RateLimitedError if limited else ServerError)(
                f"Nothing was submitted: {answer.reason}.", client_request_id=client_request_id
            )
        yield Sleep(delay)


def _confirmed(endpoint: Endpoint, named: Generation, client_request_id: str) -> Flow[Generation]:
    """The generation that an error reply names, once the gateway knows it.

    Raises SubmissionUncertainError when it stays unknown: such an id leads nowhere. A gateway
    that does not answer at all leaves the id as the best that is known.
    """
    for delay in _CONFIRMING:
        try:
            outcome = yield Ask(endpoint.poll(named.id))
            try:
                answer = protocol.read_poll(outcome, named.id)
            except KlingError:
                return named
            if isinstance(answer, Generation):
                return answer
            if answer.status != 404:
                return named
            yield Sleep(delay)
        except StoppedWaiting:
            # Not a pause between two POSTs: this one may have been taken, under this id.
            raise StoppedWaiting(named.id, client_request_id) from None
        except BaseException as error:
            name_generation(error, named.id)
            raise
    raise protocol.uncertain(
        f"the gateway named generation {named.id}, and does not know it", client_request_id
    )


def _found(endpoint: Endpoint, refusal: Outcome, client_request_id: str) -> Flow[Generation | None]:
    """The generation that a refusal names, where there is such a one; None where there is none.

    Raises SubmissionUncertainError when that cannot be told.
    """
    generation_id = protocol.named(refusal)
    if not generation_id:
        return None
    outcome = yield Ask(endpoint.poll(generation_id))
    try:
        answer = protocol.read_poll(outcome, generation_id)
    except KlingError:
        return None
    if isinstance(answer, Generation):
        return answer
    if answer.status == 404:
        return None
    raise protocol.uncertain(
        f"it was refused, yet generation {generation_id} is named ({answer.reason})",
        client_request_id,
    )


def waiting(
    endpoint: Endpoint,
    generation: Generation,
    *,
    schedule: Schedule,
    now: Callable[[], float],
    elapsed: float | None,
    timeout: float,
    patience: Patience,
    rng: random.Random,
) -> Flow[Generation]:
    """Polls until the generation ends; returns it completed.

    ``elapsed``: seconds since the submit, None when unknown (then it is asked at once).
    ``timeout``: seconds from now; one last poll happens at the deadline, and an end seen then
    counts. Raises GenerationFailedError, WaitTimeoutError, GenerationNotFoundError, ServerError
    (an outage that outlasts the patience) and what ``protocol.read_poll`` raises.
    """
    return (
        yield from Wait(endpoint, schedule, now, patience, rng).run(generation, elapsed, timeout)
    )


@dataclass(slots=True)
class Wait:
    """One wait. ``last`` is how it stood when it was last reported."""

    endpoint: Endpoint
    schedule: Schedule
    now: Callable[[], float]
    patience: Patience
    rng: random.Random
    submitted: float = 0.0
    polls: int = 0
    asked: float = 0.0  # here it was last seen running, seconds since the submit
    queued: float = 0.0  # up to here it is known to have been queued, seconds since the submit
    trouble_since: float | None = None
    not_found_since: float | None = None
    tries: int = 0
    silence_told: bool = False
    warned: set[str] = field(default_factory=set)
    last: Progress | None = None

    def run(
        self, generation: Generation, elapsed: float | None, timeout: float
    ) -> Flow[Generation]:
        """See ``waiting``."""
        begin = self.now()
        self.submitted = begin - (elapsed or 0.0)
        deadline = begin + timeout
        ask = Ask(self.endpoint.poll(generation.id), self._likelihood)
        delay = 0.0 if elapsed is None else self._next_delay(elapsed)
        if generation.video or generation.status is Status.FAILED:
            yield self._report(generation, None, "")
            return ended(generation)
        while True:
            remaining = max(0.0, deadline - self.now())
            wait, last = min(delay, remaining), delay >= remaining
            yield self._report(generation, wait, "")
            if wait > 0:
                yield Sleep(wait)
            outcome = yield ask
            self.polls += 1
            answer = protocol.read_poll(outcome, generation.id)
            if isinstance(answer, Trouble):
                self._outlive(answer, generation.id)
                delay = self.patience.delay(self.tries, answer.retry_after, self.rng)
                self.tries += 1
                note = f"no answer ({answer.reason}); asking again"
                yield self._report(generation, delay, note, self._silence(answer, generation.id))
            else:
                generation = answer
                self.trouble_since = self.not_found_since = None
                self.silence_told, self.tries = False, 0
                self.asked = since = self.now() - self.submitted
                odd = protocol.odd_status(generation)
                if generation.is_terminal:
                    yield self._report(generation, None, odd)
                    return ended(generation)
                if generation.status is Status.QUEUED:
                    self.queued = since
                delay = self._next_delay(since)
                if odd and odd not in self.warned:
                    self.warned.add(odd)
                    yield self._report(generation, delay, odd)
            if last:
                never_found = self.not_found_since is not None and elapsed is None
                raise WaitTimeoutError(
                    f"Not finished after {clock_time(timeout)} of waiting. "
                    + (
                        "The gateway has not found it so far: is the id right?"
                        if never_found
                        else "It goes on, and is billed when it completes."
                    )
                    + f" Generation: {generation.id}",
                    generation_id=generation.id,
                    next_steps=[NextStep(Verb.WAIT, generation.id)],
                )

    def _next_delay(self, elapsed: float) -> float:
        delay = self.schedule.next_delay(elapsed, self.rng, queued=self.queued)
        as_asked_for = self.schedule.floor == self.schedule.ceiling  # a user's fixed interval
        if elapsed >= _PROBED or as_asked_for or not settings.is_stand_in(self.endpoint.base_url):
            return delay
        return min(delay, 1.5 + 0.4 * elapsed)

    def _likelihood(self) -> float:
        generated = self.now() - self.submitted - self.queued
        return self.schedule.likelihood(max(self.asked - self.queued, 0.0), max(generated, 0.0))

    def _silence(self, trouble: Trouble, generation_id: str) -> str:
        """What somebody who sees no progress hears once of trouble that lasts; else empty."""
        since = self.trouble_since
        lasts = since is not None and self.now() - since >= _SILENCE
        if since is None or not lasts or self.silence_told or trouble.status == 404:
            return ""
        self.silence_told = True
        return (
            f"No usable answer for {clock_time(self.now() - since)} ({trouble.reason}); it is "
            f"asked again. The generation goes on: {generation_id}"
        )

    def _report(
        self, generation: Generation, next_ask: float | None, note: str, trouble: str = ""
    ) -> Report:
        elapsed = self.now() - self.submitted
        ended_well = generation.status is Status.COMPLETED
        self.last = Progress(
            generation=generation,
            elapsed=elapsed,
            expected=self.schedule.expected + self.queued,
            fraction=1.0 if ended_well else self.schedule.progress(elapsed, queued=self.queued),
            polls=self.polls,
            next_ask=next_ask,
            note=note,
            queued=self.queued,
            trouble=trouble,
        )
        return Report(self.last)

    def _outlive(self, trouble: Trouble, generation_id: str) -> None:
        """Returns while the trouble may pass; raises once it has lasted too long."""
        moment = self.now()
        if self.trouble_since is None:
            self.trouble_since = moment
        if trouble.status != 404:
            self.not_found_since = None
        elif self.not_found_since is None:
            self.not_found_since = moment
        later = [NextStep(Verb.WAIT, generation_id)]
        if (
            self.not_found_since is not None
            and moment - self.not_found_since >= self.patience.not_found
        ):
            raise GenerationNotFoundError(
                f"The gateway keeps answering that it knows no such generation "
                f"({trouble.reason}): is the key of the account that paid for it in use? "
                f"Generation: {generation_id}",
                generation_id=generation_id,
                next_steps=later,
            )
        if moment - self.trouble_since >= self.patience.outage:
            raise ServerError(
                f"No usable answer in {clock_time(moment - self.trouble_since)} minutes "
                f"({trouble.reason}). The generation may well be finished: {generation_id}",
                generation_id=generation_id,
                next_steps=later,
            )


def ended(generation: Generation) -> Generation:
    """A completed generation; raises GenerationFailedError for a failed one."""
    if generation.status is Status.FAILED:
        failure = generation.error
        raise GenerationFailedError(
            # The reason first: screens cut the end, and the id is long.
            f"Failed{f' ({failure.kind})' if failure and failure.kind != 'unknown' else ''}: "
            f"{failure.message if failure else 'the gateway gave no reason'}. "
            f"A failed generation is not billed. Generation: {generation.id}",
            kind=failure.kind if failure else "unknown",
            usage=generation.usage,
            generation_id=generation.id,
        )
    return generation
