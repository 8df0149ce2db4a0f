"""What one process has: the ledger, the watcher, and the waiting of its cells."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..commands import connect, request_name
from ..core import settings
from ..core.cost import check_cost
from ..core.errors import (
    InvalidRequestError,
    NextStep,
    StoppedWaiting,
    SubmissionUncertainError,
    Verb,
)
from ..core.http.base import check_new, check_take
from ..core.http.client import INTERRUPT_GRACE
from ..core.progress import clock_time
from ..core.request import VideoRequest
from ..core.storage.file_names import local_target
from ..core.storage.ledger import Ledger
from ..core.waiting import seconds
from . import frame_posters
from .display.live import JobView, element
from .errors import noting
from .frontend import (
    background_context,
    ipython_shell,
    notebook_folder,
    print_line,
    print_notes,
    remember_shown,
    showing,
)
from .job import Job
from .options import Notebook, loaded, notebook, options, set_loaded, set_session
from .targets import Reservation, Reservations, Target
from .video import KlingVideo
from .watcher import Watcher


class Session:
    """One per process, made when the first video is asked for."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._cell_cost = 0.0
        self._reservations = Reservations()
        self.watcher = Watcher(
            self.ledger, options().at_once, lambda: background_context(notebook().shell)
        )

    @property
    def notebook(self) -> Notebook:
        """Whose session it is: ``%load_ext`` may come after the first video."""
        return notebook()

    # --- starting --------------------------------------------------------------------------

    def start(
        self,
        request: VideoRequest,
        *,
        take: int = 1,
        new: bool = False,
        file: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        timeout: float | timedelta | None = None,
        jobs: list[Job] | None = None,
        is_within_limit: bool = False,
    ) -> Job:
        """A job for the request: a new generation, or the one that it already has.

        ``jobs`` is the list of ``interruptible``: the job is in it before anything can leave.
        ``is_within_limit``: the caller has held it against the limit of a cell. Raises
        InvalidRequestError for a ``file`` that cannot be written or is the user's own (unless
        ``overwrite``), and above the limit, before anything is paid.
        """
        check_take(take)
        check_new(new)
        limit = self._seconds(timeout)
        base_url = settings.base_url()
        target = self._target(file, overwrite)
        decision = self.ledger.preview(request, base_url, new=new, take=take) if file else None
        known = decision.entry if decision and decision.picks_up else None
        known_id = known.generation_id if known else None
        target.check(self.ledger, request.prompt, take, known_id)
        if not is_within_limit:
            self._check_cost(request, base_url, take=take, new=new)
        job = Job(
            request,
            base_url=base_url,
            target=target,
            timeout=limit,
            take=take,
            new=new,
        )
        # A repetition that is paid for, or another take, is a video of its own.
        names = [] if new or take > 1 else [request_name(base_url, request.fingerprint)]
        names += [known_id] if known_id else []
        running = self._start(job, jobs, target.file_before(request.prompt, take, known_id), *names)
        if timeout is not None and running.timeout > limit:  # another cell started it
            longer = clock_time(running.timeout)
            print_line(f"It runs already, and is waited for up to {longer}, as asked for before.")
        return running

    def _check_cost(self, request: VideoRequest, base_url: str, *, take: int, new: bool) -> None:
        """Holds a video against what a cell may cost, ``options.max_cost``, with all that the
        running cell has asked for already. What is paid for costs nothing."""
        limit = options().max_cost
        if limit is None or not self.ledger.preview(request, base_url, new=new, take=take).pays:
            return
        with connect() as client:
            prices = client.prices(request.model)
        expected = check_cost(request, prices, limit - self.cell_cost)
        self.add_cell_cost(expected.usd or 0.0)

    @property
    def cell_cost(self) -> float:
        """USD that the running cell is expected to cost so far; a script has no cells: 0."""
        return self._cell_cost

    def add_cell_cost(self, usd: float) -> None:
        events = getattr(notebook().shell, "events", None)
        if events is None or not usd:
            return

        def forget() -> None:
            self._cell_cost = 0.0
            events.unregister("post_execute", forget)

        if not self._cell_cost:
            events.register("post_execute", forget)
        self._cell_cost += usd

    def resume(
        self,
        generation_id: str,
        *,
        file: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        timeout: float | timedelta | None = None,
        jobs: list[Job] | None = None,
    ) -> Job:
        """A job that goes on with a generation that was submitted before, here or elsewhere."""
        limit = self._seconds(timeout)
        base_url = settings.base_url()
        entry = self.ledger.entry(base_url, generation_id)
        take = entry.take if entry else 1
        target = self._target(file, overwrite)
        prompt = entry.prompt if entry else None
        target.check(self.ledger, prompt, take, generation_id)
        job = Job(
            None,
            base_url=base_url,
            target=target,
            timeout=limit,
            take=take,
            generation_id=generation_id,
            summary=entry.request if entry else None,
        )
        path = target.file_before(prompt, take, generation_id)
        return self._start(job, jobs, path, generation_id)

    def _start(self, job: Job, jobs: list[Job] | None, path: Path | None, *names: str) -> Job:
        """Has the watcher carry it. ``path`` is held for it against other processes; ``names`` are
        those of its video."""
        job.shown_by(_show, element)
        reserved = self._reservations.take(path, *names) if path else None
        try:
            if jobs is None:
                return self.watcher.start(job)
            jobs.append(job)
            jobs[-1] = self.watcher.start(job)
            return jobs[-1]
        finally:
            if reserved:  # after an error the job may run nevertheless
                running = self.watcher.carrier(job)
                _hold(reserved, running if running in self.watcher.jobs else None)

    def generate(
        self,
        parameters: Mapping[str, Any],
        *,
        take: int = 1,
        new: bool = False,
        file: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        timeout: float | timedelta | None = None,
    ) -> KlingVideo:
        """One video with its card, waited for. ``parameters`` are those of VideoRequest."""
        request, notes = noting(lambda: VideoRequest(**parameters))
        with self.interruptible() as jobs:
            self.start(
                request,
                take=take,
                new=new,
                file=file,
                overwrite=overwrite,
                timeout=timeout,
                jobs=jobs,
            )
            return self._shown(jobs, notes)

    def fetch(
        self,
        generation_id: str,
        *,
        file: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        timeout: float | timedelta | None = None,
    ) -> KlingVideo:
        """The video of an earlier generation with its card, waited for."""
        with self.interruptible() as jobs:
            self.resume(generation_id, file=file, overwrite=overwrite, timeout=timeout, jobs=jobs)
            return self._shown(jobs)

    def _shown(self, jobs: Sequence[Job], notes: Sequence[str] = ()) -> KlingVideo:
        (job,) = jobs
        view = JobView(job)
        view.begin()
        self.wait(jobs, view.show_news, notes)
        video = job.result()
        if not view.in_text:
            remember_shown(video)
        return video

    def _target(self, file: str | os.PathLike[str] | None, overwrite: bool) -> Target:
        here = self.notebook
        named = None if file is None else local_target(file)
        return Target(here.folder, here.options.output_dir, named, overwrite)

    def _seconds(self, timeout: float | timedelta | None) -> float:
        """How long a job waits; None is what the options say. Raises InvalidRequestError."""
        return seconds(timeout, "timeout", none=self.notebook.options.timeout)

    # --- waiting ---------------------------------------------------------------------------

    def wait(
        self,
        jobs: Sequence[Job],
        show_news: Callable[[], None] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Until all are over, calling ``show_news()`` on the way, and printing at the end what
        became of files in the way. Both in the calling thread, which is the cell's.

        ``notes`` are printed once a generation is known. Where the request is refused they say
        why, so they become part of that error.
        """
        notes = list(notes)

        def print_news() -> None:
            if show_news:
                with showing():
                    show_news()
            if any(job.id for job in jobs):
                print_notes(notes)
                notes.clear()

        try:
            for job in jobs:
                while not job.wait(0.25):
                    print_news()
            print_news()
        finally:
            refused = [job.error for job in jobs if isinstance(job.error, InvalidRequestError)]
            if refused and notes:
                refused[0].hint = " ".join(filter(None, (refused[0].hint, *notes)))
            else:
                print_notes(notes)
        for remark in dict.fromkeys(remark for job in jobs for remark in job.remarks):
            print_line(remark)

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
        entry = job.ledger.preview(job.request, job.base_url, take=job.take).entry
        return entry.record.client_request_id if entry else None

    def close(self) -> None:
        """Ends the watcher; generations go on at the gateway."""
        self.watcher.close()


def _hold(reserved: Reservation, job: Job | None) -> None:
    """Holds a file for as long as the job runs; None: there is none that does."""
    if job is None:
        reserved.release()
        return
    job.listen(lambda job: reserved.name(job.id))
    job.at_end(reserved.release)


def _show(job: Job) -> None:
    """A job that a cell names as its last line: live from now on."""
    view = JobView(job, background=True)
    if view.in_text:
        raise NotImplementedError
    view.begin()


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


_session: Session | None = None


def current() -> Session:
    """The session of this process, made when it is first needed, with magics or without."""
    global _session  # noqa: PLW0603 (one process, one session)
    if loaded() is None:
        shell = ipython_shell()
        set_loaded(Notebook(shell=shell, folder=notebook_folder(shell)))
    if _session is None:
        _session = Session()
        frame_posters.install(notebook().shell)
    return _session


def started() -> Session | None:
    """The session, where there is one already."""
    return _session


def end() -> None:
    """Ends the session, if there is one; generations go on at the gateway."""
    global _session  # noqa: PLW0603
    if _session is not None:
        frame_posters.uninstall(notebook().shell)
        _session.close()
        _session = None


set_session(current)
