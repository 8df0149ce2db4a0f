"""AsyncKlingClient: the core on ``aiohttp``. Thousands of waits share one session and one loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..concealed import secret
from ..flows import SubmissionLedger
from ..generation import Generation, Saved, Status
from ..protocol import Call, Outcome
from ..recovery import Recovered
from ..request import VideoRequest
from ..request_queue import Gate, Likelihood
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
from . import aiohttp_transport
from .base import BaseClient, OnUpdate, report

if TYPE_CHECKING:
    import aiohttp


T = TypeVar("T")
log = logging.getLogger(__name__)

# Threads that read and write records. They are not the loop's own, which downloads can fill for
# minutes: an id that is paid for must not wait behind a download.
_RECORD_THREADS = 4


class AsyncKlingClient(BaseClient):
    """The verbs of KlingClient as coroutines. Belongs to one event loop; share it there.

    ``connections`` bounds the requests under way at once, ``max_requests_per_second`` those that
    leave in a second (of the gateway; None: as many as come): any number of generations can wait,
    and where more are due than may ask, those likeliest to be done go first (``request_queue``).
    The other arguments are those of KlingClient. A cancelled ``submit`` lets its POST finish: the
    id is written to the ledger, or logged.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = 60.0,
        legacy_endpoint: bool | None = None,
        ledger: SubmissionLedger | None = None,
        patience: Patience | None = None,
        connections: int = 200,
        max_requests_per_second: float | None = None,
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
        self._connections = connections
        self._gate = Gate(self.clock, connections, max_requests_per_second)
        self._session: aiohttp.ClientSession | None = None
        self._posts: aiohttp.ClientSession | None = None
        self._record_threads: ThreadPoolExecutor | None = None
        self._submits: set[asyncio.Task[Generation]] = set()

    # --- verbs -----------------------------------------------------------------------------

    async def submit(
        self,
        request: VideoRequest,
        *,
        new: bool = False,
        take: int = 1,
        client_request_id: str | None = None,
    ) -> Generation:
        """As KlingClient.submit; a cancellation does not tear the POST."""
        flow = self._flows.submit(request, new=new, take=take, client_request_id=client_request_id)
        task = asyncio.ensure_future(self.drive(flow))
        self._submits.add(task)
        task.add_done_callback(self._submits.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_orphan)
            raise

    async def get(self, generation_id: str) -> Generation:
        """As KlingClient.get."""
        return await self.drive(self._flows.get(generation_id))

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
        flow = self._flows.wait(
            Generation(id=generation_id, status=Status.UNKNOWN),
            timeout=timeout,
            poll_interval=poll_interval,
            schedule=schedule,
            elapsed=elapsed,
        )
        return await self.drive(flow, on_update)

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
        flow = self._flows.wait(generation, timeout=timeout, poll_interval=poll_interval)
        return await self.drive(flow, on_update)

    async def download(self, generation: Generation | str, target: str | Path) -> Path:
        """As KlingClient.download, in a thread."""
        return (await self.save(generation, target)).path

    async def save(
        self,
        generation: Generation | str,
        target: str | Path,
        *,
        prompt: str | None = None,
        progress: TransferProgress | None = None,
        overwrite: bool = True,
    ) -> Saved:
        """As KlingClient.save, in a thread; so is ``progress`` called."""
        return await self.drive(
            self._flows.save(
                generation, target, prompt=prompt, progress=progress, overwrite=overwrite
            )
        )

    async def recover(self) -> list[Recovered]:
        """As KlingClient.recover."""
        return await self.drive(self._flows.recover())

    async def find_submission(self, client_request_id: str, submitted_at: float) -> str | None:
        """As KlingClient.find_submission."""
        return await self.drive(self._flows.find_submission(client_request_id, submitted_at))

    async def find_submissions(
        self, client_request_ids: Iterable[str], since: float
    ) -> dict[str, str]:
        """As KlingClient.find_submissions."""
        return await self.drive(self._flows.find_submissions(client_request_ids, since))

    async def balance(self) -> dict[str, Any]:
        """As KlingClient.balance."""
        return await self.drive(self._flows.balance())

    async def prices(self, model: str) -> Any:
        """As KlingClient.prices."""
        return await self.drive(self._flows.prices(model))

    async def logs(self, start: str, end: str, offset: int = 0) -> Any:
        """As KlingClient.logs."""
        return await self.drive(self._flows.logs(start, end, offset))

    async def close(self) -> None:
        """Lets POSTs under way finish, then closes the connections."""
        if self._submits:
            await asyncio.wait(self._submits, timeout=self.timeout)
        sessions, self._session, self._posts = (self._session, self._posts), None, None
        for session in sessions:
            if session is not None:
                await session.close()
        if self._record_threads is not None:
            self._record_threads.shutdown(wait=False)
            self._record_threads = None

    async def __aenter__(self) -> AsyncKlingClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --- driving ---------------------------------------------------------------------------

    async def drive(self, flow: Flow[T], on_update: OnUpdate | None = None) -> T:
        """Carries out the effects of a flow; what one raises is raised in the flow."""
        result: Any = None
        raised: BaseException | None = None
        try:
            while True:
                try:
                    effect = flow.send(result) if raised is None else flow.throw(raised)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]
                result = raised = None
                try:
                    result = await self._carry_out(effect, on_update)
                except BaseException as error:  # noqa: BLE001 (the flow decides)
                    raised = error
        finally:
            flow.close()

    async def _carry_out(self, effect: Effect, on_update: OnUpdate | None) -> Any:
        match effect:
            case Ask(call, likelihood):
                try:
                    return await self.exchange(call, likelihood)
                except asyncio.CancelledError:
                    if call.method == "POST":  # the loop ends: nothing can wait for the reply
                        log.warning(
                            "A POST was cut off: it may have been taken and paid. Its client "
                            "request id is %s.",
                            call.headers.get("X-Client-Request-Id"),
                        )
                    raise
            case Sleep(seconds):
                await asyncio.sleep(self.clock.real(seconds))
            case Report(progress):
                report(progress, on_update)
            case OnDisk(work):
                if self._record_threads is None:
                    self._record_threads = ThreadPoolExecutor(_RECORD_THREADS, "kling-records")
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._record_threads, work)
            case Transfer():
                from ..storage import download

                return await asyncio.to_thread(download.fetch, effect, self.clock)
        return None

    # --- carrying --------------------------------------------------------------------------

    async def exchange(self, call: Call, likelihood: Likelihood | None = None) -> Outcome:
        """One HTTP exchange; whatever happens comes back as an Outcome.

        It waits for its turn first, polls by their ``likelihood``, what has none before them.
        """
        await self._gate.turn(likelihood)
        try:
            if call.method == "POST":
                self.check_submitting()  # after the turn, which may have taken long
                # As in KlingClient: a POST gets a connection of its own.
                if self._posts is None:
                    self._posts = aiohttp_transport.new_session(self._connections, fresh=True)
                return await aiohttp_transport.exchange(self._posts, call, self.timeout)
            if self._session is None:
                self._session = aiohttp_transport.new_session(self._connections)
            return await aiohttp_transport.exchange(self._session, call, self.timeout)
        finally:
            self._gate.done()


def _log_orphan(task: asyncio.Task[Generation]) -> None:
    if not task.cancelled() and task.exception() is None:
        log.warning(
            "Generation %s was submitted and is billed; the caller that asked for it has gone.",
            task.result().id,
        )
