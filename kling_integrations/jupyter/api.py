"""The notebook from Python: for loops, DataFrames and whatever a cell is too narrow for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..core.request import VideoRequest
from .grid import Cell, differences, grid, total_line
from .job import Job
from .result import KlingVideo, as_video
from .session import current


def submit(
    prompt: str | None = None, *, take: int = 1, new: bool = False, **parameters: Any
) -> Job:
    """A job in the background, without a display. ``parameters`` as for VideoRequest.

    The same call again gives the same generation, unless ``take`` differs or ``new`` is set.
    """
    return current().start(VideoRequest(prompt=prompt, **parameters), take=take, new=new)


def generate(prompt: str | None = None, **parameters: Any) -> KlingVideo:
    """One video with its card, waited for. ``parameters`` as for VideoRequest."""
    return current().generate(prompt=prompt, **parameters)


class gallery:  # noqa: N801 (reads as a verb: gallery(videos))
    """Videos side by side; jobs are waited for. Displays itself as a cell's last line.

    ``labels`` name the videos; else what differs between them is shown.
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
        self.videos = [as_video(each) for each in videos]
        shared, differing = differences(self.videos)
        if labels is not None:
            differing = [{"": str(label)} for label in labels]
        self._cells = [
            Cell(differs, video=video)
            for differs, video in zip(differing, self.videos, strict=True)
        ]
        self._options = {"columns": columns, "width": width, "embed": embed, "prompt": shared}

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return grid(self._cells, total=total_line(self._cells), **self._options)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"gallery of {len(self.videos)} videos"


__all__ = ["Job", "KlingVideo", "gallery", "generate", "submit"]
