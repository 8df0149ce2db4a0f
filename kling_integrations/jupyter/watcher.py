"""The watcher: one thread and one event loop per kernel carry every generation of it.

The kernel's main thread only waits for it. An interrupt hits the main thread alone, so neither a
POST under way nor the id in its reply can be lost by one. Nothing here prints, and nothing here
touches an ``Output`` widget: text of a thread lands in whatever cell runs at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import shutil
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..core import settings
from ..core.errors import DownloadError, KlingError
from ..core.generation import Generation, Status
from ..core.http.async_client import AsyncKlingClient
from ..core.storage.ledger import Ledger
from ..core.submission import Entry
from .job import Job, Phase
from .result import KlingVideo, look

log = logging.getLogger(__name__)
# Python's handler of last resort would print into whatever cell runs at that moment.
logging.getLogger("kling_integrations").addHandler(logging.NullHandler())
_LAST_WORDS = 3.0  # seconds that a POST under way has to bring its id when the kernel ends


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
        self.jobs: list[Job] = []
        self._at_once = at_once
        self._running = 0
        self._room: asyncio.Condition | None = None
        self._clients: dict[tuple[str, str, bool], AsyncKlingClient] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._end: weakref.finalize[Any, Any] | None = None

    # --- called by the notebook ------------------------------------------------------------

    def start(self, job: Job) -> Job:
        """Carries the job, or gives back the one that is already after the same thing.

        Raises AuthenticationError and InvalidRequestError for what the settings say.
        """
        base_url = settings.base_url()
        key = settings.api_key(url=base_url)
        with self._lock:
            if not job.new:
                for other in self.jobs:
                    if _same(job, other, base_url) and not other.done() and not other.stop_asked:
                        return other
            speed = settings.clock_for(base_url).speed
            job.bound(base_url, settings.is_sandbox(base_url), speed)
            self.jobs.append(job)
        self._spawn(self._carry(job, base_url, key))
        return job

    @property
    def at_once(self) -> int:
        return self._at_once

    @at_once.setter
    def at_once(self, number: int) -> None:
        self._at_once = number
        if self._loop is not None:
            self._spawn(self._room_changed())

    def close(self) -> None:
        """Ends the thread. Generations go on at the gateway, and the ledger knows them."""
        if self._end is not None:
            self._end()

    # --- its own thread --------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._start_thread()
            assert self._loop is not None
            # In a context of its own: the caller's names the running cell as the parent of all
            # messages, also when that cell has long ended.
            run = self._context().run
            return run(asyncio.run_coroutine_threadsafe, work, self._loop)

    def _start_thread(self) -> None:
        loop = asyncio.new_event_loop()
        loop.set_default_executor(ThreadPoolExecutor(8, thread_name_prefix="kling-disk"))
        self._loop, self._room, self._clients = loop, asyncio.Condition(), {}

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_forever()

        thread = threading.Thread(target=run, name="kling-watcher", daemon=True)
        thread.start()
        # Runs at the latest when the interpreter ends, and holds no reference to the watcher.
        self._end = weakref.finalize(self, _end, loop, thread, self._clients)
        # At interpreter exit that is too late to write an id down: the pool of threads that
        # touch the disk is closed before. Python has no public hook for the moment before; in
        # this one the last to register, which is after the pools, is the first to be called.
        if register := getattr(threading, "_register_atexit", None):
            register(self._end)

    def _client(self, base_url: str, key: str, legacy: bool) -> AsyncKlingClient:
        """One for each gateway and key: a notebook may change both on its way."""
        of = (base_url, key, legacy)
        if of not in self._clients:
            self._clients[of] = AsyncKlingClient(
                key, base_url, ledger=self.ledger, legacy_endpoint=legacy
            )
        return self._clients[of]

    async def _room_changed(self) -> None:
        assert self._room is not None
        async with self._room:
            self._room.notify_all()

    @contextlib.asynccontextmanager
    async def _turn(self, stop: asyncio.Event, *, free: bool) -> Any:
        """Waits until fewer than ``at_once`` generations run, or the user stops waiting.

        ``free``: there is a generation already, so waiting for it needs no place.
        """
        assert self._room is not None
        if free:
            yield
            return
        async with self._room:
            await self._room.wait_for(lambda: self._running < self._at_once or stop.is_set())
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            await self._room_changed()

    async def _carry(self, job: Job, base_url: str, key: str) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def stopping() -> None:
            stop.set()
            await self._room_changed()

        job.stoppable(lambda: _quietly(stopping(), loop))
        if job.stop_asked:
            stop.set()
        ticking = asyncio.create_task(_tick(job))
        try:
            async with self._turn(stop, free=await asyncio.to_thread(self._is_there, job)):
                if stop.is_set():
                    job.stopped()
                    return
                video = await self._made(job, self._client(base_url, key, job.legacy), stop)
            if video is None:
                job.stopped()
            else:
                job.succeeded(video)
        except asyncio.CancelledError:  # the kernel ends, or the extension is unloaded
            job.stopped()
            raise
        except KlingError as error:
            job.failed(error)
        except Exception as error:  # the user must hear of it, whatever it is
            log.exception("The watcher failed with %r", job)
            job.failed(error)
        finally:
            ticking.cancel()
            with self._lock:
                self.jobs.remove(job)

    def _is_there(self, job: Job) -> bool:
        if job.request is None or job.new:
            return job.request is None
        entry = self.ledger.standing(job.request, job.base_url, take=job.take)
        return entry is not None and entry.record.state in ("submitted", "completed")

    async def _made(
        self, job: Job, client: AsyncKlingClient, stop: asyncio.Event
    ) -> KlingVideo | None:
        """The finished video; None when the user stopped waiting."""
        if job.id is None:
            assert job.request is not None
            job.enters(Phase.SUBMITTING)
            job.submitted(await client.submit(job.request, new=job.new, take=job.take))
        else:
            job.submitted(Generation(id=job.id, status=Status.UNKNOWN))
        assert job.id is not None
        entry = await asyncio.to_thread(self.ledger.entry, job.base_url, job.id)
        if entry and entry.saved_path:
            job.reused = True
            path = await asyncio.to_thread(_within_reach, entry.saved_path, job)
            return await asyncio.to_thread(_described, job, path, entry, None)
        waiting = asyncio.create_task(
            client.wait(job.id, timeout=job.timeout, on_update=job.progressed)
        )
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([waiting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                return None
            generation = waiting.result()
        finally:
            stopping.cancel()
            waiting.cancel()
        job.generation = generation
        job.enters(Phase.DOWNLOADING)
        saved = await client.save(generation, job.place(job))
        entry = await asyncio.to_thread(self.ledger.entry, job.base_url, job.id)
        return await asyncio.to_thread(_described, job, saved.path, entry, saved.sha256)


def _same(job: Job, other: Job, base_url: str) -> bool:
    """Whether both are after the same paid thing."""
    if other.base_url != base_url:
        return False
    if job.request is None:
        return other.id == job.id
    return other.request == job.request and other.take == job.take


def _within_reach(saved: Path, job: Job) -> Path:
    """A file that an earlier run saved, also where this notebook can link to it."""
    wanted = job.place(job)
    if wanted.exists() and wanted.samefile(saved):
        return saved
    aside = wanted.with_name(f".{wanted.name}.{threading.get_ident()}.part")
    try:
        shutil.copyfile(saved, aside)
        aside.replace(wanted)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise DownloadError(
            f"{saved} cannot be copied to {wanted}: {error.strerror}.", generation_id=job.id
        ) from None
    return wanted


def _described(job: Job, path: Path, entry: Entry | None, sha256: str | None) -> KlingVideo:
    assert job.id is not None
    usage = job.generation.usage if job.generation else None
    seen = look(path)
    request = dict(entry.request) if entry else {"prompt": job.prompt, **job.params}
    model = request.pop("model", None) or job.model
    progress = job.progress
    return KlingVideo(
        id=job.id,
        path=path,
        model=str(model),
        prompt=request.pop("prompt", None),
        params=request,
        usage=usage.to_json() if usage else (entry.usage if entry else {}),
        created=entry.submitted_at or entry.record.created_at if entry else job.started,
        elapsed=entry.elapsed if entry else None,
        polls=progress.polls if progress else None,
        sha256=sha256 or (entry.sha256 if entry else None),
        size=path.stat().st_size,
        duration=seen.duration,
        width=seen.width,
        height=seen.height,
        poster=seen.poster,
        sandbox=job.sandbox,
    )


async def _tick(job: Job) -> None:
    """Elapsed time moves on every second; how often the gateway is asked is another matter."""
    while True:
        await asyncio.sleep(1.0)
        job.changed()


def _quietly(work: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
    try:
        asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:  # the loop has ended, and with it the wait
        work.close()


def _end(
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    clients: dict[tuple[str, str, bool], AsyncKlingClient],
) -> None:
    """Lets a POST under way bring its id, for a moment, then stops the loop."""

    async def last_words() -> None:
        me = asyncio.current_task()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_LAST_WORDS):
                for client in clients.values():
                    await client.close()
        for task in asyncio.all_tasks():
            if task is not me:
                task.cancel()
        await asyncio.sleep(0)

    if not loop.is_running():
        return
    with contextlib.suppress(Exception):
        asyncio.run_coroutine_threadsafe(last_words(), loop).result(_LAST_WORDS + 1)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(1.0)
    if not thread.is_alive():
        loop.close()
