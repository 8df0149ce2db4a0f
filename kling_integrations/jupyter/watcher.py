"""The watcher: one thread and one event loop per kernel carry every generation of it.

The kernel's main thread only waits for it. An interrupt hits the main thread alone, so neither a
POST under way nor the id in its reply can be lost by one. For the same reason jobs are registered
by the watcher's thread: there is no moment at which an interrupt could leave one that is known
but does not run. Nothing here prints, and nothing here touches an ``Output`` widget: text of a
thread appears in whatever cell runs at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..core import settings
from ..core.errors import KlingError, LedgerError, WaitTimeoutError
from ..core.generation import Generation, Saved, Status
from ..core.http.async_client import AsyncKlingClient
from ..core.http.client import INTERRUPT_GRACE
from ..core.progress import ago
from ..core.storage import safe_files, saved_files
from ..core.storage.ledger import Ledger
from ..core.storage.owner import colleague
from ..core.submission import Entry
from .frontend import in_notebook, write
from .hints import new_word
from .job import Job, JobStatus
from .targets import Target
from .video import KlingVideo

log = logging.getLogger(__name__)
# Python's handler of last resort would print into whatever cell runs at that moment.
logging.getLogger("kling_integrations").addHandler(logging.NullHandler())

T = TypeVar("T")

_WITHDRAWAL = 0.5  # seconds that a job takes at most to end where nothing of it has left
_SHUTDOWN_GRACE = 3.0  # seconds that a POST under way has to bring its id when the kernel ends


class Watcher:
    """Starts its thread with the first job. ``at_once`` bounds the generations side by side."""

    def __init__(
        self,
        ledger: Ledger,
        at_once: int = 5,
        context: Callable[[], contextvars.Context] = contextvars.Context,
    ) -> None:
        """``context`` makes the one that a job runs in; it must not be that of a cell."""
        self.ledger = ledger
        self._context = context
        self._at_once = at_once
        self._ledgers: dict[str, Ledger] = {}
        self._tasks: dict[Job, asyncio.Task[None]] = {}  # changed by the watcher's thread only
        self._lock = threading.Lock()
        self._thread: _Thread | None = None

    # --- called by the notebook ------------------------------------------------------------

    @property
    def jobs(self) -> list[Job]:
        """The jobs that are not over, the oldest first."""
        return [job for job in list(self._tasks) if not job.done()]

    def start(self, job: Job) -> Job:
        """Carries the job, or gives back the one that is already after the same thing.

        Raises AuthenticationError without a key, and KlingError where no thread can be started;
        nothing was submitted then. After an interrupt, ``carrier`` says which job runs.
        """
        key = settings.api_key(url=job.base_url)
        # A home that is changed while the job runs must not part its intent from its id.
        job.ledger = self._ledgers.setdefault(self.ledger.source, Ledger(self.ledger.source))
        thread = self._running_thread()
        registered: Future[Job] = Future()
        # In a context of its own: the caller's names the running cell as the parent of all
        # messages, also when that cell has long ended.
        thread.loop.call_soon_threadsafe(
            self._register, thread, job, key, registered, context=self._context()
        )
        return registered.result()

    def carrier(self, job: Job) -> Job:
        """The running job that is after the same thing, else the job itself."""
        return self._same(job) or job

    @property
    def at_once(self) -> int:
        return self._at_once

    @at_once.setter
    def at_once(self, number: int) -> None:
        self._at_once = number
        with self._lock:
            if self._thread is not None:
                self._thread.wake_waiting()

    def close(self) -> None:
        """Ends the thread. Generations go on at the gateway, and the ledger knows them."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.end()
            self._abandon_tasks()

    # --- its own thread --------------------------------------------------------------------

    def _running_thread(self) -> _Thread:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._abandon_tasks()  # of a thread that ended, or that a fork left behind
                # Known only once it runs: what an interrupt leaves half-made is never used.
                self._thread = _Thread.started(self)
            return self._thread

    def _abandon_tasks(self) -> None:
        """No job may outlive its thread: later cells would wait for it for ever."""
        for job in self.jobs:
            self._cut_off(job)
        self._tasks.clear()

    def _register(self, thread: _Thread, job: Job, key: str, registered: Future[Job]) -> None:
        try:
            other = self._same(job)
            if other is not None and other is not job:
                other.join(job)
            elif other is None:
                self._tasks[job] = thread.loop.create_task(self._carry(thread, job, key))
            registered.set_result(other or job)
        except BaseException as error:  # noqa: BLE001 (raised again by the caller, who waits)
            registered.set_exception(error)

    def _same(self, job: Job) -> Job | None:
        """The job under way that is after the same paid thing, or None."""
        if job in self._tasks:
            return job
        for other in self.jobs:
            over = other.stop_requested or other.is_complete
            if not (job.new or over) and _same_thing(job, other):
                return other
        return None

    async def _carry(self, thread: _Thread, job: Job, key: str) -> None:
        stop, withdraw = asyncio.Event(), asyncio.Event()
        ticking = asyncio.create_task(_tick(job))
        try:
            job.on_stop(lambda: thread.stop(stop), lambda: thread.stop(withdraw))
            client = thread.client(job.base_url, key, job.ledger)
            needs_slot = await thread.on_records(self._pays, job)
            async with self._slot(thread, stop, needed=needs_slot):
                video = await self._make(thread, job, client, stop, withdraw)
            if video is None:
                job.stopped()
            else:
                job.succeeded(video)
        except asyncio.CancelledError:  # the kernel ends, or the extension is unloaded
            self._cut_off(job)
            raise
        except KlingError as error:
            job.failed(error)
        except Exception as error:  # any other error must reach the user, too
            log.exception("The watcher failed with %r", job)
            job.failed(error)
        finally:
            ticking.cancel()
            self._tasks.pop(job, None)

    @contextlib.asynccontextmanager
    async def _slot(
        self, thread: _Thread, stop: asyncio.Event, *, needed: bool
    ) -> AsyncIterator[None]:
        """Waits until fewer than ``at_once`` generations run, or the user stops waiting.

        Not ``needed`` where there is a generation already.
        """
        if not needed:
            yield
            return
        async with thread.slots:
            await thread.slots.wait_for(lambda: thread.slots_taken < self._at_once or stop.is_set())
            thread.slots_taken += 1
        try:
            yield
        finally:
            thread.slots_taken -= 1
            thread.wake_waiting()

    def _pays(self, job: Job) -> bool:
        """Whether the job would submit something now."""
        if job.request is None:
            return False
        return job.ledger.preview(job.request, job.base_url, new=job.new, take=job.take).pays

    async def _make(
        self,
        thread: _Thread,
        job: Job,
        client: AsyncKlingClient,
        stop: asyncio.Event,
        withdraw: asyncio.Event,
    ) -> KlingVideo | None:
        """The finished video; None when the user stopped waiting."""
        if job.id is not None:
            job.submitted(Generation(id=job.id, status=Status.UNKNOWN))
        elif job.request is not None and job.begin_submitting():
            submitted = await client.submit_until(withdraw, job.request, new=job.new, take=job.take)
            if submitted is None:
                job.withdrawn()
                return None
            job.submitted(submitted)
        else:
            return None
        entry = await thread.on_records(self._entry, job)
        if entry is not None and (by := colleague(entry)):
            job.remarks.append(
                f"Made by {by}, {ago(entry.age)} ago; {new_word()} pays for another one."
            )
        saved = await self._reuse(thread, job, entry)
        if saved is not None and entry is not None:
            job.reused = True
            generation = entry.generation()
        else:
            finished = await _wait(job, client, stop)
            if finished is None:
                return None
            generation = job.generation = finished
            job.advance(JobStatus.DOWNLOADING)
            async with self._cleared(thread, job, job.target) as path:
                saved = await client.save(generation, path)
            entry = await thread.on_records(self._entry, job)
        while job.other_targets:
            await self._copy(thread, job, saved, job.other_targets.pop(0))
        job.is_complete = True
        progress = job.progress
        return await asyncio.to_thread(
            KlingVideo.from_file,
            saved,
            generation,
            job.base_url,
            entry=entry,
            summary=job.summary,
            polls=progress.polls if progress else None,
        )

    async def _reuse(self, thread: _Thread, job: Job, entry: Entry | None) -> Saved | None:
        """The video that an earlier run saved, also where this job wants it."""
        if await asyncio.to_thread(saved_files.saved_file, entry) is None:
            return None
        async with self._cleared(thread, job, job.target) as path:
            return await asyncio.to_thread(saved_files.reuse, entry, path)

    async def _copy(self, thread: _Thread, job: Job, saved: Saved, target: Target) -> None:
        """The saved video also where a later cell wants it; a failure is a remark, no loss."""
        try:
            async with self._cleared(thread, job, target) as path:
                await asyncio.to_thread(safe_files.copy, saved.path, path)
        except (KlingError, OSError) as error:
            job.remarks.append(f"The video could not be copied to {target.file}: {error}")

    @contextlib.asynccontextmanager
    async def _cleared(self, thread: _Thread, job: Job, target: Target) -> AsyncIterator[Path]:
        """The file of a target, cleared of other paid videos. One job at a time writes it."""
        assert job.id is not None
        wanted = await asyncio.to_thread(target.path, job.prompt, job.id, job.take)
        async with thread.files.setdefault(wanted, asyncio.Lock()):
            path, remark = await asyncio.to_thread(target.clear, job.ledger, wanted, job.id)
            if remark:
                log.warning("%s", remark)
                job.remarks.append(remark)
            yield path

    def _entry(self, job: Job) -> Entry | None:
        """The record of the job's generation. Once something is paid, a ledger out of order is
        no reason to lose it."""
        assert job.id is not None
        try:
            return job.ledger.entry(job.base_url, job.id)
        except LedgerError as error:
            log.warning("%s", error.message)
            return None

    def _cut_off(self, job: Job) -> None:
        """The job ends because its thread does; its record says what it submitted."""
        client_request_id = None
        if job.outcome_unknown and job.request is not None:
            with contextlib.suppress(LedgerError):
                entry = job.ledger.preview(job.request, job.base_url, take=job.take).entry
                if entry is not None and entry.generation_id:
                    job.submitted(entry.generation())
                elif entry is not None:
                    client_request_id = entry.record.client_request_id
        job.stopped(client_request_id)


