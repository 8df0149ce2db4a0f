"""What one kernel has: the ledger, the watcher, and the waiting of its cells."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ..core import settings
from ..core.errors import DownloadError, NextStep, StoppedWaiting, SubmissionUncertainError, Verb
from ..core.http.client import INTERRUPT_GRACE
from ..core.request import VideoRequest
from ..core.storage.file_names import default_file_name
from ..core.storage.ledger import Ledger
from .display.live import JobView
from .frontend import background_context, print_line
from .job import Job
from .options import Notebook, notebook
from .video import KlingVideo
from .watcher import Watcher


class Session:
    """One per kernel, made when the first video is asked for."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.ledger = Ledger()
        self.watcher = Watcher(
            self.ledger, notebook.options.at_once, lambda: background_context(notebook.shell)
        )

    # --- starting --------------------------------------------------------------------------

    def start(
        self,
        request: VideoRequest,
        *,
        take: int = 1,
        new: bool = False,
        file: str | None = None,
        timeout: float | None = None,
        jobs: list[Job] | None = None,
    ) -> Job:
        """A job for the request: a new generation, or the one that it already has.

        ``jobs`` is the list of ``interruptible``: the job is in it before anything can leave.
        """
        job = Job(
            request,
            base_url=settings.base_url(),
            target=lambda job: self.target_of(job, file),
            timeout=timeout or self.notebook.options.timeout,
            take=take,
            new=new,
        )
        return self._start(job, jobs)

    def resume(
        self,
        generation_id: str,
        *,
        file: str | None = None,
        timeout: float | None = None,
        jobs: list[Job] | None = None,
    ) -> Job:
        """A job that goes on with a generation that was submitted before, here or elsewhere."""
        base_url = settings.base_url()
        entry = self.ledger.entry(base_url, generation_id)
        job = Job(
            None,
            base_url=base_url,
            target=lambda job: self.target_of(job, file),
            timeout=timeout or self.notebook.options.timeout,
            take=entry.take if entry else 1,
            generation_id=generation_id,
            summary=entry.request if entry else None,
        )
        return self._start(job, jobs)

    def _start(self, job: Job, jobs: list[Job] | None) -> Job:
        if jobs is None:
            return self.watcher.start(job)
        jobs.append(job)
        jobs[-1] = self.watcher.start(job)
        return jobs[-1]

    def generate(
        self,
        parameters: Mapping[str, Any],
        *,
        take: int = 1,
        new: bool = False,
        file: str | None = None,
        timeout: float | None = None,
    ) -> KlingVideo:
        """One video with its card, waited for. ``parameters`` are those of VideoRequest."""
        request = VideoRequest(**parameters)
        with self.interruptible() as jobs:
            job = self.start(request, take=take, new=new, file=file, timeout=timeout, jobs=jobs)
            view = JobView(job)
            view.begin()
            self.wait(jobs, view.lines)
        return job.result()

    def target_of(self, job: Job, file: str | None = None) -> Path:
        """The file for a job whose id is known: as the user named it, else readable and unique.

        ``file`` is a file or a folder, and may hold {slug}, {id}, {date} and {take}. Raises
        DownloadError when the folder cannot be made.
        """
        assert job.id is not None
        name = default_file_name(job.prompt, job.id)
        if not file:
            target = self.notebook.folder / self.notebook.options.output_dir / name
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
            target = self.notebook.folder / Path(file).expanduser()
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
                hint="The video is kept.",
                next_steps=[NextStep(Verb.SET_OUTPUT)],
            ) from None
        return target

    # --- waiting ---------------------------------------------------------------------------

    def wait(self, jobs: Sequence[Job], lines: Callable[[], Sequence[str]] | None = None) -> None:
        """Until all are over, printing what ``lines()`` gives (where there is no card)."""

        def print_news() -> None:
            for line in lines() if lines else ():
                print_line(line)

        for job in jobs:
            while not job.wait(0.25):
                print_news()
        print_news()

    @contextmanager
    def interruptible(self) -> Iterator[list[Job]]:
        """Gives a list for the jobs that are started inside; an interrupt becomes a StoppedWaiting
        that names them."""
        jobs: list[Job] = []
        try:
            yield jobs
        except StoppedWaiting:
            raise
        except KeyboardInterrupt:
            raise self._interrupted(jobs) from None

    def _interrupted(self, started: Sequence[Job]) -> StoppedWaiting:
        """What an interrupt leaves. The id of a POST under way is worth ten seconds; a second
        interrupt ends that too. What only waits for a slot is not submitted after an interrupt."""
        jobs = [self.watcher.carrier(job) for job in started]
        running = [job for job in jobs if not job.done()]
        withdrawn = [job for job in running if job.withdraw()]
        deadline = time.monotonic() + INTERRUPT_GRACE
        try:
            for job in running:
                if job.outcome_unknown:
                    job.wait_for_id(deadline - time.monotonic())
        except KeyboardInterrupt:
            pass
        for job in running:
            job.detach()
        if ids := [job.id for job in running if job.id]:
            return _goes_on(ids, len(withdrawn))
        if unknown := [job for job in jobs if job.outcome_unknown]:
            return _no_reply(unknown, self._client_request_id(unknown[0]))
        if ended := [job.id for job in jobs if job.id]:
            return _ended(ended)
        return StoppedWaiting()

    def _client_request_id(self, job: Job) -> str | None:
        if isinstance(job.error, SubmissionUncertainError):
            return job.error.client_request_id
        assert job.request is not None
        entry = self.ledger.preview(job.request, job.base_url, take=job.take).entry
        return entry.record.client_request_id if entry else None

    def close(self) -> None:
        """Ends the watcher; generations go on at the gateway."""
        self.watcher.close()


