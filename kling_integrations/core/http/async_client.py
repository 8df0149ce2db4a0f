"""AsyncKlingClient: the core on ``aiohttp``. Thousands of waits share one session and one loop."""

from __future__ import annotations

import asyncio
import logging
import random
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import protocol, settings
from ..errors import InvalidRequestError, KlingError, KlingWarning
from ..generation import Generation, Saved, Status
from ..memory import Memory
from ..progress import Progress
from ..protocol import Call, Endpoint, Outcome
from ..request import VideoRequest
from ..request_queue import Gate, Likelihood
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
from . import aiohttp_transport

if TYPE_CHECKING:
    import aiohttp
    from filelock import FileLock

    from ..storage.ledger import Claim, Ledger

OnUpdate = Callable[[Progress], object]
log = logging.getLogger(__name__)


class AsyncKlingClient:
    """The verbs of KlingClient as coroutines. Belongs to one event loop; share it there.

    ``connections`` bounds the requests under way at once, ``max_requests_per_second`` those that
    leave in a second (of the gateway; None: as many as come): any number of generations can wait,
    and where more are due than may ask, those likeliest to be done go first (see ``budget``).
    ``live_percentiles`` is as in KlingClient. A cancelled ``submit`` lets its POST finish: the id
    is written to the ledger, or logged.
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
        connections: int = 200,
        max_requests_per_second: float | None = None,
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
        self._connections = connections
        self._gate = Gate(self.clock, connections, max_requests_per_second)
        self._rng = random.Random()
        self._memory = Memory(self.endpoint.base_url, self.clock, ledger)
        self._session: aiohttp.ClientSession | None = None
        self._posts: aiohttp.ClientSession | None = None
        self._submits: set[asyncio.Task[Generation]] = set()

    @property
    def is_sandbox(self) -> bool:
        return settings.is_sandbox(self.endpoint.base_url)

    # --- verbs -----------------------------------------------------------------------------

    async def submit(
        self, request: VideoRequest, *, new: bool = False, take: int = 1
    ) -> Generation:
        """As KlingClient.submit; a cancellation does not tear the POST."""
        if self.ledger is None and (new or take != 1):
            raise InvalidRequestError("new= and take= need a ledger: AsyncKlingClient(ledger=…).")
        task = asyncio.ensure_future(self._submit(request, new, take))
        self._submits.add(task)
        task.add_done_callback(self._submits.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_orphan)
            raise

    async def get(self, generation_id: str) -> Generation:
        """As KlingClient.get."""
        outcome = await self.exchange(self.endpoint.poll(generation_id))
        generation = protocol.read_one_poll(outcome, generation_id)
        if odd := protocol.odd_status(generation):
            warnings.warn(odd, KlingWarning, stacklevel=2)
        return generation

    async def wait(
        self,
        generation_id: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109 (ends with a last poll, not a cancel)
        on_update: OnUpdate | None = None,
        poll_interval: float | None = None,
        schedule: Schedule | None = None,
        elapsed: float | None = None,
    ) -> Generation:
        """As KlingClient.wait."""
        generation = Generation(id=generation_id, status=Status.UNKNOWN)
        if schedule is None:
            return await self._wait(generation, timeout, on_update, poll_interval)
        return await self._wait(generation, timeout, on_update, None, (schedule, elapsed))

    async def generate(
        self,
        request: VideoRequest,
        *,
        timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109
        on_update: OnUpdate | None = None,
        poll_interval: float | None = None,
        new: bool = False,
        take: int = 1,
    ) -> Generation:
        """``submit`` and ``wait``."""
        generation = await self.submit(request, new=new, take=take)
        return await self._wait(generation, timeout, on_update, poll_interval)

    async def download(self, generation: Generation | str, target: str | Path) -> Path:
        """As KlingClient.download, in a thread."""
        return (await self.save(generation, target)).path

    async def save(self, generation: Generation | str, target: str | Path, **options: Any) -> Saved:
        """As KlingClient.save, in a thread."""
        from ..storage import download

        if isinstance(generation, str):
            generation = await self.get(generation)
        loop = asyncio.get_running_loop()

        def refresh(generation_id: str) -> Generation:
            return asyncio.run_coroutine_threadsafe(self.get(generation_id), loop).result()

        options.setdefault("clock", self.clock)
        saved = await asyncio.to_thread(
            download.fetch, generation, target, refresh=refresh, **options
        )
        await self._on_disk(self._memory.saved, generation.id, saved)
        return saved

    async def balance(self) -> dict[str, Any]:
        """As KlingClient.balance."""
        answer = protocol.read_service(await self.exchange(self.endpoint.balance()), "the balance")
        return answer if isinstance(answer, dict) else {}

    async def prices(self, model: str) -> Any:
        """As KlingClient.prices."""
        return protocol.read_service(await self.exchange(self.endpoint.prices(model)), "the prices")

    async def close(self) -> None:
        """Lets POSTs under way finish, then closes the session."""
        if self._submits:
            await asyncio.wait(self._submits, timeout=self.timeout)
        sessions, self._session, self._posts = (self._session, self._posts), None, None
        for session in sessions:
            if session is not None:
                await session.close()

    async def __aenter__(self) -> AsyncKlingClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncKlingClient({self.endpoint.base_url!r})"

    # --- driving ---------------------------------------------------------------------------

    async def _wait(
        self,
        generation: Generation,
        timeout: float,  # noqa: ASYNC109
        on_update: OnUpdate | None,
        poll_interval: float | None,
        known: tuple[Schedule, float | None] | None = None,
    ) -> Generation:
        schedule, elapsed = known or await self._on_disk(
            self._memory.expectation, generation, poll_interval
        )
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
            done = await self.drive(steps, update)
        except KlingError as error:
            await self._on_disk(self._memory.failed, error)
            raise
        await self._on_disk(self._memory.completed, done, last)
        return done

    async def _on_disk(self, work: Callable[..., Any], *args: Any) -> Any:
        """The memory's calls touch the disk only with a ledger; then they leave the loop."""
        if self.ledger is None:
            return work(*args)
        return await asyncio.to_thread(work, *args)

    async def drive(self, steps: Steps, on_update: OnUpdate | None = None) -> Generation:
        """Carries out the actions of ``waiting`` or ``submitting`` until they return."""
        outcome: Outcome | None = None
        try:
            while True:
                action = steps.send(outcome)
                outcome = None
                match action:
                    case Ask(call, likelihood):
                        outcome = await self.exchange(call, likelihood)
                    case Sleep(seconds):
                        await asyncio.sleep(self.clock.real(seconds))
                    case Report(progress):
                        if on_update:
                            on_update(progress)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    async def _submit(self, request: VideoRequest, new: bool, take: int) -> Generation:
        if self.ledger is None:
            return await self._post(request, protocol.new_client_request_id())
        async with self._claim(self.ledger, request, new, take) as claim:
            if claim.generation:
                return claim.generation
            try:
                generation = await self._post(request, claim.client_request_id)
            except BaseException as error:
                await asyncio.to_thread(claim.failed, error)
                raise
            await asyncio.to_thread(claim.submitted, generation)
            return generation

    @asynccontextmanager
    async def _claim(
        self, ledger: Ledger, request: VideoRequest, new: bool, take: int
    ) -> AsyncIterator[Claim]:
        """Ledger.claim without holding a thread while another process has the lock."""
        lock = await asyncio.to_thread(ledger.lock, request)
        await _acquire(lock)
        try:
            yield await asyncio.to_thread(
                ledger.decide, request, self.endpoint.base_url, new=new, take=take
            )
        finally:
            lock.release()

    async def _post(self, request: VideoRequest, client_request_id: str) -> Generation:
        steps = submitting(
            self.endpoint,
            request,
            client_request_id,
            now=self.clock.now,
            patience=self.patience,
            rng=self._rng,
        )
        moment = self.clock.now()
        generation = await self.drive(steps)
        self._memory.submitted(generation.id, moment, request)
        return generation

    # --- carrying --------------------------------------------------------------------------

    async def exchange(self, call: Call, likelihood: Likelihood | None = None) -> Outcome:
        """One HTTP exchange; whatever happens comes back as an Outcome.

        It waits for its turn first, polls by their ``likelihood``, what has none before them.
        """
        await self._gate.turn(likelihood)
        try:
            if call.method == "POST":
                # As in KlingClient: a POST gets a connection of its own.
                if self._posts is None:
                    self._posts = aiohttp_transport.new_session(self._connections, fresh=True)
                return await aiohttp_transport.exchange(self._posts, call, self.timeout)
            if self._session is None:
                self._session = aiohttp_transport.new_session(self._connections)
            return await aiohttp_transport.exchange(self._session, call, self.timeout)
        finally:
            self._gate.done()


async def _acquire(lock: FileLock) -> None:
    from filelock import Timeout

    while True:
        try:
            lock.acquire(blocking=False)
            return
        except Timeout:
            await asyncio.sleep(0.05)


def _log_orphan(task: asyncio.Task[Generation]) -> None:
    if not task.cancelled() and task.exception() is None:
        log.warning(
            "Generation %s was submitted and is billed; whoever asked for it has gone.",
            task.result().id,
        )
