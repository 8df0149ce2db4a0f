"""AsyncKlingClient: the core on ``aiohttp``. Thousands of waits share one session and one loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..concealed import secret
from ..errors import StoppedWaiting
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
    import aiohttp


T = TypeVar("T")
log = logging.getLogger(__name__)

# Threads that read and write records. They are not the loop's own, which downloads can fill for
# minutes: an id that is paid for must not wait behind a download.
_RECORD_THREADS = 4


class AsyncKlingClient(BaseClient):
    """The verbs of KlingClient as coroutines. Share it in an event loop; each loop that uses it
    (``asyncio.run`` makes one each time) gets connections and limits of its own.

    ``connections`` bounds the requests under way at once, ``max_requests_per_second`` those that
    leave in a second (of the gateway; None: as many as come): any number of generations can wait,
    and where more are due than may ask, those likeliest to be done go first (``request_queue``).
    The other arguments are those of KlingClient. A cancelled ``submit`` that has sent nothing sends
    nothing later; a POST that has left is let finish, and its id is written to the ledger, or
    logged.
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
        self._rate = max_requests_per_second
        Gate(self.clock, connections, max_requests_per_second)  # raises for limits that cannot be
        self._loops: dict[asyncio.AbstractEventLoop, _OnLoop] = {}
        self._record_threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    # --- verbs -----------------------------------------------------------------------------

    async def submit(
        self,
        request: VideoRequest,
        *,
        new: bool = False,
        take: int = 1,
        client_request_id: str | None = None,
        resubmit: str | None = None,
    ) -> Generation:
        """As KlingClient.submit; a cancellation does not tear the POST."""
        self._check_before_submit(request, take, client_request_id, new)
        flow = self._flows.submit(
            request,
            new=new,
            take=take,
            client_request_id=client_request_id,
            resubmit=resubmit,
        )
        return await _shielded(*self._started(flow))

    async def submit_until(
        self, stop: asyncio.Event, request: VideoRequest, *, new: bool = False, take: int = 1
    ) -> Generation | None:
        """As ``submit``, but nothing leaves once ``stop`` is set: None then.

        A POST that has left by then is waited for.
        """
        self._check_before_submit(request, take, None, new)
        task, submission = self._started(self._flows.submit(request, new=new, take=take))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                _stop(task, submission)
                await asyncio.wait([task])
        except asyncio.CancelledError:
            _stop(task, submission)
            task.add_done_callback(_log_orphan)
            raise
        finally:
            stopping.cancel()
        return None if task.cancelled() else task.result()

    def _started(self, flow: Flow[Generation]) -> tuple[asyncio.Task[Generation], Submission]:
        here, submission = self._here(), Submission()
        task = asyncio.ensure_future(self._submitting(flow, submission))
        here.submits[task] = submission
        task.add_done_callback(here.submits.pop)
        return task, submission

    async def _submitting(self, flow: Flow[Generation], submission: Submission) -> Generation:
        try:
            return await self.drive(flow, submission=submission)
        except StoppedWaiting as stopped:  # a KeyboardInterrupt: it would end the loop
            if stopped.generation_id:
                log.warning(
                    "Generation %s may have been taken and paid; the caller that asked for it has "
                    "gone.",
                    stopped.generation_id,
                )
            elif self._submitting_ended.is_set():
                self.check_submitting()
            raise asyncio.CancelledError from None

    async def get(self, generation_id: str) -> Generation:
        """As KlingClient.get."""
        return await self.drive(self._flows.get(generation_id))

    async def wait(
        self,
        generation_id: str,
        *,
        timeout: float | timedelta | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109 (ends with a last poll, not a cancel)
        on_update: OnUpdate | None = None,
        poll_interval: float | timedelta | None = None,
        schedule: Schedule | None = None,
        elapsed: float | None = None,
    ) -> Generation:
        """As KlingClient.wait."""
        check_wait(timeout, poll_interval, on_update, schedule, elapsed)
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
        timeout: float | timedelta | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109
        on_update: OnUpdate | None = None,
        poll_interval: float | timedelta | None = None,
        new: bool = False,
        take: int = 1,
    ) -> Generation:
        """As KlingClient.generate."""
        check_wait(timeout, poll_interval, on_update)
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
        check_callable(progress, "progress")
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
        """Lets POSTs under way finish, then closes the connections; it can be used again."""
        here = self._loops.get(asyncio.get_running_loop())
        if here is not None and here.submits:
            await asyncio.wait(list(here.submits), timeout=self.timeout)
        with self._lock:
            loops, self._loops = self._loops, {}
            threads, self._record_threads = self._record_threads, None
        for loop, each in loops.items():
            if each is here:
                await each.close()
            elif loop.is_closed():
                each.drop()
            else:
                with suppress(RuntimeError):  # it ends at this moment
                    asyncio.run_coroutine_threadsafe(each.close(), loop)
        if threads is not None:
            threads.shutdown(wait=False)

    def end_submitting(self) -> None:
        """As KlingClient.end_submitting; what waits for its turn ends at once."""
        super().end_submitting()
        for loop, each in list(self._loops.items()):
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(each.stop_submits)

    def after_fork(self) -> None:
        super().after_fork()
        PARENTS.append((self._loops, self._record_threads))
        self._loops, self._record_threads, self._lock = {}, None, threading.Lock()

    def _here(self) -> _OnLoop:
        """What belongs to the running loop; of loops that have been closed nothing is kept."""
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            with self._lock:
                for other in [each for each in self._loops if each.is_closed()]:
                    self._loops.pop(other).drop()
                gate = Gate(self.clock, self._connections, self._rate)
                here = self._loops[loop] = _OnLoop(gate, self._connections)
        return here

    async def __aenter__(self) -> AsyncKlingClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --- driving ---------------------------------------------------------------------------

    async def drive(
        self,
        flow: Flow[T],
        on_update: OnUpdate | None = None,
        submission: Submission | None = None,
    ) -> T:
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
                    result = await self._carry_out(effect, on_update, submission)
                except GeneratorExit:  # the loop was closed: nothing can be awaited any more
                    raise
                except BaseException as error:  # noqa: BLE001 (the flow decides)
                    raised = error
        finally:
            flow.close()

    async def _carry_out(
        self, effect: Effect, on_update: OnUpdate | None, submission: Submission | None
    ) -> Any:
        match effect:
            case Ask(call, likelihood, before) if call.method == "POST":
                return await self._post(call, likelihood, before, submission or Submission())
            case Ask(call, likelihood):
                return await self.exchange(call, likelihood)
            case Sleep(seconds):
                pause = asyncio.sleep(self.clock.real(seconds))
                if submission is None:
                    await pause
                else:
                    await _stoppable(pause, submission)
            case Report(progress):
                report(progress, on_update)
            case OnDisk(work):
                written = self._in_record_thread(work)
                if written is None:
                    return work()
                return await (written if submission is None else _finished(written, submission))
            case Transfer():
                from ..storage import download

                return await asyncio.to_thread(download.fetch, effect, self.clock)
        return None

    def _in_record_thread(self, work: Callable[[], Any]) -> asyncio.Future[Any] | None:
        """None once the interpreter ends: no thread takes work any more, and an id cannot wait."""
        with self._lock:
            if self._record_threads is None:
                self._record_threads = ThreadPoolExecutor(_RECORD_THREADS, "kling-records")
        try:
            return asyncio.get_running_loop().run_in_executor(self._record_threads, work)
        except RuntimeError:
            return None

    async def _post(
        self,
        call: Call,
        likelihood: Likelihood | None,
        before: Callable[[], None] | None,
        submission: Submission,
    ) -> Outcome:
        self.check_submitting()
        token = BEFORE_POST.set(partial(self.leave, call, before, submission))
        try:
            return await _stoppable(self.exchange(call, likelihood), submission)
        except asyncio.CancelledError:  # the loop ends: nothing can wait for the reply
            log.warning(
                "A POST was cut off: it may have been taken and paid. Its client request id is %s.",
                submission.client_request_id,
            )
            raise
        finally:
            submission.is_under_way = False
            BEFORE_POST.reset(token)

    # --- carrying --------------------------------------------------------------------------

    async def exchange(self, call: Call, likelihood: Likelihood | None = None) -> Outcome:
        """One HTTP exchange; whatever happens comes back as an Outcome.

        It waits for its turn first, polls by their ``likelihood``, what has none before them.
        """
        here = self._here()
        await here.gate.turn(likelihood)
        try:
            if call.method == "POST":
                self.check_submitting()  # after the turn, which may have taken long
                # As in KlingClient: a POST gets a connection of its own.
                session = here.session(fresh=True)
            else:
                session = here.session(fresh=False)
            return await aiohttp_transport.exchange(session, call, self.timeout)
        finally:
            here.gate.done()


