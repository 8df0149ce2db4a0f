"""KlingClient: the core on ``requests``. It carries bytes; what they mean is decided elsewhere."""

from __future__ import annotations

import contextlib
import random
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import protocol, settings
from ..errors import InvalidRequestError, KlingError, KlingWarning, StoppedWaiting
from ..generation import Generation, Saved, Status
from ..memory import Memory
from ..progress import Progress
from ..protocol import Call, Endpoint, Outcome
from ..request import VideoRequest
from ..schedule import Schedule
from ..waiting import (
    DEFAULT_TIMEOUT,
    Ask,
    Patience,
    Report,
    Sleep,
    Steps,
    submitting,
    waiting,
)

if TYPE_CHECKING:
    import requests

    from ..storage.ledger import Ledger

OnUpdate = Callable[[Progress], object]

# How long an interrupt lets a POST in flight finish, in seconds: its reply holds the paid id.
INTERRUPT_GRACE = 10.0


class _Work:
    """A submit under way: ``stop`` asks it to end before its next POST."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.client_request_id: str | None = None


class KlingClient:
    """Submit, poll, wait, download. Pooled, reusable, safe to share between threads.

    ``timeout`` bounds one HTTP exchange (seconds). ``legacy_endpoint=True`` takes the URL with
    the vendor's name. With a ``ledger`` every submit is written down first, and the same request
    re-attaches to what is running or finished instead of paying again. ``live_percentiles``: ask
    the gateway how long a model takes at the moment, where nothing better is known.

    Raises AuthenticationError without a key, InvalidRequestError for a base URL that would send
    the key in clear text.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = 60.0,
        legacy_endpoint: bool | None = None,
        ledger: Ledger | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.endpoint = Endpoint(
            settings.base_url(base_url),
            settings.api_key(api_key),
            settings.legacy_endpoint(legacy_endpoint),
        )
        self.clock = settings.clock_for(self.endpoint.base_url)
        self.timeout = timeout
        self.ledger = ledger
        self.patience = patience or Patience()
        self._rng = random.Random()
        self._memory = Memory(self.endpoint.base_url, self.clock, ledger)
        self._session: requests.Session | None = None
        self._lock = threading.Lock()

    @property
    def is_sandbox(self) -> bool:
        return settings.is_sandbox(self.endpoint.base_url)

    # --- verbs -----------------------------------------------------------------------------

    def submit(
        self,
        request: VideoRequest,
        *,
        new: bool = False,
        take: int = 1,
        client_request_id: str | None = None,
    ) -> Generation:
        """One POST, never repeated when in doubt; returns the accepted generation.

        With a ledger, the same request returns the generation that it already has, without a
        POST; ``new=True`` pays for another one, ``take`` numbers wanted repetitions. Who
        keeps a record elsewhere hands in its ``client_request_id``. Raises
        SubmissionUncertainError when the POST may have been taken, StoppedWaiting on Ctrl-C, and
        any other interrupt with ``generation_id`` set on it when a reply still came.
        """
        if self.ledger is None and (new or take != 1):
            raise InvalidRequestError("new= and take= need a ledger: KlingClient(ledger=…).")
        own = client_request_id
        return self._shielded(lambda work: self._submit(request, new, take, own, work))

    def get(self, generation_id: str) -> Generation:
        """One poll. Raises ServerError when no usable answer comes, GenerationNotFoundError."""
        outcome = self.exchange(self.endpoint.poll(generation_id))
        generation = protocol.read_one_poll(outcome, generation_id)
        if odd := protocol.odd_status(generation):
            warnings.warn(odd, KlingWarning, stacklevel=2)
        return generation

    def wait(
        self,
        generation_id: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        on_update: OnUpdate | None = None,
        poll_interval: float | None = None,
        schedule: Schedule | None = None,
        elapsed: float | None = None,
    ) -> Generation:
        """Waits until the generation ends; returns it completed.

        ``timeout`` in seconds from now; ``on_update`` gets a Progress at each change (``print``
        works); ``poll_interval`` replaces the schedule by a fixed one. Who submitted elsewhere
        hands in ``schedule`` and ``elapsed`` (seconds since the submit). Raises
        GenerationFailedError, WaitTimeoutError (the generation goes on), and StoppedWaiting on
        an interrupt.
        """
        generation = Generation(id=generation_id, status=Status.UNKNOWN)
        if schedule is None:
            return self._wait(generation, timeout, on_update, poll_interval)
        return self._wait(generation, timeout, on_update, None, (schedule, elapsed))

    def generate(
        self,
        request: VideoRequest,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        on_update: OnUpdate | None = None,
        poll_interval: float | None = None,
        new: bool = False,
        take: int = 1,
    ) -> Generation:
        """``submit`` and ``wait``."""
        generation = self.submit(request, new=new, take=take)
        return self._wait(generation, timeout, on_update, poll_interval)

    def download(self, generation: Generation | str, target: str | Path) -> Path:
        """Saves the video to a file, or into a folder under the server's name; returns the path.

        A link that has expired is fetched anew once. Raises DownloadError: the generation is
        kept, and only the download needs repeating.
        """
        return self.save(generation, target).path

    def save(self, generation: Generation | str, target: str | Path, **options: Any) -> Saved:
        """``download`` that also tells size, SHA-256 and content type."""
        from ..storage import download

        if isinstance(generation, str):
            generation = self.get(generation)
        options.setdefault("clock", self.clock)
        saved = download.fetch(generation, target, refresh=self.get, **options)
        self._memory.saved(generation.id, saved)
        return saved

    def balance(self) -> dict[str, Any]:
        """``{current_balance, currency}`` of the account (free)."""
        answer = protocol.read_service(self.exchange(self.endpoint.balance()), "the balance")
        return answer if isinstance(answer, dict) else {}

    def prices(self, model: str) -> Any:
        """The gateway's price list entry for a model, as it comes (free)."""
        return protocol.read_service(self.exchange(self.endpoint.prices(model)), "the prices")

    def logs(self, start: str, end: str, offset: int = 0) -> Any:
        """One page of the gateway's log between two ISO 8601 instants (free)."""
        return protocol.read_service(
            self.exchange(self.endpoint.logs(start, end, offset)), "the logs"
        )

    def close(self) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    def __enter__(self) -> KlingClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"KlingClient({self.endpoint.base_url!r})"

    # --- driving ---------------------------------------------------------------------------

    def _wait(
        self,
        generation: Generation,
        timeout: float,
        on_update: OnUpdate | None,
        poll_interval: float | None,
        known: tuple[Schedule, float | None] | None = None,
    ) -> Generation:
        schedule, elapsed = known or self._memory.expectation(generation, poll_interval)
        steps = waiting(
            self.endpoint,
            generation,
            schedule=schedule,
            now=self.clock.now,
            elapsed=elapsed,
            timeout=timeout,
            patience=self.patience,
            rng=self._rng,
        )
        last: Progress | None = None

        def update(progress: Progress) -> None:
            nonlocal last
            last = progress
            if on_update:
                on_update(progress)
            elif progress.note and progress.status is Status.UNKNOWN:
                warnings.warn(progress.note, KlingWarning, stacklevel=5)

        try:
            done = self._drive(steps, generation.id, update)
        except KlingError as error:
            self._memory.failed(error)
            raise
        self._memory.completed(done, last)
        return done

    def _drive(
        self,
        steps: Steps,
        generation_id: str | None = None,
        on_update: OnUpdate | None = None,
        work: _Work | None = None,
    ) -> Generation:
        outcome: Outcome | None = None
        try:
            while True:
                action = steps.send(outcome)
                outcome = None
                match action:
                    case Ask(call):
                        outcome = self.exchange(call)
                    case Sleep(seconds):
                        if work is None:
                            time.sleep(self.clock.real(seconds))
                        elif work.stop.wait(self.clock.real(seconds)):
                            raise StoppedWaiting()  # between two POSTs: nothing was taken
                    case Report(progress):
                        if on_update:
                            on_update(progress)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        except KeyboardInterrupt as interrupt:
            if generation_id is None or isinstance(interrupt, StoppedWaiting):
                raise
            raise StoppedWaiting(generation_id) from None

    def _submit(
        self, request: VideoRequest, new: bool, take: int, own: str | None, work: _Work
    ) -> Generation:
        if self.ledger is None:
            return self._post(request, own or protocol.new_client_request_id(), work)
        with self.ledger.claim(
            request, self.endpoint.base_url, new=new, take=take, cancelled=work.stop.is_set
        ) as claim:
            if claim.generation:
                return claim.generation
            try:
                generation = self._post(request, claim.client_request_id, work)
            except BaseException as error:
                claim.failed(error)
                raise
            claim.submitted(generation)
            return generation

    def _post(self, request: VideoRequest, client_request_id: str, work: _Work) -> Generation:
        steps = submitting(
            self.endpoint,
            request,
            client_request_id,
            now=self.clock.now,
            patience=self.patience,
            rng=self._rng,
        )
        if work.stop.is_set():
            raise StoppedWaiting()
        work.client_request_id = client_request_id
        moment = self.clock.now()
        generation = self._drive(steps, work=work)
        self._memory.submitted(generation.id, moment, request)
        return generation

    def _shielded(self, job: Callable[[_Work], Generation]) -> Generation:
        """Submits in a thread of its own: an interrupt hits the caller, not the exchange.

        Python delivers interrupts to the main thread only, so an id that comes back during one
        is still written down.
        """
        work = _Work()
        if threading.current_thread() is not threading.main_thread():
            return job(work)
        answer: list[Generation | BaseException] = []
        finished = threading.Event()

        def run() -> None:
            try:
                answer.append(job(work))
            except BaseException as error:  # noqa: BLE001 (raised again by the caller)
                answer.append(error)
            finally:
                finished.set()

        try:
            threading.Thread(target=run, name="kling-submit", daemon=True).start()
            finished.wait()
        except BaseException as interrupt:
            # Ctrl-C, or what a signal handler raises: Airflow ends its tasks with one.
            work.stop.set()
            with contextlib.suppress(KeyboardInterrupt):  # a second one means it
                finished.wait(INTERRUPT_GRACE)
            got = answer[0] if answer else None
            if isinstance(got, BaseException):
                raise got from None
            generation_id = got.id if got else None
            if isinstance(interrupt, KeyboardInterrupt):
                raise StoppedWaiting(generation_id, work.client_request_id) from None
            interrupt.generation_id = generation_id  # type: ignore[attr-defined]
            raise
        if isinstance(answer[0], BaseException):
            raise answer[0]
        return answer[0]

    # --- carrying --------------------------------------------------------------------------

    def exchange(self, call: Call) -> Outcome:
        """One HTTP exchange; whatever happens comes back as an Outcome."""
        from . import requests_transport as transport

        if call.method == "POST":
            # A kept-alive connection can be dead at the other end: a POST into it would be in
            # doubt. A connection of its own is cheap beside what a POST costs.
            with transport.new_session(1) as session:
                return transport.exchange(session, call, self.timeout)
        return transport.exchange(self._pool(), call, self.timeout)

    def _pool(self) -> requests.Session:
        from . import requests_transport as transport

        with self._lock:
            if self._session is None:
                self._session = transport.new_session()
            return self._session
