"""The notebook from Python: for loops, DataFrames and whatever a cell is too narrow for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..core.errors import InvalidRequestError
from ..core.request import VideoRequest
from .display.grid import side_by_side
from .frontend import Bundle
from .job import Job
from .session import current
from .video import KlingVideo

__all__ = ["Job", "KlingVideo", "gallery", "generate", "submit"]


def submit(
    prompt: str | None = None,
    *,
    timeout: float | None = None,
    take: int = 1,
    new: bool = False,
    file: str | None = None,
    **parameters: Any,
) -> Job:
    """Starts a video in the background, without a display; returns its Job at once.

    ``parameters`` are those of VideoRequest: ``model``, ``duration`` (seconds), ``aspect_ratio``,
    ``negative_prompt``, ``cfg_scale``, ``image``, ``tail_image``, ``audio``, ``extra``, and any
    other by the gateway's own name.

    The same call again gives the same generation, also after a restart, and pays nothing;
    ``take=2`` is a second video of the same request, ``new=True`` pays for another one each time.
    ``timeout``: seconds that the job waits for the gateway (default: ``%config
    KlingMagics.timeout``). ``file``: an MP4 or a folder (ending in ``/``) beside the notebook; it
    may hold {slug}, {id}, {date} and {take}. None of these four is sent to the gateway.

    Raises InvalidRequestError before ``%load_ext kling_integrations`` and for what the
    documentation excludes, AuthenticationError without a key. What happens later is raised by
    ``job.result()``.
    """
    request = VideoRequest(prompt=prompt, **parameters)
    return current().start(request, timeout=timeout, take=take, new=new, file=file)


def generate(
    prompt: str | None = None,
    *,
    timeout: float | None = None,
    take: int = 1,
    new: bool = False,
    file: str | None = None,
    **parameters: Any,
) -> KlingVideo:
    """Makes one video with its card in the cell, and waits for it. Arguments as for ``submit``.

    Raises, besides what ``submit`` does, the KlingError that the generation ended with
    (GenerationFailedError, WaitTimeoutError, SubmissionUncertainError, …), and StoppedWaiting on
    an interrupt: the generation goes on then, and the same call picks it up.
    """
    return current().generate(
        {"prompt": prompt, **parameters}, timeout=timeout, take=take, new=new, file=file
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
        self.videos = [_as_video(each) for each in videos]
        self._bundle = side_by_side(
            self.videos, labels=labels, columns=columns, width=width, embed=embed
        )

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        return self._bundle

    def __repr__(self) -> str:
        return f"gallery of {len(self.videos)} videos"


def _as_video(value: Any) -> KlingVideo:
    if isinstance(value, Job):
        value = value.result()
    if not isinstance(value, KlingVideo):
        raise InvalidRequestError(f"A {type(value).__name__} is no result of %%kling.")
    return value
