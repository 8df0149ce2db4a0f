"""Several results as one value: a grid to look at, a table to work with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..core.errors import InvalidRequestError
from .display import in_step
from .display.grid import side_by_side
from .frontend import Bundle
from .job import Job
from .video import KlingVideo


class Clips(list[Any]):
    """A list of KlingVideos and Jobs. As a cell's last line the videos play side by side, in step.

    It is what ``-o`` of a batch holds, and what ``history().videos`` is.
    """

    @property
    def videos(self) -> list[KlingVideo]:
        """Those that are finished."""
        found = (each.video if isinstance(each, Job) else each for each in self)
        return [video for video in found if isinstance(video, KlingVideo)]

    def to_frame(self) -> Any:
        """A pandas DataFrame, a row each: ``clip`` shows its poster, then what it was made with.

        The other columns are id, status, model, prompt, the parameters, duration (seconds), cost
        (USD), elapsed (seconds) and path. Raises InvalidRequestError without pandas.
        """
        return to_frame(self)

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        videos = self.videos
        if not videos:
            return {"text/plain": repr(self)}, {}
        return side_by_side(videos)

    def _display_(self) -> Any:
        """For marimo."""
        return in_step.element(side_by_side(self.videos)) if self.videos else repr(self)


def to_frame(results: Iterable[Any]) -> Any:
    """As ``Clips.to_frame``, of any videos and jobs."""
    try:
        import pandas as pd
    except ImportError:
        raise InvalidRequestError("A DataFrame needs pandas, which is not installed.") from None
    return pd.DataFrame([_row(each) for each in results])


def _row(each: Any) -> dict[str, Any]:
    video = each.video if isinstance(each, Job) else each
    row: dict[str, Any] = {
        "clip": video or each,
        "id": each.id,
        "status": str(each.status),
        "model": each.model,
        "prompt": each.prompt,
        **{name: value for name, value in each.params.items() if name != "duration"},
    }
    facts = ("duration", "cost", "elapsed", "path")
    values = {name: getattr(video, name) if video else None for name in facts}
    return {**row, **values, "path": str(values["path"]) if video else None}


def as_videos(results: Sequence[Any] | Iterable[Any]) -> list[KlingVideo]:
    """Videos of videos and jobs; jobs are waited for, their errors raised.

    Raises InvalidRequestError for anything else.
    """
    return [_as_video(each) for each in results]


def _as_video(value: Any) -> KlingVideo:
    if isinstance(value, Job):
        value = value.result()
    if not isinstance(value, KlingVideo):
        raise InvalidRequestError(f"A {type(value).__name__} is no video and no job.")
    return value
