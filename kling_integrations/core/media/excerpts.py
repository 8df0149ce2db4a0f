"""What a video is made into where it cannot go itself: pictures, an array, a GIF, a small MP4.

Pictures are decoded one by one, so that a video of any length takes the memory of a few frames;
only an array holds them all, and says beforehand how much that is. PyAV, Pillow and NumPy are
imported when they are needed.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequestError
from .encoding import missing_package
from .frames import checksum, converted, known_frame, moment_of, opened_video, readable

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_ARRAY = 2_000_000_000  # bytes
_EXAMPLES = ((480, 15), (360, 12), (240, 10), (160, 8))  # width and pictures a second, ever less


def all_frames(
    path: str | os.PathLike[str], *, fps: float | None = None, width: int | None = None
) -> Iterator[Image]:
    """The pictures one after the other; the next is decoded when it is asked for.

    ``fps`` thins them out to so many a second (default: all), ``width`` makes them so wide.
    Raises InvalidRequestError when the file holds no readable video, and for an ``fps`` or
    ``width`` that is not more than 0.
    """
    _check(fps=fps, width=width)
    return _known(path, fps, width)


def _known(path: str | os.PathLike[str], fps: float | None, width: int | None) -> Iterator[Image]:
    """Each as the frame of its video that it is."""
    video = None
    for picture, moment in _thinned(path, fps):
        if video is None:
            with Path(path).expanduser().open("rb") as file:
                video = checksum(file)
        yield known_frame(picture, video, moment, _size(picture, width))


def array(
    path: str | os.PathLike[str], *, fps: float | None = None, width: int | None = None
) -> Any:
    """All pictures as a NumPy array of uint8, shaped (pictures, height, width, 3).

    ``fps`` and ``width`` are as in ``all_frames``. Raises InvalidRequestError where it would take
    more than 2 GB, and as ``all_frames`` does.
    """
    try:
        import numpy as np
    except ImportError:
        raise missing_package("NumPy") from None
    _check(fps=fps, width=width)
    pictures, size = [], 0
    for picture, _ in _thinned(path, fps):
        pictures.append(np.asarray(converted(picture, *_size(picture, width))))
        size += pictures[-1].nbytes
        if size > _MOST_ARRAY / 2:  # while they are put together they are there twice
            raise InvalidRequestError(
                f"The pictures of {Path(path).name} take more than {_MOST_ARRAY / 1e9:g} GB.",
                hint="Take fewer (fps=) or smaller ones (width=), or go through them one by one.",
            )
    return np.stack(pictures)


def gif(path: str | os.PathLike[str], *, fps: float = 8, width: int = 320) -> bytes:
    """The video as an animated GIF that repeats, without sound, ``width`` pixels wide."""
    _check(fps=fps, width=width)
    pictures = [
        picture.to_image().quantize(64) for picture in _scaled(path, fps, width)
    ]  # a byte each
    data = io.BytesIO()
    with readable(path):
        pictures[0].save(
            data,
            "GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 / fps),
            loop=0,
            optimize=True,
        )
    return data.getvalue()


def small_copy(path: str | os.PathLike[str], most: int = 1_000_000) -> bytes:
    """The video as an MP4 of at most ``most`` bytes, smaller and without sound.

    Raises InvalidRequestError where it cannot be made that small, and as ``all_frames`` does.
    """
    with readable(path):
        for width, fps in _EXAMPLES:
            data = _encoded(path, width, fps, most)
            if data is not None:
                return data
    raise InvalidRequestError(f"{Path(path).name} is too long for a copy of {most / 1e6:g} MB.")


def _encoded(path: str | os.PathLike[str], width: int, fps: int, most: int) -> bytes | None:
    """One try; None as soon as it has become too large."""
    import av

    with tempfile.TemporaryDirectory(prefix="kling-copy-") as folder:
        # A file and not memory: moving the index to the front reads back what was written.
        small = Path(folder, "small.mp4")
        size = 0
        with av.open(str(small), "w", format="mp4", options={"movflags": "+faststart"}) as out:
            stream: Any = out.add_stream(
                "libx264", rate=fps, options={"preset": "veryfast", "crf": "30"}
            )
            stream.pix_fmt = "yuv420p"
            number = -1
            for picture in _scaled(path, fps, width):
                if number < 0:
                    stream.width, stream.height = picture.width, picture.height
                number = max(number + 1, round((picture.time or 0) * fps))
                picture.pts, picture.time_base = number, Fraction(1, fps)
                packets = stream.encode(picture)
                size += sum(packet.size for packet in packets)
                if size > most:
                    return None
                out.mux(packets)
            out.mux(stream.encode(None))
        data = small.read_bytes()
    return data if len(data) <= most else None


def _check(**numbers: float | None) -> None:
    for name, number in numbers.items():
        if number is not None and not 0 < number < float("inf"):
            raise InvalidRequestError(f"{name} must be more than 0, not {number!r}.")


def _scaled(path: str | os.PathLike[str], fps: float | None, width: int | None) -> Iterator[Any]:
    """Pictures of PyAV, thinned out, no wider than asked for, with even sides."""
    for picture, _ in _thinned(path, fps):
        wide, tall = _size(picture, width)
        yield picture.reformat(width=wide, height=tall, format="rgb24")


def _thinned(path: str | os.PathLike[str], fps: float | None) -> Iterator[tuple[Any, str]]:
    """Decoded pictures, so many a second, each with its moment as a frame is known by it."""
    with opened_video(path) as (container, stream):
        due, decoded = 0.0, container.decode(stream)
        picture, number = next(decoded, None), 0
        while picture is not None:
            following = next(decoded, None)
            moment = picture.time if picture.time is not None else number / 24
            if fps is None or moment + 5e-4 >= due:  # times are fractions
                due = max(due + 1 / fps, moment) if fps else 0.0
                is_last = following is None
                yield picture, "last" if is_last else moment_of(picture, stream) or f"#{number}"
            picture, number = following, number + 1


def _size(picture: Any, width: int | None) -> tuple[int, int]:
    if width is None:
        return picture.width, picture.height
    wide = min(width, picture.width)
    return _even(wide), _even(picture.height * wide / picture.width)


def _even(side: float) -> int:
    """H.264 takes even sides only."""
    return max(2, round(side / 2) * 2)