class _Thread:
    """The thread, its event loop, and what lives as long as they do."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.slots = asyncio.Condition()
        self.slots_taken = 0
        self.files: dict[Path, asyncio.Lock] = {}  # that jobs write, by name
        self._clients: dict[tuple[str, str, str], AsyncKlingClient] = {}
        # Downloads and copies can fill the first pool; looking up a record waits for neither.
        self._downloads = ThreadPoolExecutor(8, thread_name_prefix="kling-disk")
        self._records = ThreadPoolExecutor(2, thread_name_prefix="kling-records")
        self.loop.set_default_executor(self._downloads)
        self._thread = threading.Thread(target=self._run, name="kling-watcher", daemon=True)
        self.end: Callable[[], Any] = self._end

    @classmethod
    def started(cls, owner: Watcher) -> _Thread:
        """One that runs, and that ends with its owner and the interpreter at the latest."""
        made = cls()
        made.end = weakref.finalize(owner, made._end)
        try:
            made._thread.start()
        except BaseException as error:
            made.loop.call_soon_threadsafe(made.loop.stop)  # an interrupt came after its start
            if isinstance(error, RuntimeError):
                raise KlingError(
                    f"The notebook's background thread does not start: {error}. "
                    "Nothing was submitted."
                ) from error
            raise
        # At interpreter exit that is too late to write an id down: the pool of threads that
        # touch the disk is closed before. Python has no public hook for the moment before; in
        # this one the last to register, which is after the pools, is the first to be called.
        if register := getattr(threading, "_register_atexit", None):
            register(made.end)
            register(partial(_wait_for_ids, weakref.ref(owner)))  # called before it
        return made

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def client(self, base_url: str, key: str, ledger: Ledger) -> AsyncKlingClient:
        """One for each gateway, key and ledger: a notebook may change all on its way."""
        made = self._clients.get((base_url, key, ledger.source))
        if made is None:
            made = AsyncKlingClient(key, base_url, ledger=ledger)
            self._clients[base_url, key, ledger.source] = made
        return made

    async def on_records(self, work: Callable[[Job], T], job: Job) -> T:
        """Reads of the ledger: quick, and never behind a download."""
        return await self.loop.run_in_executor(self._records, work, job)

    def stop(self, event: asyncio.Event) -> None:
        """Sets a job's stop event, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the wait
            self.loop.call_soon_threadsafe(event.set)
            self.wake_waiting()

    def wake_waiting(self) -> None:
        """Lets the jobs that wait for a slot look again."""

        async def notify() -> None:
            async with self.slots:
                self.slots.notify_all()

        work = notify()
        try:
            asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop has ended
            work.close()

    def _end(self) -> None:
        """Lets a POST under way bring its id, for a moment, then stops the loop."""
        if not self.loop.is_running():
            return
        with contextlib.suppress(Exception):
            shutdown = asyncio.run_coroutine_threadsafe(self._shut_down(), self.loop)
            shutdown.result(_SHUTDOWN_GRACE + 2)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self.loop.close()
        for pool in (self._downloads, self._records):
            pool.shutdown(wait=False)

    async def _shut_down(self) -> None:
        await self._close_clients(_SHUTDOWN_GRACE)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=1.0)
        await self._close_clients(0.5)  # those whose POST was not over in time

    async def _close_clients(self, seconds: float) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(seconds):
                for client in self._clients.values():
                    await client.close()


