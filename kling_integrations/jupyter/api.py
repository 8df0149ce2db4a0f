"""Videos from Python, with a display: in any notebook, with magics or without, and in a script.

``import kling_integrations as kling``, then ``kling.generate("…")``. For loops, DataFrames and
whatever a cell is too narrow for.
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any, overload

from ..commands import connect, find, history_table, matching
from ..commands import day as day_of
from ..core import settings
from ..core.errors import InvalidRequestError
from ..core.recovery import Recovered
from ..core.request import VideoRequest
from ..core.submission import Entry
from .clips import Clips, as_videos
from .console import NotebookConsole, table
from .display import in_step
from .display.grid import side_by_side
from .errors import presented
from .frontend import Bundle
from .job import Job
from .options import Options, check, share_ledger
from .session import current
from .stored import saved_video, start_sandbox
from .video import KlingVideo


@presented
def submit(
    prompt: str | None = None,
    *,
    timeout: float | timedelta | None = None,
    take: int = 1,
    new: bool = False,
    file: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> Job:
    """Starts a video in the background, without a display; returns its Job at once.

    ``parameters`` are those of VideoRequest: ``model``, ``duration`` (seconds), ``aspect_ratio``,
    ``negative_prompt``, ``cfg_scale``, ``image``, ``tail_image``, ``audio``, ``extra``, and any
    other by the gateway's own name.

    The same call again gives the same generation, also after a restart, and pays nothing;
    ``take=2`` is a second video of the same request, ``new=True`` pays for another one each time.
    ``timeout``: seconds that the job waits for the gateway, or a timedelta (None:
    ``configure(timeout=)``).
    ``file``: an MP4 or a folder (ending in ``/``) beside the notebook; it may hold
    {slug}, {id}, {date} and {take}; another paid video there is kept aside, a file that was not
    made here is refused unless ``overwrite``. None of these five is sent to the gateway.

    Raises InvalidRequestError for what the documentation excludes, AuthenticationError without a
    key. What happens later is raised by ``job.result()``.
    """
    request = VideoRequest(prompt=prompt, **parameters)
    return current().start(
        request, timeout=timeout, take=take, new=new, file=file, overwrite=overwrite
    )


@presented
def generate(
    prompt: str | None = None,
    *,
    timeout: float | timedelta | None = None,
    take: int = 1,
    new: bool = False,
    file: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> KlingVideo:
    """Makes one video with its card in the cell, and waits for it. Arguments as for ``submit``.

    Raises, besides what ``submit`` does, the KlingError that the generation ended with
    (GenerationFailedError, WaitTimeoutError, SubmissionUncertainError, …), and StoppedWaiting on
    an interrupt: the generation goes on then, and the same call picks it up.
    """
    return current().generate(
        {"prompt": prompt, **parameters},
        timeout=timeout,
        take=take,
        new=new,
        file=file,
        overwrite=overwrite,
    )


@presented
def resume(
    generation_id: str,
    *,
    timeout: float | timedelta | None = None,
    file: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> KlingVideo:
    """The video of a generation that was submitted before, waited for where it still runs.

    ``generation_id`` is an id, the beginning of one that the ledger knows, or ``last``. Pays
    nothing. ``timeout``, ``file`` and ``overwrite`` are as in ``submit``; raises as ``generate``
    does.
    """
    session = current()
    found, _ = find(generation_id, session.ledger, settings.base_url())
    return session.fetch(found, timeout=timeout, file=file, overwrite=overwrite)


@presented
def recover() -> list[Recovered]:
    """Looks up submissions without a known outcome in the gateway's log, which is free.

    Returns what became of each; those that were taken can be resumed by their id. Raises
    AuthenticationError without a key, and ServerError where the log cannot be read.
    """
    with connect(current().ledger) as client:
        return list(client.recover())


@presented
def configure(**options: Any) -> Options:
    """Sets options, such as ``configure(width=640, at_once=3)``; returns all of them.

    With magics they are those of ``%config KlingMagics``. Raises InvalidRequestError for an
    unknown one and a value that it cannot have; then none is set.
    """
    checked = {name: check(name, value) for name, value in options.items()}
    here = current()
    for name, value in checked.items():
        setattr(here.notebook.options, name, value)
    if "ledger" in checked:
        share_ledger(checked["ledger"])
    here.watcher.at_once = here.notebook.options.at_once
    return here.notebook.options


@presented
def use_sandbox(**options: Any) -> str:
    """Starts a sandbox in this process and uses it from now on: no key, no money, test pictures.

    ``options`` are those of ``kling_integrations.sandbox.Sandbox``, such as ``speed=60`` (how much
    faster than real time) and ``seed``. Returns its address; where one is in use already, that
    one's. Raises InvalidRequestError without the package that makes its videos.
    """
    base_url = settings.base_url()
    if settings.is_sandbox(base_url):
        return base_url
    return str(start_sandbox(**{"speed": 30, **options}).base_url)


class History(Sequence[Entry]):
    """Records of what was submitted, the newest first; as a cell's last line, a table.

    An ``Entry`` names generation, request, state, cost and file; ``videos`` are those whose file
    is here.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = list(entries)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def videos(self) -> Clips:
        """The videos whose file is here: shown side by side, or ``.to_frame()``."""
        found = map(saved_video, self._entries)
        return Clips(video for video in found if video is not None)

    def _bundle(self) -> Bundle:
        if not self._entries:
            return {"text/plain": "No generation fits."}, {}
        console = NotebookConsole(as_json=False)
        shared = current().ledger.is_shared
        return table(*history_table(self._entries, console, shared=shared))

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        return self._bundle()

    def __repr__(self) -> str:
        return str(self._bundle()[0]["text/plain"])


