"""KlingClient: the core on ``requests``. It carries out effects; what to do is in ``flows``."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..concealed import secret
from ..errors import KlingError, LedgerError, StoppedWaiting, SubmissionUncertainError
from ..flows import SubmissionLedger
from ..generation import Generation, Saved, Status
from ..protocol import Call, Outcome
from ..recovery import Recovered
from ..request import VideoRequest
from ..schedule import Schedule
from ..waiting import (
    DEFAULT_TIMEOUT,
    Ask,
    Effect,
    Flow,
    OnDisk,
    Patience,
    Report,
    Sleep,
    Transfer,
    TransferProgress,
)
from .base import (
    EXCHANGE_TIMEOUT,
    PARENTS,
    BaseClient,
    OnUpdate,
    Submission,
    check_callable,
    check_wait,
    report,
)
from .network import BEFORE_POST

if TYPE_CHECKING:
    import requests


T = TypeVar("T")

INTERRUPT_GRACE = 10.0
"""How long an interrupt lets a POST in flight finish, in real seconds: its reply holds the id."""


class KlingClient(BaseClient):
    """Submit, poll, wait, download. Pooled, reusable, safe to share between threads.

    ``api_key``: default from the environment (``AIML_API_KEY``). ``base_url``: default
    ``AIML_BASE_URL``, else the gateway. ``timeout`` bounds one HTTP exchange (seconds; None: 60).
    ``legacy_endpoint=True`` takes the URL with the vendor's name (default: the environment's
    ``KLING_LEGACY_ENDPOINT``). With a ``ledger`` every submit is written down first, and the same
    request re-attaches to what is running or finished instead of paying again. ``patience`` says
    how long trouble is outlived.

    Raises AuthenticationError without a key, InvalidRequestError for a base URL that would send
    the key in clear text. Every verb may raise AuthenticationError, RateLimitedError and
    ServerError.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float | timedelta | None = EXCHANGE_TIMEOUT,
        legacy_endpoint: bool | None = None,
        ledger: SubmissionLedger | None = None,
        patience: Patience | None = None,
    ) -> None:
        api_key = secret(api_key)
        super().__init__(
            api_key,
            base_url,
            timeout=timeout,
            legacy_endpoint=legacy_endpoint,
            ledger=ledger,
            patience=patience,
        )
        self._session: requests.Session | None = None
        self._lock = threading.Lock()

    # --- verbs -----------------------------------------------------------------------------

    def submit(
        self,
        request: VideoRequest,
        *,
        new: bool = False,
        take: int = 1,
        client_request_id: str | None = None,
        resubmit: str | None = None,
    ) -> Generation:
        """One POST, never repeated when in doubt; returns the accepted generation.

        With a ledger, the same request returns the generation that it already has, without a
        POST; ``new=True`` pays for another one, ``take`` numbers wanted repetitions, ``resubmit``
        passes over the one POST in doubt that has this client request id. A caller that keeps a
        record elsewhere hands in its ``client_request_id``. Raises InvalidRequestError and
        InsufficientCreditsError when the gateway refuses, SubmissionUncertainError when the POST
        may have been taken, LedgerError, StoppedWaiting on Ctrl-C, and any other interrupt with
        ``generation_id`` set on it when a reply still came.
        """
        self._check_before_submit(request, take, client_request_id, new)
        flow = self._flows.submit(
            request,
            new=new,
            take=take,
            client_request_id=client_request_id,
            resubmit=resubmit,
        )
        return self._shielded(lambda submission: self._drive(flow, submission=submission))

    def get(self, generation_id: str) -> Generation:
        """One poll. Raises ServerError when no usable answer comes, GenerationNotFoundError."""
        return self._drive(self._flows.get(generation_id))

    def wait(
        self,
        generation_id: str,
        *,
        timeout: float | timedelta | None = DEFAULT_TIMEOUT,
        on_update: OnUpdate | None = None,
        poll_interval: float | timedelta | None = None,
        schedule: Schedule | None = None,
        elapsed: float | None = None,
    ) -> Generation:
        """Waits until the generation ends; returns it completed.

        ``timeout`` in seconds from now, or a timedelta (None: no limit); ``on_update`` gets a
        Progress at each change (``print`` works); ``poll_interval`` (seconds, or a timedelta)
        replaces the schedule by a fixed one. A caller that
        submitted elsewhere hands in ``schedule`` and ``elapsed`` (seconds since the submit). Raises
        GenerationFailedError, GenerationNotFoundError, WaitTimeoutError (the generation goes on),
        and StoppedWaiting on an interrupt.
        """
        check_wait(timeout, poll_interval, on_update, schedule, elapsed)
        return self._wait(
            Generation(id=generation_id, status=Status.UNKNOWN),
            on_update,
            timeout=timeout,
            poll_interval=poll_interval,
            schedule=schedule,
            elapsed=elapsed,
        )

    def generate(
        self,
        request: VideoRequest,
        *,
        timeout: float | timedelta | None = DEFAULT_TIMEOUT,
        on_update: OnUpdate | None = None,
        poll_interval: float | timedelta | None = None,
        new: bool = False,
        take: int = 1,
    ) -> Generation:
        """``submit`` and ``wait``. Every error after the POST names the generation."""
        check_wait(timeout, poll_interval, on_update)
        generation = self.submit(request, new=new, take=take)
        return self._wait(generation, on_update, timeout=timeout, poll_interval=poll_interval)

    def download(self, generation: Generation | str, target: str | Path) -> Path:
        """Saves the video to a file, or into a folder under the server's name; returns the path.

        ``generation`` is one, or its id. A link that has expired is asked for anew once. Raises
        DownloadError: the generation is kept, and only the download needs repeating.
        """
        return self.save(generation, target).path

    def save(
        self,
        generation: Generation | str,
        target: str | Path,
        *,
        prompt: str | None = None,
        progress: TransferProgress | None = None,
        overwrite: bool = True,
    ) -> Saved:
        """``download`` that also returns size, SHA-256 and content type.

        ``prompt`` names the file in a folder where the server has no name for it.
        ``progress(received, total)`` gets bytes, at most ten times a second (``total`` None where
        the server does not say). ``overwrite=False`` refuses a target that exists.
        """
        check_callable(progress, "progress")
        return self._drive(
            self._flows.save(
                generation, target, prompt=prompt, progress=progress, overwrite=overwrite
            )
        )

    def recover(self) -> list[Recovered]:
        """Looks up the ledger's uncertain submissions in the gateway's log (free).

        What is found is attached: from then on the same request picks it up. Raises
        InvalidRequestError without a ledger, LedgerError.
        """
        return self._drive(self._flows.recover())

    def find_submission(self, client_request_id: str, submitted_at: float) -> str | None:
        """The generation's id that the gateway's log has for a POST, or None (free).

        ``submitted_at``: when the POST left, in Unix seconds.
        """
        return self._drive(self._flows.find_submission(client_request_id, submitted_at))

    def find_submissions(self, client_request_ids: Iterable[str], since: float) -> dict[str, str]:
        """Ids of generations by client request id, as far as the gateway's log has them (free).

        ``since``: when the first of the POSTs can have left, in Unix seconds.
        """
        return self._drive(self._flows.find_submissions(client_request_ids, since))

    def balance(self) -> dict[str, Any]:
        """``{current_balance, currency}`` of the account (free)."""
        return self._drive(self._flows.balance())

    def prices(self, model: str) -> Any:
        """The gateway's price list entry for a model, as it comes (free)."""
        return self._drive(self._flows.prices(model))

    def logs(self, start: str, end: str, offset: int = 0) -> Any:
        """One page of the gateway's log between two ISO 8601 instants (free)."""
        return self._drive(self._flows.logs(start, end, offset))

    def close(self) -> None:
        """Closes the connections; the client can be used again."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    def __enter__(self) -> KlingClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- driving ---------------------------------------------------------------------------

    def _wait(
        self, generation: Generation, on_update: OnUpdate | None, **options: Any
    ) -> Generation:
        try:
            return self._drive(self._flows.wait(generation, **options), on_update)
        except KeyboardInterrupt as interrupt:
            if type(interrupt) is not KeyboardInterrupt:  # StoppedWaiting, or the caller's own kind
                raise
            raise StoppedWaiting(generation.id) from None

    def _drive(
        self,
        flow: Flow[T],
        on_update: OnUpdate | None = None,
        submission: Submission | None = None,
    ) -> T:
        """Carries out the effects of a flow; what one raises is raised in the flow."""
        result: Any = None
        raised: BaseException | None = None
        while True:
            try:
                effect = flow.send(result) if raised is None else flow.throw(raised)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            result = raised = None
            try:
                result = self._carry_out(effect, on_update, submission)
            except BaseException as error:  # noqa: BLE001 (the flow decides)
                raised = error

    def _carry_out(
        self, effect: Effect, on_update: OnUpdate | None, submission: Submission | None
    ) -> Any:
        match effect:
            case Ask(call, _, before):
                if call.method != "POST":
                    return self.exchange(call)
                self.check_submitting()
                if submission is not None:
                    submission.check()
                token = BEFORE_POST.set(partial(self.leave, call, before, submission))
                try:
                    return self.exchange(call)
                finally:
                    BEFORE_POST.reset(token)
            case Sleep(seconds):
                if submission is None:
                    time.sleep(self.clock.real(seconds))
                elif submission.stop.wait(self.clock.real(seconds)):
                    raise StoppedWaiting()  # between two POSTs: nothing was taken
            case Report(progress):
                report(progress, on_update)
            case OnDisk(work):
                return work()
            case Transfer():
                from ..storage import download

                return download.fetch(effect, self.clock)
        return None

    def _shielded(self, submit: Callable[[Submission], Generation]) -> Generation:
        """Submits in a thread of its own: an interrupt hits the caller, not the exchange.

        Python delivers interrupts to the main thread only, so an id that comes back during one
        is still written down.
        """
        submission = Submission()
        if threading.current_thread() is not threading.main_thread():
            return submit(submission)
        answer: list[Generation | BaseException] = []
        finished = threading.Event()

        def run() -> None:
            try:
                answer.append(submit(submission))
            except BaseException as error:  # noqa: BLE001 (raised again by the caller)
                answer.append(error)
            finally:
                finished.set()

        try:
            threading.Thread(target=run, name="kling-submit", daemon=True).start()
            finished.wait()
        except BaseException as interrupt:  # noqa: BLE001 (it is raised, with what it names)
            # Ctrl-C, or what a signal handler raises: Airflow ends its tasks with one.
            submission.stop.set()
            with contextlib.suppress(BaseException):  # a second one means it
                finished.wait(INTERRUPT_GRACE)
            raise _interrupted(interrupt, answer[0] if answer else None, submission) from None
        if isinstance(answer[0], BaseException):
            raise answer[0]
        return answer[0]

    # --- carrying --------------------------------------------------------------------------

    def exchange(self, call: Call) -> Outcome:
        """One HTTP exchange; whatever happens comes back as an Outcome."""
        from . import requests_transport

        if call.method == "POST":
            # A kept-alive connection can be dead at the other end: a POST into it would be in
            # doubt. A connection of its own is cheap beside what a POST costs.
            with requests_transport.new_session(1) as session:
                return requests_transport.exchange(session, call, self.timeout)
        return requests_transport.exchange(self._pool(), call, self.timeout)

    def _pool(self) -> requests.Session:
        from . import requests_transport

        with self._lock:
            if self._session is None:
                self._session = requests_transport.new_session()
            return self._session

    def after_fork(self) -> None:
        super().after_fork()
        PARENTS.append(self._session)
        self._session, self._lock = None, threading.Lock()


def _interrupted(
    interrupt: BaseException, answer: Generation | BaseException | None, submission: Submission
) -> BaseException:
    """What to raise after an interrupt of a submit: itself, with what it has to name.

    A plain KeyboardInterrupt becomes a StoppedWaiting. What else a signal's handler raises
    (Airflow ends its tasks with one) stays what it is, whatever the submit came to.
    """
    generation_id = getattr(answer, "id", None) or getattr(answer, "generation_id", None)
    refused = isinstance(answer, KlingError) and not isinstance(answer, SubmissionUncertainError)
    is_open = not isinstance(answer, Generation | StoppedWaiting) and not refused
    asked = submission.client_request_id if is_open else None
    unwritten = isinstance(answer, LedgerError) and generation_id is not None
    if type(interrupt) is KeyboardInterrupt:
        if isinstance(answer, StoppedWaiting) or (unwritten and isinstance(answer, LedgerError)):
            return answer
        return StoppedWaiting(generation_id, asked)
    with contextlib.suppress(AttributeError):
        interrupt.generation_id = generation_id  # type: ignore[attr-defined]
        interrupt.client_request_id = asked  # type: ignore[attr-defined]
    if unwritten:
        interrupt.add_note(str(answer))
    return interrupt
