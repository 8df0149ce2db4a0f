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
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidRequestError, KlingError, WaitTimeoutError, command
from ..core.generation import Generation, Status
from ..core.progress import Progress
from ..core.request import VideoRequest
from .errors import presentable

if TYPE_CHECKING:
    from .result import KlingVideo

log = logging.getLogger(__name__)
Listener = Callable[["Job"], object]


class Phase(StrEnum):
    """How far a job is. The gateway's own words where it has some."""

    LINED_UP = "lined up"  # too many others run: nothing was submitted yet
    SUBMITTING = "submitting"
    QUEUED = "queued"
    GENERATING = "generating"
    DOWNLOADING = "downloading"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"  # nobody waits any more; the generation goes on

    @property
    def is_over(self) -> bool:
        return self in (Phase.COMPLETED, Phase.FAILED, Phase.STOPPED)


class Job:
    """A generation under way. Safe to use from any thread; ``await job`` works too.

    ``.result()`` gives the KlingVideo. Whoever stops waiting loses nothing: the id is in the
    ledger, and running the same cell again goes on.
    """

    def __init__(
        self,
        request: VideoRequest | None,
        *,
        place: Callable[[Job], Path],
        timeout: float,
        take: int = 1,
        new: bool = False,
        legacy: bool = False,
        given_id: str | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """``place`` names the file once the id is known; ``timeout`` in gateway seconds.

        Instead of a ``request``, a ``given_id`` takes up what was submitted before; ``summary``
        is what its record says of the request.
        """
        self.request = request
        told = dict(request.summary() if request else summary or {})
        self.model = str(told.pop("model", "") or "a generation")
        self.prompt: str | None = told.pop("prompt", None)
        self.params: dict[str, Any] = told  # besides model and prompt; pictures as their hash
        self.take = take
        self.new = new
        self.legacy = legacy
        self.timeout = timeout
        self.place = place
        self.base_url = ""
        self.sandbox = False
        self.reused = False
        self.attached = False
        self.alone = False
        self.generation: Generation | None = None
        self.video: KlingVideo | None = None
        self.error: BaseException | None = None
        self.started = time.time()
        self.note = ""
        self._given_id = given_id
        self._phase = Phase.LINED_UP
        self._progress: Progress | None = None
        self._at = 0.0
        self._speed = 1.0
        self._fraction = 0.0
        self._future: concurrent.futures.Future[KlingVideo] = concurrent.futures.Future()
        self._id_known = threading.Event()
        self._over = threading.Event()
        self._future.add_done_callback(lambda _: self._over.set())
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self.stop_asked = False

    # --- what a user asks ------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The generation's id; None until the gateway has answered."""
        return self.generation.id if self.generation else self._given_id

    @property
    def status(self) -> Phase:
        return self._phase

    @property
    def path(self) -> Path | None:
        return self.video.path if self.video else None

    def done(self) -> bool:
        return self._future.done()

    def result(self, timeout: float | None = None) -> KlingVideo:
        """The finished video; waits ``timeout`` seconds of the wall for it (None: as it takes).

        Raises TimeoutError, and what ended the job: GenerationFailedError, WaitTimeoutError …
        """
        # Small steps, so that an interrupt is heard on every platform.
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
        """Stops asking. The generation goes on at the gateway (there is no cancel), and is
        billed when it completes; running the cell again picks it up."""
        with self._lock:
            self.stop_asked = True
            stop = self._stop
        if stop:
            stop()

    def last_frame(self) -> Any:
        """The last picture of the result, for ``--image``; raises when it is not finished."""
        if not self.done():
            raise InvalidRequestError(
                f"The job {self.id or ''} is still {self.status}: wait for it first.",
                hint="%kling wait all",
            )
        return self.result().last_frame()

    def __await__(self) -> Generator[Any, None, KlingVideo]:
        async def wait() -> KlingVideo:
            done, _ = await asyncio.wait([asyncio.wrap_future(self._future)])
            for each in done:
                each.exception()  # is raised by result(), in its short form
            return self.result()

        return wait().__await__()

    def __repr__(self) -> str:
        known = f" {self.id}" if self.id else ""
        return f"<Job{known} {self.status} · {self.model}>"

    # --- how far it is ---------------------------------------------------------------------

    @property
    def progress(self) -> Progress | None:
        """The last poll, carried on to this moment; None before the first."""
        if self._progress is None:
            return None
        still = self._phase.is_over or self._phase is Phase.DOWNLOADING
        seconds = 0.0 if still else (time.monotonic() - self._at) * self._speed
        return self._progress.after(seconds)

    @property
    def elapsed(self) -> float:
        """Gateway seconds since the submit, as far as known."""
        progress = self.progress
        return progress.elapsed if progress else 0.0

    @property
    def expected(self) -> float | None:
        return self._progress.expected if self._progress else None

    @property
    def fraction(self) -> float:
        """0 to 0.95 while it runs, never backwards; 1 when the video is there."""
        if self._phase is Phase.COMPLETED:
            return 1.0
        progress = self.progress
        if progress:
            self._fraction = max(self._fraction, min(progress.fraction, 0.95))
        return self._fraction

    def listen(self, listener: Listener) -> None:
        """``listener(job)`` is called at each change and every second, by the watcher."""
        with self._lock:
            self._listeners.append(listener)

    @property
    def is_submitting(self) -> bool:
        """Whether a POST may be under way, whose reply brings the id."""
        return self.id is None and self._phase is Phase.SUBMITTING

    def waited(self, seconds: float) -> bool:
        """Whether it is over, after at most so many seconds of the wall."""
        return self._over.wait(seconds)

    def wait_for_id(self, timeout: float) -> bool:
        """Whether within ``timeout`` seconds the id is there or the job over."""
        return self._id_known.wait(timeout)

    # --- what the watcher writes -----------------------------------------------------------

    def bound(self, base_url: str, sandbox: bool, speed: float) -> None:
        self.base_url, self.sandbox, self._speed = base_url, sandbox, speed

    def left_alone(self) -> None:
        """The cell was interrupted: nobody waits, the watcher goes on."""
        self.alone = True
        self.changed()

    def stoppable(self, stop: Callable[[], None]) -> None:
        with self._lock:
            self._stop = stop

    def enters(self, phase: Phase) -> None:
        self._phase = phase
        self.changed()

    def submitted(self, generation: Generation) -> None:
        self.generation = generation
        # What comes from the ledger has no reply of the gateway in it.
        self.attached = not generation.raw
        queued = generation.status in (Status.QUEUED, Status.UNKNOWN)
        self._phase = Phase.QUEUED if queued else Phase.GENERATING
        self._id_known.set()
        self.changed()

    def progressed(self, progress: Progress) -> None:
        self._progress, self._at = progress, time.monotonic()
        self.generation = progress.generation
        self.note = progress.note
        if progress.status is Status.QUEUED:
            self._phase = Phase.QUEUED
        elif progress.status is Status.GENERATING:
            self._phase = Phase.GENERATING
        self.changed()

    def succeeded(self, video: KlingVideo) -> None:
        self.video, self.note = video, ""
        self._ends(Phase.COMPLETED)
        self._future.set_result(video)

    def failed(self, error: BaseException) -> None:
        self.error = error
        self._ends(Phase.FAILED)
        self._future.set_exception(error)

    def stopped(self) -> None:
        if self.id:
            error: KlingError = WaitTimeoutError(
                f"Stopped waiting. Generation {self.id} goes on (there is no cancel) and is "
                "billed when it completes.",
                generation_id=self.id,
                hint=f"Run the cell again, or: {command('wait', self.id)}",
            )
        else:
            error = WaitTimeoutError("Stopped before anything was submitted.")
        self.error = error
        self._ends(Phase.STOPPED)
        self._future.set_exception(error)

    def _ends(self, phase: Phase) -> None:
        """The listeners hear of the end first: a cell must not end before its card is done."""
        self._phase = phase
        self.changed()
        self._id_known.set()

    def changed(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener(self)
            except Exception:  # a broken display must not lose a paid video
                log.exception("A display of %r failed", self)
