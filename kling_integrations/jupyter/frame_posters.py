"""Posters in DataFrames: a column of videos shows pictures where a notebook shows the frame.

pandas writes a cell as text. So IPython's formatter of frames is asked first, which does nothing
but for a frame that holds a KlingVideo; such a frame is written by pandas with marks in it, in
whose places the posters are put.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import Any

from ..commands import one_line
from ..core.errors import InvalidRequestError
from .display.markup import base64_text
from .video import KlingVideo

_NAMES = (("pandas", "DataFrame"), ("pandas.core.frame", "DataFrame"))  # from 3.0, and before
_WIDTH = 128  # pixels


def install(shell: Any) -> None:
    """For the shell of an IPython; again changes nothing."""
    if html := _html_formatter(shell):
        for module, name in _NAMES:
            html.for_type_by_name(module, name, frame_html)


def uninstall(shell: Any) -> None:
    """Takes it away, where it is still there."""
    if html := _html_formatter(shell):
        for module, name in _NAMES:
            html.pop(f"{module}.{name}", None)


def _html_formatter(shell: Any) -> Any:
    formatter = getattr(shell, "display_formatter", None)
    return formatter.formatters.get("text/html") if formatter is not None else None


def frame_html(frame: Any) -> str | None:
    """A frame as pandas shows it, with posters for its videos."""
    import pandas as pd

    columns = [name for name in frame.columns if _has_videos(frame[name])]
    if not columns:
        return frame._repr_html_()  # type: ignore[no-any-return]
    posters: list[str] = []
    marks = {name: _marker(posters) for name in columns}
    most, least = pd.get_option("display.max_rows"), pd.get_option("display.min_rows")
    html: str = frame.to_html(
        max_rows=least if most and len(frame) > most else most,
        max_cols=pd.get_option("display.max_columns"),
        show_dimensions=True,
        notebook=True,
        formatters=marks,
    )
    for number, poster in enumerate(posters):
        html = html.replace(_mark(number), poster)
    return html


def _has_videos(column: Any) -> bool:
    return getattr(column, "ndim", 0) == 1 and any(isinstance(each, KlingVideo) for each in column)


def _marker(posters: list[str]) -> Callable[[Any], str]:
    def mark(value: Any) -> str:
        if not isinstance(value, KlingVideo):
            return str(value)
        posters.append(poster(value))
        return _mark(len(posters) - 1)

    return mark


def _mark(number: int) -> str:
    return f"\ue000{number}\ue001"  # characters for private use, which no frame holds


def poster(video: KlingVideo) -> str:
    """A small picture of a video; its name where there is none."""
    name = escape(one_line(video.prompt, 200) or f"Video {video.id}")
    if not video.poster:
        return name
    from ..core.media import thumbnail

    data = video.poster
    with suppress(InvalidRequestError):  # without Pillow: as it is
        data, _ = thumbnail(base64_text(data), _WIDTH)
    return (
        f'<img alt="{name}" title="{name}" style="max-width:{_WIDTH}px;border-radius:3px" '
        f'src="data:image/jpeg;base64,{base64_text(data)}">'
    )
