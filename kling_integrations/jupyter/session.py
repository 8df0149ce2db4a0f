"""What one kernel has: options, the notebook's folder, the ledger and the watcher."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import DownloadError, InvalidRequestError, StoppedWaiting
from ..core.http.client import INTERRUPT_GRACE
from ..core.request import VideoRequest
from ..core.storage.file_names import default_file_name
from ..core.storage.ledger import Ledger
from . import loaded
from .job import Job, Phase
from .place import background_context
from .result import KlingVideo
from .watcher import Watcher


@dataclass
class Options:
    """How the notebook behaves; ``%config KlingMagics`` sets the same by traits."""

    output_dir: str = "kling_outputs"
    ui: str = "auto"
    embed: str = "auto"
    embed_limit_mb: float = 8.0
    width: int = 480
    timeout: float = 3600.0
    at_once: int = 5


class Session:
    """Made once per kernel. ``options`` is read anew each time: they may change any time."""

    def __init__(self, options: Any = None, shell: Any = None, folder: Path | None = None) -> None:
        self.options = options or Options()
        self.shell = shell
        self.folder = folder or Path.cwd()
        self.ledger = Ledger()
        self.watcher = Watcher(self.ledger, self.options.at_once, lambda: background_context(shell))

    # --- starting --------------------------------------------------------------------------

    def start(
        self,
        request: VideoRequest,
        *,
        take: int = 1,
        new: bool = False,
        file: str | None = None,
        timeout: float | None = None,
        legacy: bool = False,
    ) -> Job:
        """A job for the request: a new generation, or the one that it already has."""
        job = Job(
            request,
            place=lambda job: self.place(job, file),
            timeout=timeout or self.options.timeout,
            take=take,
            new=new,
            legacy=legacy,
        )
        return self.watcher.start(job)

    def resume(
        self, generation_id: str, *, file: str | None = None, timeout: float | None = None
    ) -> Job:
        """A job that goes on with a generation that was submitted before, here or elsewhere."""
        from ..core import settings

        entry = self.ledger.entry(settings.base_url(), generation_id)
        job = Job(
            None,
            place=lambda job: self.place(job, file),
            timeout=timeout or self.options.timeout,
            take=entry.take if entry else 1,
            given_id=generation_id,
            summary={**entry.request} if entry else None,
        )
        return self.watcher.start(job)

    def generate(self, **parameters: Any) -> KlingVideo:
        """One video with its card, waited for. ``parameters`` as for VideoRequest."""
        from .display import View

        job = self.start(VideoRequest(**parameters))
        view = View(job, self)
        view.begin()
        self.wait([job], view.lines)
        return job.result()

    def place(self, job: Job, file: str | None = None) -> Path:
        """The file for a job whose id is known: as wished, else readable and unique."""
        assert job.id is not None
        name = default_file_name(job.prompt, job.id)
        if not file:
            target = self.folder / self.options.output_dir / name
        else:
            stem, _, tag = name.removesuffix(".mp4").rpartition("_")
            fields = {
                "{slug}": stem,
                "{id}": tag,
                "{date}": time.strftime("%Y%m%d"),
                "{take}": str(job.take),
            }
            for field, value in fields.items():
                file = file.replace(field, value)
            target = self.folder / Path(file).expanduser()
            if file.endswith("/") or target.is_dir():
                target = target / name
            elif not target.suffix:
                target = target.with_suffix(".mp4")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DownloadError(
                f"The folder {target.parent} cannot be made: {error.strerror}.",
                generation_id=job.id,
                hint="The video is kept. Name another place with -f, and run the cell again.",
            ) from None
        return target

    # --- waiting ---------------------------------------------------------------------------

    def wait(self, jobs: Sequence[Job], lines: Callable[[], Sequence[str]] | None = None) -> None:
        """Until all are over, printing what ``lines()`` has to say (for places without a card).

        Raises StoppedWaiting on an interrupt, as ``minding`` says.
        """

        def tell() -> None:
            for line in lines() if lines else ():
                sys.stdout.write(line + "\n")
                sys.stdout.flush()

        with self.minding(jobs):
            for job in jobs:
                while not job.waited(0.25):
                    tell()
            tell()

    @contextmanager
    def minding(self, jobs: Sequence[Job]) -> Iterator[None]:
        """An interrupt anywhere inside becomes a StoppedWaiting that tells of these jobs."""
        try:
            yield
        except StoppedWaiting:
            raise
        except KeyboardInterrupt:
            raise self._stopped([job for job in jobs if not job.done()]) from None

    def _stopped(self, jobs: Sequence[Job]) -> StoppedWaiting:
        """What an interrupt leaves. The id of a POST under way is worth ten seconds; a second
        interrupt ends that too. What was only lined up is not paid for after an interrupt."""
        lined_up = [job for job in jobs if job.status is Phase.LINED_UP]
        for job in lined_up:
            job.stop_waiting()
        deadline = time.monotonic() + INTERRUPT_GRACE
        try:
            for job in jobs:
                if job.is_submitting:
                    job.wait_for_id(deadline - time.monotonic())
        except KeyboardInterrupt:
            pass
        for job in jobs:
            job.left_alone()
        ids = [job.id for job in jobs if job.id]
        if ids:
            return _goes_on(ids, len(lined_up))
        unclear = [job for job in jobs if job.is_submitting]
        return StoppedWaiting(None, self._client_request_id(unclear[0]) if unclear else None)

    def _client_request_id(self, job: Job) -> str | None:
        for entry in self.ledger.uncertain(job.base_url):
            if job.request and entry.record.fingerprint == job.request.fingerprint:
                return entry.record.client_request_id
        return None

    def close(self) -> None:
        self.watcher.close()


def _goes_on(ids: Sequence[str], lined_up: int) -> StoppedWaiting:
    """After an interrupt: the watcher goes on meanwhile, other than in a shell."""
    what = f"generation {ids[0]} goes" if len(ids) == 1 else f"{len(ids)} generations go"
    error = StoppedWaiting(ids[0])
    lines = [
        f"Stopped waiting; {what} on in the background and cannot be cancelled: billed when "
        "complete.",
        "  Run the cell again to go on, or: %kling jobs",
    ]
    if lined_up:
        lines.insert(1, f"  {lined_up} more were not submitted yet, and are not now.")
    if len(ids) > 1:
        lines.append(f"  Ids: {', '.join(ids)}")
    error.args = ("\n".join(lines),)
    return error


def current() -> Session:
    """The session of this kernel; raises InvalidRequestError before ``%load_ext``."""
    magics = loaded()
    if magics is None:
        raise InvalidRequestError(
            "There is no session yet.", hint="Run this first: %load_ext kling_integrations"
        )
    return magics.session


def options() -> Any:
    """What the user has set, else the defaults."""
    return loaded() or Options()