def _wait_for_ids(owner: weakref.ref[Watcher]) -> None:
    """At the end of a script: what it has asked for is submitted, or it is said what was not.

    A notebook's kernel is not to take so long to end; it says so by itself.
    """
    watcher = owner()
    if watcher is None or in_notebook():
        return
    jobs = [job for job in watcher.jobs if job.id is None]
    deadline = time.monotonic() + INTERRUPT_GRACE
    for job in jobs:
        job.wait_for_id(deadline - time.monotonic())
    jobs = [job for job in jobs if job.id is None]
    for job in jobs:
        job.withdraw()
    for job in jobs:  # what has not left is over at once
        job.wait_for_id(_WITHDRAWAL)
    unknown = [job for job in jobs if job.id is None and job.outcome_unknown]
    unsent = [job for job in jobs if job.id is None and not job.outcome_unknown]
    if unsent:
        plural = "job was" if len(unsent) == 1 else "jobs were"
        write(sys.stderr, f"kling: {len(unsent)} {plural} not submitted: the script ended before.")
    if unknown:
        write(
            sys.stderr,
            f"kling: {len(unknown)} of what was submitted had no reply when the script ended, and "
            "may have been paid. kling_integrations.recover() looks it up.",
        )


def _same_thing(job: Job, other: Job) -> bool:
    """Whether both are after the same paid generation."""
    if other.base_url != job.base_url:
        return False
    if job.request is None:
        return other.id == job.id
    return other.request == job.request and other.take == job.take


async def _wait(job: Job, client: AsyncKlingClient, stop: asyncio.Event) -> Generation | None:
    """The finished generation; None when the user stopped waiting."""
    waiting = asyncio.create_task(_patiently(job, client))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([waiting, stopping], return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        stopping.cancel()
        waiting.cancel()


async def _patiently(job: Job, client: AsyncKlingClient) -> Generation:
    """The finished generation. A later cell may have given the job more time meanwhile."""
    assert job.id is not None
    waited = 0.0
    while True:
        limit = job.timeout
        try:
            return await client.wait(job.id, timeout=limit - waited, on_update=job.progressed)
        except WaitTimeoutError:
            if job.timeout <= limit:
                raise
            waited = limit


async def _tick(job: Job) -> None:
    """Elapsed time moves on every second; how often the gateway is asked is another matter."""
    while True:
        await asyncio.sleep(1.0)
        job.changed()
