"""A real H.264 MP4 for a generation that never happened: encoding, sound, a size known before.

PyAV is imported when something is rendered and not before.
"""

from __future__ import annotations

import functools
import math
import tempfile
from array import array
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kling_integrations.sandbox.video.scene import Scene, decode, pictures

if TYPE_CHECKING:
    from av.container import OutputContainer

SAMPLE_RATE = 48_000


class RenderStoppedError(Exception):
    """The sandbox closes; nobody waits for this video any more."""


def frame_size(ratio: float, size: tuple[int, int]) -> tuple[int, int]:
    """Even width and height of that ratio, with the short side of `size`."""
    ratio = min(max(ratio, 0.4), 2.5)
    short = min(size)
    width, height = (short * ratio, short) if ratio >= 1 else (short, short / ratio)
    return max(16, round(width / 2) * 2), max(16, round(height / 2) * 2)


def file_size(scene: Scene, size: tuple[int, int], fps: int) -> int:
    """Bytes that the file will have.

    Some reply shapes state the size with the address, long before anybody downloads. So length
    and frame size alone fix it: the encoder is held below it, a `free` box fills up the rest.
    """
    frames = max(1, round(scene.seconds * fps))
    # The encoder may spend its rate and, once, the buffer of one second.
    video = (scene.seconds + 1) * _bit_rate(size, fps) / 8
    return int(24_576 + frames * 64 + video + scene.audio * (scene.seconds + 1) * 12_000)


def _bit_rate(size: tuple[int, int], fps: int) -> int:
    return max(96_000, int(size[0] * size[1] * fps * 0.08))


def render(
    scene: Scene,
    size: tuple[int, int] = (640, 360),
    fps: int = 24,
    stopped: Callable[[], bool] = lambda: False,
) -> bytes:
    """The MP4: yuv420p, index in front, a key frame each second, exactly `file_size` long.

    Raises RenderStoppedError when `stopped()` becomes true in between.
    """
    total = file_size(scene, size, fps)
    data = _encode(scene, size, fps, stopped)
    padding = max(8, total - len(data))
    return data + padding.to_bytes(4, "big") + b"free" + bytes(padding - 8)


def _encode(
    scene: Scene,
    size: tuple[int, int],
    fps: int,
    stopped: Callable[[], bool],
) -> bytes:
    import av

    frames = max(1, round(scene.seconds * fps))
    image = decode(scene.image)
    ratio = scene.ratio or (image.width / image.height if image else 16 / 9)
    width, height = frame_size(ratio, size)
    rate = _bit_rate(size, fps)
    make_frame: Any = av.VideoFrame.from_image  # without types in PyAV's stubs
    with tempfile.TemporaryDirectory(prefix="kling-sandbox-") as folder:
        path = Path(folder, "sandbox.mp4")
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            container.metadata["title"] = f"SANDBOX: {scene.shots[0][:200]}"
            container.metadata["comment"] = "Rendered by the kling-integrations sandbox, not Kling"
            stream = container.add_stream(
                "libx264",
                rate=fps,
                options={
                    "preset": "veryfast",
                    "crf": "24",
                    "maxrate": str(rate),
                    "bufsize": str(rate),
                    "bf": "0",
                    "threads": "1",
                },
            )
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.gop_size = fps
            stream.codec_context.time_base = Fraction(1, fps)
            tone = _add_tone(container) if scene.audio else None
            for index, picture in enumerate(pictures(scene, image, (width, height), frames, fps)):
                if stopped():
                    raise RenderStoppedError
                frame = make_frame(picture)
                frame.pts, frame.time_base = index, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if tone:
                tone(scene.seconds)
        return path.read_bytes()


def _add_tone(container: OutputContainer) -> Callable[[float], None]:
    """A soft chord, so that a player with sound has something to play."""
    import av

    stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
    stream.bit_rate = 48_000

    def write(seconds: float) -> None:
        wave = _chord()
        for start in range(0, int(seconds * SAMPLE_RATE), 1024):
            frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            offset = start % SAMPLE_RATE
            samples = (wave + wave)[offset : offset + 1024]
            frame.planes[0].update(samples.tobytes())
            frame.sample_rate, frame.pts = SAMPLE_RATE, start
            frame.time_base = Fraction(1, SAMPLE_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    return write


@functools.lru_cache(maxsize=1)
def _chord() -> array[float]:
    """One second that loops without a click: whole periods only."""
    step = 2 * math.pi / SAMPLE_RATE
    return array(
        "f",
        (
            0.03 * (math.sin(220 * step * i) + math.sin(277 * step * i) + math.sin(330 * step * i))
            for i in range(SAMPLE_RATE)
        ),
    )
