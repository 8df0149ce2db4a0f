"""Job: one generation that the watcher carries, seen from the notebook."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..core import settings
from ..core.errors import (
    InvalidRequestError,
    KlingError,
    NextStep,
    SubmissionUncertainError,
    Verb,
    WaitTimeoutError,
)
from ..core.generation import Generation, Status
from ..core.progress import Progress
from ..core.request import VideoRequest
from ..core.storage.ledger import Ledger
from .errors import presentable
from .targets import Target
from .video import KlingVideo

log = logging.getLogger(__name__)
Listener = Callable[["Job"], object]


class JobStatus(StrEnum):
    """How far a job is. The gateway's own words where it has some."""

    WAITING_FOR_SLOT = "waiting for a slot"  # too many others run: nothing was submitted yet
    SUBMITTING = "submitting"
    QUEUED = "queued"
    GENERATING = "generating"
    DOWNLOADING = "downloading"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"  # the waiting ended, not the generation

    @property
    def is_over(self) -> bool:
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPED)


class Job:
    """A generation in the background of this kernel.

    ``.result()`` waits and gives the KlingVideo; ``await job`` does the same in a cell.
    ``.done()``, ``.status``, ``.id`` and ``.progress`` say how far it is, ``.stop_waiting()``
    ends the waiting: the generation goes on at the gateway, the ledger knows its id, and running
    the same cell again picks it up. All of it is safe from any thread.
    """

    def __init__(
        self,
        request: VideoRequest | None,
        *,
        base_url: str,
        target: Target,
        timeout: float,
        take: int = 1,
        new: bool = False,
        generation_id: str | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """For the Session, which starts jobs; users get theirs from ``submit`` and ``--bg``.

        ``target`` names the file once the id is known; ``timeout`` is in gateway seconds.
        Without a ``request``, ``generation_id`` is what was submitted before, and ``summary``
        what its record says of the request.
        """
        self.request = request
        self.summary = dict(request.summary() if request else summary or {})
        self.take = take
        self.new = new
        self.timeout = timeout
        self.target = target
        self.other_targets: list[Target] = []  # of cells that asked for it while it ran
        self.remarks: list[str] = []  # what a cell that waits for it says at the end
        self.base_url = base_url
        self.ledger = Ledger()  # the watcher's, from its start on
        self.sandbox = settings.is_sandbox(base_url)
        self.reused = False  # the file was here already
        self.attached = False  # the generation was submitted earlier
        self.detached = False  # its cell was interrupted, the watcher goes on
        self.is_complete = False  # the files are written: later cells need a job of their own
        self.stop_requested = False
        self.generation: Generation | None = None
        self.video: KlingVideo | None = None
        self.error: BaseException | None = None
        self.started = time.time()
        self.note = ""
        self.model = str(self.summary.get("model") or "a generation")
        self.prompt: str | None = self.summary.get("prompt")
        # Besides model and prompt; pictures as their hash.
        self.params = {k: v for k, v in self.summary.items() if k not in ("model", "prompt")}
        self._given_id = generation_id
        self._status = JobStatus.WAITING_FOR_SLOT
        self._post_began = False
        self._progress: Progress | None = None
        self._progress_at = 0.0  # monotonic
        self._speed = settings.clock_for(base_url).speed
        self._fraction = 0.0
        self._future: concurrent.futures.Future[KlingVideo] = concurrent.futures.Future()
        self._id_known = threading.Event()
        self._over = threading.Event()
        self._future.add_done_callback(lambda _: self._over.set())
        self._listeners: list[Listener] = []
        self._at_end: list[Callable[[], object]] | None = []  # None: it is over
        self._on_stop: Callable[[], None] | None = None
        self._on_withdraw: Callable[[], None] | None = None
        self._show: Callable[[Job], None] | None = None
        self._element: Callable[[Job], Any] | None = None
        self._lock = threading.Lock()

    # --- for users -------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The generation's id; None until the gateway has answered."""
        return self.generation.id if self.generation else self._given_id

    @property
    def status(self) -> JobStatus:
        """How far it is; compares equal to its word, such as ``"generating"``."""
        return self._status

    @property
    def path(self) -> Path | None:
        """The video's file; None before the end."""
        return self.video.path if self.video else None

    def done(self) -> bool:
        """Whether it ended: with a video, an error, or because the waiting was stopped."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> KlingVideo:
        """The finished video; waits ``timeout`` real seconds for it (None: as long as it takes).

        Raises TimeoutError when they have passed, and what ended the job otherwise:
        GenerationFailedError, WaitTimeoutError and the other KlingErrors.
        """
        # Small steps, so that an interrupt is noticed on every platform.
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.done():
            left = 0.25 if deadline is None else min(0.25, deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"{self!r} is not finished after {timeout:g} s; it goes on.")
            self._over.wait(left)
        if self.error is not None:
            raise presentable(self.error) from None
        return self._future.result()

    def exception(self) -> BaseException | None:
        """What ended a finished job, or None."""
        return self.error

    def add_done_callback(self, callback: Callable[[Job], object]) -> None:
        """Calls ``callback(job)`` at the end, in the watcher's thread: do not print there."""
        self._future.add_done_callback(lambda _: callback(self))

    def stop_waiting(self) -> None:
        """Ends the waiting. What was submitted goes on at the gateway (there is no cancel) and is
        billed when it completes; running the cell again picks it up."""
        with self._lock:
            self.stop_requested = True
            callbacks = (self._on_withdraw, self._on_stop)
        for callback in filter(None, callbacks):
            callback()

    def last_frame(self) -> Any:
        """The last picture of the result, for ``--image``.

        Raises InvalidRequestError while the job runs, else as ``result`` does.
        """
        if not self.done():
            raise InvalidRequestError(
                f"The job {self.id or ''} is still {self.status}: wait for it first.",
                hint="Its result() waits.",
            )
        return self.result().last_frame()

    def __await__(self) -> Generator[Any, None, KlingVideo]:
        async def wait() -> KlingVideo:
            done, _ = await asyncio.wait([asyncio.wrap_future(self._future)])
            for each in done:
                each.exception()  # is raised by result(), in its short form
            return self.result()

        return wait().__await__()

    def _ipython_display_(self) -> None:
        """As a cell's last line, how far it is from now on, then its player."""
        if self._show is None:
            raise NotImplementedError  # which IPython takes for: its repr
        self._show(self)

    def _display_(self) -> Any:
        """For marimo: what shows how far it is from now on, then its picture."""
        return self._element(self) if self._element else repr(self)

    def __repr__(self) -> str:
        known = f" {self.id}" if self.id else ""
        return f"<Job{known} {self.status} · {self.model}>"

    # --- how far it is ---------------------------------------------------------------------

    @property
    def progress(self) -> Progress | None:
        """The last poll, carried on to this moment; None before the first."""
        if self._progress is None:
            return None
        return self._progress.after((time.monotonic() - self._progress_at) * self.speed)

    @property
    def pace(self) -> str:
        """``0:42 of about 2:50`` while the gateway works on it, else empty."""
        progress = None if self._status.is_over else self.progress
        return progress.pace if progress else ""

    @property
    def elapsed(self) -> float:
        """Gateway seconds since the submit, as far as known."""
        progress = self.progress
        return progress.elapsed if progress else 0.0

    @property
    def speed(self) -> float:
        """Gateway seconds that pass in a real one; 0 where no time is counted."""
        return 0.0 if self._stands_still else self._speed

    @property
    def _stands_still(self) -> bool:
        return self._status.is_over or self._status is JobStatus.DOWNLOADING

    @property
    def expected(self) -> float | None:
        """Gateway seconds that it is expected to take in all."""
        return self._progress.expected if self._progress else None

    @property
    def fraction(self) -> float:
        """0 to 0.95 while it runs, never backwards; 1 when the video is there."""
        if self._status is JobStatus.COMPLETED:
            return 1.0
        progress = self.progress
        if progress:
            self._fraction = max(self._fraction, min(progress.fraction, 0.95))
        return self._fraction

    def fraction_in(self, seconds: float) -> float:
        """What ``fraction`` will be after so many real seconds more, if nothing changes."""
        progress = self.progress
        if progress is None:
            return self.fraction
        return max(self.fraction, min(progress.after(seconds * self.speed).fraction, 0.95))

    def listen(self, listener: Listener) -> None:
        """``listener(job)`` is called at each change and every second, by the watcher."""
        with self._lock:
            self._listeners.append(listener)

    def wait(self, seconds: float) -> bool:
        """Whether it is over, after at most so many real seconds."""
        return self._over.wait(seconds)

    # --- stopping and submitting exclude each other --------------------------------------------

    def begin_submitting(self) -> bool:
        """For the watcher, before the POST; False once a stop was requested: then it must not
        leave."""
        with self._lock:
            if self.stop_requested:
                return False
            self._post_began = True
        self.advance(JobStatus.SUBMITTING)
        return True

    def withdraw(self) -> bool:
        """For the session: stops the job if nothing of it was submitted.

        False where a POST may have left: it goes on, and its reply brings the id. One that waits
        for its turn, or between two tries, is withdrawn by the watcher.
        """
        with self._lock:
            begun = self._post_began or self.id is not None
            self.stop_requested = self.stop_requested or not begun
            callback = self._on_withdraw if begun else self._on_stop
        if callback:
            callback()
        return not begun

    def withdrawn(self) -> None:
        """For the watcher: nothing has left, and nothing will."""
        with self._lock:
            self.stop_requested, self._post_began = True, False

    @property
    def outcome_unknown(self) -> bool:
        """Whether a POST may have left whose generation is not known (yet)."""
        if self.id is not None or not self._post_began:
            return False
        refused = isinstance(self.error, KlingError)
        return not refused or isinstance(self.error, SubmissionUncertainError)

    def wait_for_id(self, timeout: float) -> bool:
        """Whether within ``timeout`` real seconds the id is there or the job over."""
        return self._id_known.wait(max(0.0, timeout))

    def detach(self) -> None:
        """For the session: the cell was interrupted and no longer waits; the watcher goes on."""
        self.detached = True
        self.changed()

    def shown_by(self, show: Callable[[Job], None], element: Callable[[Job], Any]) -> None:
        """For the session: ``show`` displays the job in a cell, or raises NotImplementedError;
        ``element`` is what marimo displays."""
        self._show, self._element = show, element

    # --- for the watcher -------------------------------------------------------------------

    def join(self, other: Job) -> None:
        """For the watcher: a later cell asks for the same generation, in its own way.

        The job waits as long as the more patient one of both, and saves to both files.
        """
        self.timeout = max(self.timeout, other.timeout)
        if other.target.file and other.target != self.target:
            self.other_targets.append(other.target)

    def at_end(self, work: Callable[[], object]) -> None:
        """For the session: ``work()`` is done before anyone who waits for the job goes on."""
        with self._lock:
            if self._at_end is not None:
                self._at_end.append(work)
                return
        work()

    def on_stop(self, callback: Callable[[], None], withdraw: Callable[[], None]) -> None:
        """For the watcher: ``callback`` is called when the waiting shall end, at once if it should
        already; ``withdraw`` when nothing shall be submitted any more."""
        with self._lock:
            self._on_stop, self._on_withdraw = callback, withdraw
            requested = self.stop_requested
        if requested:
            callback()

    def advance(self, status: JobStatus) -> None:
        """For the watcher: it is one step further."""
        self._status = status
        self.changed()

    def submitted(self, generation: Generation) -> None:
        """For the watcher: the generation is known, by the reply of the POST or by its record."""
        self.generation = generation
        # What comes from the ledger has no reply of the gateway in it.
        self.attached = not generation.raw
        queued = generation.status in (Status.QUEUED, Status.UNKNOWN)
        self._status = JobStatus.QUEUED if queued else JobStatus.GENERATING
        self._id_known.set()
        self.changed()

    def progressed(self, progress: Progress) -> None:
        """For the watcher: one more poll was answered."""
        self._progress, self._progress_at = progress, time.monotonic()
        self.generation = progress.generation
        self.note = progress.note
        if progress.status is Status.QUEUED:
            self._status = JobStatus.QUEUED
        elif progress.status is Status.GENERATING:
            self._status = JobStatus.GENERATING
        self.changed()

    def succeeded(self, video: KlingVideo) -> None:
        """For the watcher: the video is here."""
        self.video, self.note = video, ""
        self._end(JobStatus.COMPLETED)
        self._future.set_result(video)

    def failed(self, error: BaseException) -> None:
        """For the watcher: it ended with an error."""
        self.error = error
        self._end(JobStatus.FAILED)
        self._future.set_exception(error)

    def stopped(self, client_request_id: str | None = None) -> None:
        """For the watcher: the waiting ends. ``client_request_id`` is that of a POST whose reply
        did not come."""
        self.error = self._why_stopped(client_request_id)
        self._end(JobStatus.STOPPED)
        self._future.set_exception(self.error)

    def _why_stopped(self, client_request_id: str | None) -> KlingError:
        if self.id:
            return WaitTimeoutError(
                f"Stopped waiting. Generation {self.id} goes on (there is no cancel) and is "
                "billed when it completes.",
                generation_id=self.id,
                next_steps=[NextStep(Verb.WAIT, self.id)],
            )
        if not self._post_began:
            return WaitTimeoutError("Stopped before anything was submitted.")
        which = f" (client request id {client_request_id})" if client_request_id else ""
        return SubmissionUncertainError(
            "Stopped while submitting, before the reply came: the generation may have been "
            f"accepted{which}.",
            client_request_id=client_request_id,
            next_steps=[NextStep(Verb.RECOVER, client_request_id=client_request_id)],
        )

    def _end(self, status: JobStatus) -> None:
        """The listeners are called first: a cell must not end before its card is done."""
        self._status = status
        self.changed()
        with self._lock:
            works, self._at_end = self._at_end or [], None
        for work in works:
            work()
        self._id_known.set()

    def changed(self) -> None:
        """For the watcher: calls the listeners."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener(self)
            except Exception:  # a broken display must not lose a paid video
                log.exception("A display of %r failed", self)