@presented
def history(
    *,
    search: str = "",
    model: str = "",
    tag: str = "",
    day: str | date | None = None,
    limit: int = 20,
) -> History:
    """What was submitted from here, the newest first, as a table. Asks and pays nothing.

    ``search`` looks in prompts and ids, ``model`` in model ids; ``tag`` is what was given to
    ``generate(tag=…)``, ``day`` a date, ``2026-11-21`` or ``today``; ``limit`` counts generations.
    Raises InvalidRequestError for a day that is none.
    """
    if isinstance(day, str):
        try:
            day = day_of(day)
        except ArgumentTypeError as error:
            raise InvalidRequestError(f"{error}.") from None
    return History(matching(current().ledger, limit, search=search, model=model, tag=tag, day=day))


def show(
    *videos: Any,
    labels: Sequence[str] | None = None,
    columns: int | None = None,
    width: int | None = None,
    embed: str | None = None,
) -> None:
    """Displays videos in a row that plays in step: ``show(clip)``, ``show(a, b)``, ``show(clips)``.

    Anywhere in a cell, other than ``gallery``; arguments and errors are the same.
    """
    flat = [each for one in videos for each in (one if isinstance(one, list | tuple) else [one])]
    in_step.show(
        side_by_side(as_videos(flat), labels=labels, columns=columns, width=width, embed=embed)
    )


class gallery:  # noqa: N801 (reads as a verb: gallery(videos))
    """Videos side by side, as a cell's last line. Jobs are waited for, their errors raised.

    ``videos`` are KlingVideos and Jobs. ``labels`` name them; else what differs between them is
    shown. ``columns`` defaults to what fits; ``width`` is that of the whole in pixels, ``embed``
    (auto, always or never) whether the notebook holds the videos' bytes. Raises
    InvalidRequestError for anything that is no video or job.
    """

    def __init__(
        self,
        videos: Iterable[Any],
        *,
        labels: Sequence[str] | None = None,
        columns: int | None = None,
        width: int | None = None,
        embed: str | None = None,
    ) -> None:
        self.videos = as_videos(videos)
        self._bundle = side_by_side(
            self.videos, labels=labels, columns=columns, width=width, embed=embed
        )

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        return self._bundle

    def _display_(self) -> Any:
        """For marimo."""
        return in_step.element(self._bundle)

    def __repr__(self) -> str:
        return f"gallery of {len(self.videos)} videos"
