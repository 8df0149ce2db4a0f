"""The card of a finished video: static HTML with a poster, and text for all else.

A card needs no kernel, no widget and no network: what a notebook was saved with is what a reader
sees, also on a code-hosting site and in a PDF. No URL of the gateway stands in it, because such a
URL is a secret.

The tags are those that survive the sanitising of an untrusted notebook: ``src`` and ``poster`` on
the ``<video>`` itself (a ``<source>`` would be dropped), ``<img>`` inside for what cannot play.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any, Protocol

from ...commands import money, one_line
from ...core.errors import InvalidRequestError
from ...core.progress import clock_time
from ..frontend import Bundle
from ..hints import new_word
from ..options import options
from .markup import SMALL, badge, base64_text, code_id, prompt_html, short_model
from .source import short_path, source_of


class FinishedVideo(Protocol):
    """What a card shows of a KlingVideo, which draws itself with this module."""

    @property
    def id(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def saved_as(self) -> Path: ...
    @property
    def model(self) -> str: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def duration(self) -> float | None: ...
    @property
    def width(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...
    @property
    def poster(self) -> bytes | None: ...
    @property
    def cost(self) -> float | None: ...
    @property
    def elapsed(self) -> float | None: ...
    @property
    def sandbox(self) -> bool: ...
    def provenance(self) -> dict[str, Any]: ...


def card(
    video: FinishedVideo,
    *,
    embed: str | None = None,
    width: int | None = None,
    reused: bool = False,
) -> Bundle:
    """The player with its caption, and the video's provenance as metadata."""
    width = width or options().width
    figure = (
        f'<figure style="margin:0;max-width:{width}px">{screen(video, embed=embed, width=width)}'
        '<figcaption style="line-height:1.45;margin-top:4px">'
        f"{prompt_html(video.prompt, badge(video.sandbox))}"
        f'<div style="{SMALL}">{escape(caption(video, reused=reused))} · '
        f"{code_id(video.id)}</div>{_parameters(video)}"
        "</figcaption></figure>"
    )
    data = {"text/html": figure, "text/plain": repr(video)}
    if video.poster:
        data["image/jpeg"] = base64_text(video.poster)
    return data, {"kling": video.provenance()}


def screen(
    video: FinishedVideo,
    *,
    embed: str | None = None,
    width: int | None = None,
    attributes: str = "",
    players: int = 1,
) -> str:
    """The player alone, one of so many ``players``. It fills its column, at most ``width`` pixels.

    Where a small copy plays, or nothing, it says where the whole is.
    """
    try:
        path = video.path
        source, where = source_of(path, embed, players=players), short_path(path)
    except InvalidRequestError as error:  # another video must not be shown for this one
        source, where = None, error.message
    poster = f"data:image/jpeg;base64,{base64_text(video.poster)}" if video.poster else ""
    size = (
        f"width:100%;max-width:{width or options().width}px;{_shape(video)}"
        "display:block;border-radius:4px"
    )
    name = escape(one_line(video.prompt, 200) or f"Video {video.id}")
    image = f'<img alt="{name}" style="width:100%" src="{poster}">' if poster else ""
    if source is None:  # nothing that a browser could open: the picture, and where the file is
        return f'<div style="{size}">{image}</div><div style="{SMALL}">{escape(where)}</div>'
    copy = f"A small copy without sound; the whole is {where}" if source.is_copy else ""
    return (
        f'<video controls preload="metadata" playsinline aria-label="{name}" style="{size}"'
        f"{f' poster={chr(34)}{poster}{chr(34)}' if poster else ''}{attributes} "
        f'src="{escape(source.url)}">{image}</video>'
        f"{f'<div style={chr(34)}{SMALL}{chr(34)}>{escape(copy)}</div>' if copy else ''}"
    )


def _shape(video: FinishedVideo) -> str:
    """Prevents layout shift: the space of the picture is reserved before it is loaded."""
    if not video.width or not video.height:
        return ""
    tall = "max-height:70vh;" if video.height > video.width else ""
    return f"aspect-ratio:{video.width}/{video.height};{tall}"


def caption(video: FinishedVideo, *, reused: bool = False) -> str:
    """Model, length, shape, cost, in one line."""
    parts = [short_model(video.model)]
    if video.duration:
        parts.append(f"{video.duration:.4g} s")
    if video.width and video.height:
        parts.append(f"{video.width}×{video.height}")
    if video.cost is not None:
        parts.append(money(video.cost))
    if video.elapsed:
        parts.append(f"took {clock_time(video.elapsed)}")
    if reused:
        parts.append(f"♻ reused, nothing paid ({new_word()} makes another one)")
    return " · ".join(parts)


def _parameters(video: FinishedVideo) -> str:
    text = json.dumps(video.provenance(), indent=1, ensure_ascii=False)
    return (
        f'<details style="{SMALL}"><summary>parameters</summary>'
        f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere">{escape(text)}</pre></details>'
    )