class _OnLoop:
    """What a client has on one event loop: connections, the line for them, submits under way."""

    def __init__(self, gate: Gate, connections: int) -> None:
        self.gate = gate
        self.submits: dict[asyncio.Task[Generation], Submission] = {}
        self._connections = connections
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def session(self, *, fresh: bool) -> aiohttp.ClientSession:
        """Connections for POSTs are ``fresh``, each used once."""
        if fresh not in self._sessions:
            self._sessions[fresh] = aiohttp_transport.new_session(self._connections, fresh)
        return self._sessions[fresh]

    def stop_submits(self) -> None:
        for task, submission in list(self.submits.items()):
            _stop(task, submission)

    async def close(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def drop(self) -> None:
        """Closes what can be closed once the loop is."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            connector = session.connector
            session.detach()
            if connector is not None:
                with suppress(StopIteration, RuntimeError):  # there is nothing to wait for
                    next(connector.close().__await__())


async def _shielded(task: asyncio.Task[Generation], submission: Submission) -> Generation:
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        _stop(task, submission)
        task.add_done_callback(_log_orphan)
        raise


def _stop(task: asyncio.Task[Generation], submission: Submission) -> None:
    """Ends a submit that has sent nothing; a POST that has left is let finish."""
    submission.stop.set()
    if submission.can_be_cut:
        task.cancel()


async def _stoppable(work: Coroutine[Any, Any, T], submission: Submission) -> T:
    """Work that may be cut off as long as nothing has left: StoppedWaiting then."""
    try:
        submission.check()
    except StoppedWaiting:
        work.close()
        raise
    submission.can_be_cut = True
    try:
        return await work
    except asyncio.CancelledError:
        if submission.is_under_way:
            raise
        submission.stop.set()
        raise StoppedWaiting() from None
    finally:
        submission.can_be_cut = False


async def _finished(written: asyncio.Future[T], submission: Submission) -> T:
    """What came of writing a record: a cancellation does not leave open what is written."""
    while not written.done():
        try:
            await asyncio.wait([written])
        except asyncio.CancelledError:
            submission.stop.set()
    return written.result()


def _log_orphan(task: asyncio.Task[Generation]) -> None:
    if not task.cancelled() and task.exception() is None:
        log.warning(
            "Generation %s was submitted and is billed; the caller that asked for it has gone.",
            task.result().id,
        )
