"""Frames out: stills of a saved video, and what its file holds.

PyAV and Pillow are imported when the caller asks for a frame.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InvalidRequestError
from .images import missing_package, pillow, shortened

if TYPE_CHECKING:
    from PIL.Image import Image


Source = str | os.PathLike[str] | BinaryIO
"""A file's path, or an open file that can seek; an open one stays open."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video file holds. ``duration`` is in seconds, None where the file does not say."""

    duration: float | None
    width: int
    height: int
    has_audio: bool


def probe(path: Source) -> VideoFacts:
    """Look into a video file. Raises InvalidRequestError when it holds no readable video."""
    with opened_video(path) as (container, stream):
        return VideoFacts(
            _duration(container, stream), stream.width, stream.height, bool(container.streams.audio)
        )


def frame(path: Source, seconds: float) -> Image:
    """The picture shown at ``seconds``; beyond the end, the last one."""
    if not 0 <= seconds < float("inf"):
        raise InvalidRequestError(f"A frame is at 0 seconds or later, not at {seconds!r}.")
    with opened_video(path) as (container, stream):
        shown = None
        end = _duration(container, stream) or seconds
        for picture in _pictures_from(container, stream, min(seconds, end)):
            # Half a millisecond of grace: times are fractions, 2/24 s is a little over 0.0833.
            if shown is not None and picture.time is not None and picture.time > seconds + 5e-4:
                break
            shown = picture
        if shown is None:
            raise InvalidRequestError(f"{_name(path)} holds no picture.")
        return _as_image(shown)


def last_frame(path: Source) -> Image:
    """The last picture, for a video that goes on where this one ended."""
    with opened_video(path) as (container, stream):
        duration = _duration(container, stream) or 0.0
        for start in (max(0.0, duration - 0.5), 0.0):  # from the start if the end cannot be sought
            if last := deque(_pictures_from(container, stream, start), maxlen=1):
                return _as_image(last[0])
        raise InvalidRequestError(f"{_name(path)} holds no picture.")


def poster(path: Source, width: int = 480) -> bytes:
    """The first picture as a JPEG of some ten kilobytes, at most ``width`` pixels wide."""
    picture = io.BytesIO()
    with readable(path):
        image = frame(path, 0).convert("RGB")
        if image.width > width:
            image = image.resize((width, max(1, round(image.height * width / image.width))))
        image.save(picture, "JPEG", quality=75, optimize=True)
    return picture.getvalue()


@contextmanager
def readable(path: Source) -> Iterator[None]:
    """Raises InvalidRequestError for whatever PyAV and Pillow raise about a file.

    That is more than their own errors: a stream without a known codec has no ``width``
    (AttributeError), others end in ZeroDivisionError or TypeError. Such a file is paid for all the
    same, and must not break what shows it.
    """
    try:
        yield
    except InvalidRequestError:
        raise
    except Exception as error:  # noqa: BLE001 (they share no other base)
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InvalidRequestError(
            f"{_name(path)} holds no readable video ({str(why)[:200]})."
        ) from None


@contextmanager
def opened_video(path: Source) -> Iterator[tuple[Any, Any]]:
    """The opened file and its first video stream."""
    try:
        import av
    except ImportError:
        raise missing_package("PyAV") from None
    pillow()
    with readable(path), _opened(path) as file, av.open(file) as container:
        if not container.streams.video:
            raise InvalidRequestError(f"{_name(path)} holds no video.")
        stream = container.streams.video[0]
        if stream.codec_context is None:  # decoding it ends the process in PyAV 12
            raise InvalidRequestError(f"{_name(path)} is no readable video: its codec is unknown.")
        stream.thread_type = "AUTO"
        yield container, stream


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    if not isinstance(source, str | os.PathLike):
        source.seek(0)
        yield source
        return
    path = Path(source).expanduser()
    if not path.is_file():  # PyAV would also open URLs, devices and playlists of both
        raise InvalidRequestError(f"No such file: {shortened(path)}")
    with path.open("rb") as file:
        yield file


def _name(source: Source) -> str:
    return shortened(Path(source)) if isinstance(source, str | os.PathLike) else "The file"


def _duration(container: Any, stream: Any) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration is not None else None


def _pictures_from(container: Any, stream: Any, seconds: float) -> Iterator[Any]:
    """Decoded pictures from the key frame before ``seconds`` on."""
    offset = int(seconds / stream.time_base) + (stream.start_time or 0)
    container.seek(offset, stream=stream, backward=True)
    yield from container.decode(stream)


def _as_image(picture: Any) -> Image:
    image: Image = picture.to_image()
    return image
