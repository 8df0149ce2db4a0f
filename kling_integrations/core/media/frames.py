"""Frames out: stills of a saved video, what its file holds, and small JPEGs of pictures.

PyAV and Pillow are imported when the caller asks for a frame.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import InvalidRequestError
from .encoding import as_frame, missing_package, pillow
from .images import decoded, shortened

if TYPE_CHECKING:
    from PIL.Image import Image


# swscale's BICUBIC | FULL_CHR_H_INT | ACCURATE_RND: plain C, SSE and NEON then round alike.
_EXACT = 0x4 | 0x2000 | 0x40000
_PART = 2**20  # bytes of a file that are hashed at once

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
    with readable(path), _opened(path) as file:
        picture, moment = _frame(path, file, seconds)
        return known_frame(picture, checksum(file), moment)


def last_frame(path: Source) -> Image:
    """The last picture, for a video that goes on where this one ended."""
    with readable(path), _opened(path) as file:
        with opened_video(path, file) as (container, stream):
            duration = _duration(container, stream) or 0.0
            for start in (max(0.0, duration - 0.5), 0.0):  # again if the end cannot be sought
                if last := deque(_pictures_from(container, stream, start), maxlen=1):
                    break
            else:
                raise InvalidRequestError(f"{_name(path)} holds no picture.")
        return known_frame(last[0], checksum(file), "last")


def _frame(path: Source, file: BinaryIO, seconds: float) -> tuple[Any, str]:
    """The picture shown at ``seconds``, and its moment: seconds as a fraction, or ``last``."""
    with opened_video(path, file) as (container, stream):
        shown, moment = None, "last"
        end = _duration(container, stream) or seconds
        for picture in _pictures_from(container, stream, min(seconds, end)):
            # Half a millisecond of grace: times are fractions, 2/24 s is a little over 0.0833.
            if shown is not None and picture.time is not None and picture.time > seconds + 5e-4:
                moment = moment_of(shown, stream) or f"{seconds:g}"
                break
            shown = picture
        if shown is None:
            raise InvalidRequestError(f"{_name(path)} holds no picture.")
        return shown, moment


def moment_of(picture: Any, stream: Any) -> str | None:
    """When it is shown, in seconds from the beginning as a fraction."""
    if picture.pts is None:
        return None
    return str((picture.pts - (stream.start_time or 0)) * Fraction(stream.time_base))


def poster(path: Source, width: int = 480) -> bytes:
    """The first picture as a JPEG of some ten kilobytes, at most ``width`` pixels wide."""
    picture = io.BytesIO()
    with readable(path):
        with _opened(path) as file:
            shown, _ = _frame(path, file, 0)
        image = converted(shown, shown.width, shown.height)
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


def thumbnail(picture: Image | str, width: int) -> tuple[bytes, tuple[int, int]]:
    """A JPEG of at most ``width`` pixels either way, and the picture's own width and height.

    ``picture`` is a PIL image, or a data URI or base64 as a request sends it. Raises
    InvalidRequestError for what is no picture, and without Pillow.
    """
    module = pillow()
    try:
        if isinstance(picture, str):
            image = module.open(io.BytesIO(decoded(picture, "The picture")[1]))
        else:
            image = picture
        size = image.width, image.height
        small = image.copy()
        small.thumbnail((width, width))
        if small.mode in ("RGBA", "LA", "P", "PA"):  # what is see-through would turn black
            small = small.convert("RGBA")
            ground = module.new("RGBA", small.size, "white")
            small = module.alpha_composite(ground, small)
        data = io.BytesIO()
        small.convert("RGB").save(data, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, module.DecompressionBombError) as error:
        raise InvalidRequestError(f"The picture cannot be shown: {error}.") from None
    return data.getvalue(), size


@contextmanager
def opened_video(path: Source, file: BinaryIO | None = None) -> Iterator[tuple[Any, Any]]:
    """The opened video and its first stream of pictures; ``file`` is its file if that is open."""
    try:
        import av
    except ImportError:
        raise missing_package("PyAV") from None
    pillow()
    with readable(path), _opened(file or path) as opened, av.open(opened) as container:
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


def known_frame(
    picture: Any, video: str, moment: str, size: tuple[int, int] | None = None
) -> Image:
    """The decoded picture, known by its video and its moment whatever its pixels are here.

    ``video`` is the checksum of the file, ``size`` width and height of the image if not its own.
    """
    own = picture.width, picture.height
    scaled = "" if size in (None, own) else f" at {size}"
    wide, tall = size or own
    earlier: Image = picture.to_image(width=wide, height=tall)
    identity = f"frame {moment} of {video}{scaled}"
    return as_frame(converted(picture, wide, tall), identity, earlier)


def checksum(file: BinaryIO) -> str:
    """SHA-256 of a whole file, from its beginning."""
    digest = hashlib.sha256()
    file.seek(0)
    while part := file.read(_PART):
        digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def converted(picture: Any, width: int, height: int) -> Image:
    """In RGB with the same pixels on every processor, which FFmpeg's own choice has not."""
    image: Image
    try:
        image = picture.to_image(width=width, height=height, interpolation=_EXACT)
    except (KeyError, TypeError, ValueError):  # PyAV before 13 takes no flags together
        image = picture.to_image(width=width, height=height)
    return image
