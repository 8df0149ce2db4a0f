"""What a browser opens for a video: a link where one works, else bytes, else fewer of them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ...core.errors import InvalidRequestError
from .. import marimo_output
from ..hosts import host
from ..options import notebook, options
from .markup import base64_text

_COPY_MB = 1.0  # of a small copy, at most
_BASE64 = 0.74  # bytes in a byte of text
_ROOM = 0.9  # of what a cell may hold is for videos; the rest for posters and text


class Source(NamedTuple):
    """The ``src`` of a player. ``is_copy``: a smaller one without sound stands in for the file."""

    url: str
    is_copy: bool = False


def source_of(path: Path, embed: str | None = None, *, players: int = 1) -> Source | None:
    """How a page can play a video; ``players`` share what one cell may hold.

    A relative link where the notebook's server has the file, else its bytes, else those of a small
    copy. None where none of them works: with ``embed="never"``, or for what is no video.
    """
    embed = embed or options().embed
    if marimo := marimo_output.running():
        return _served(marimo, path, embed)
    relative = None if embed == "always" else _relative(path)
    if relative is not None and (embed == "never" or host(notebook().shell) is None):
        return Source(quote(relative))
    return None if embed == "never" else _bytes_of(path, embed, players)


def _bytes_of(path: Path, embed: str, players: int = 1) -> Source | None:
    try:
        if embed == "always" or path.stat().st_size <= _most_bytes(players):
            return Source(f"data:video/mp4;base64,{base64_text(path.read_bytes())}")
        most = round(min(_COPY_MB * 1e6, _most_bytes(players)))
        data = _small_copy(path, path.stat().st_mtime_ns, most)
    except OSError:
        return None
    return Source(f"data:video/mp4;base64,{base64_text(data)}", is_copy=True) if data else None


def _most_bytes(players: int) -> float:
    """Bytes of a video that an output may hold."""
    here = host(notebook().shell)
    most = options().embed_limit_mb * 1e6
    if here is not None and here.most_mb is not None:
        most = min(most, here.most_mb * 1e6 * _ROOM * _BASE64 / players)
    return most


@lru_cache(maxsize=32)
def _small_copy(path: Path, changed: int, most: int) -> bytes | None:
    """Made once for each version of a file; None where it cannot be made."""
    from ...core import media

    try:
        return media.small_copy(path, most)
    except InvalidRequestError:  # no video, too long, or no PyAV
        return None


def _served(marimo: Any, path: Path, embed: str) -> Source | None:
    """What marimo serves it as; in an export, which serves nothing, bytes."""
    url = marimo_output.served(marimo, path)
    if url is None or not url.startswith("data:"):
        return Source(url) if url else None
    return None if embed == "never" else _bytes_of(path, embed)


def short_path(path: Path) -> str:
    """As seen from the notebook, where it is beside or below it."""
    relative = _relative(path)
    return str(path) if relative is None or relative.startswith("..") else relative


def _relative(path: Path) -> str | None:
    try:
        relative = os.path.relpath(path.absolute(), notebook().folder)
    except ValueError:  # another drive
        return None
    parts = Path(relative).parts
    return None if any(part.startswith(".") for part in parts) else "/".join(parts)