def _goes_on(ids: Sequence[str], withdrawn: int) -> StoppedWaiting:
    """After an interrupt the watcher goes on, other than in a shell."""
    what = f"generation {ids[0]} goes" if len(ids) == 1 else f"{len(ids)} generations go"
    lines = [
        f"Stopped waiting; {what} on in the background and cannot be cancelled: billed when "
        "complete."
    ]
    if withdrawn:
        lines.append(f"  {withdrawn} more were not submitted yet, and are not now.")
    if len(ids) > 1:
        lines.append(f"  Ids: {', '.join(ids)}")
    verb = Verb.WAIT if len(ids) == 1 else Verb.SUBMIT_AGAIN
    return StoppedWaiting(
        ids[0], message="\n".join(lines), next_steps=[NextStep(verb, generation_id=ids[0])]
    )


def _no_reply(jobs: Sequence[Job], client_request_id: str | None) -> StoppedWaiting:
    which = f" (client request id {client_request_id})" if client_request_id else ""
    what = "the generation" if len(jobs) == 1 else f"{len(jobs)} generations"
    return StoppedWaiting(
        None,
        client_request_id,
        message=f"Stopped waiting while submitting, and no reply came yet: {what} may have been "
        f"accepted{which}.",
        next_steps=[
            NextStep(Verb.SUBMIT_AGAIN),
            NextStep(Verb.RECOVER, client_request_id=client_request_id),
        ],
    )


def _ended(ids: Sequence[str]) -> StoppedWaiting:
    """The interrupt came when there was nothing to wait for any more."""
    what = f"Generation {ids[0]} had" if len(ids) == 1 else f"{len(ids)} generations had"
    return StoppedWaiting(
        ids[0],
        message=f"Interrupted. {what} ended already, and nothing is lost.",
        next_steps=[NextStep(Verb.SUBMIT_AGAIN)],
    )


def current() -> Session:
    """The session of this kernel; raises InvalidRequestError before ``%load_ext``."""
    return cast(Session, notebook().session())
