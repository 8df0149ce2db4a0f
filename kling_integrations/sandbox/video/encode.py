"""A real H.264 MP4 for a generation that never happened: encoding, sound, a size known before.

PyAV is imported when something is encoded and not before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .scene import Scene, decode, frames

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream

SAMPLE_RATE = 48_000
CHORD = "0.03*(sin(2*PI*220*t)+sin(2*PI*277*t)+sin(2*PI*330*t))"  # loops each second: no click


class EncodingStoppedError(Exception):
    """The sandbox closes: its downloads have ended, and no client waits for this video."""


def frame_size(ratio: float, size: tuple[int, int]) -> tuple[int, int]:
    """Even width and height of that ratio, with the short side of `size`."""
    ratio = min(max(ratio, 0.4), 2.5)
    short = min(size)
    width, height = (short * ratio, short) if ratio >= 1 else (short, short / ratio)
    return max(16, round(width / 2) * 2), max(16, round(height / 2) * 2)


def file_size(scene: Scene, size: tuple[int, int], fps: int) -> int:
    """Bytes that the file will have.

    Some reply formats state the size with the URL, long before the first download. So length
    and frame size alone fix it: the encoder is held below it, a `free` box fills up the rest.
    """
    # The encoder may spend its rate and, once, the buffer of one second.
    video = (scene.seconds + 1) * _bit_rate(size, fps) / 8
    audio = scene.audio * (scene.seconds + 1) * 12_000
    return int(24_576 + _frame_count(scene, fps) * 64 + video + audio)


def _frame_count(scene: Scene, fps: int) -> int:
    return max(1, round(scene.seconds * fps))


def _bit_rate(size: tuple[int, int], fps: int) -> int:
    return max(96_000, int(size[0] * size[1] * fps * 0.08))


def encode(
    scene: Scene,
    size: tuple[int, int] = (640, 360),
    fps: int = 24,
    stopped: Callable[[], bool] = lambda: False,
) -> bytes:
    """The MP4: yuv420p, index in front, a key frame each second, exactly `file_size` long.

    Raises EncodingStoppedError when `stopped()` becomes true in between, and ImportError when
    PyAV or Pillow is not installed.
    """
    import av

    # A file and not memory: moving the index to the front reads back what was written.
    with tempfile.TemporaryDirectory(prefix="kling-sandbox-") as folder:
        path = Path(folder, "sandbox.mp4")
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            container.metadata["title"] = f"SANDBOX: {scene.shots[0][:200]}"
            container.metadata["comment"] = "Rendered by the kling-integrations sandbox, not Kling"
            # Both streams are there before the first packet: the header lists them.
            video = _add_video(container, _bit_rate(size, fps), fps)
            audio = _add_audio(container) if scene.audio else None
            _write_video(container, video, scene, size, fps, stopped)
            if audio is not None:
                _write_audio(container, audio, scene.seconds)
        data = path.read_bytes()
    return padded(data, file_size(scene, size, fps))


def padded(data: bytes, size: int) -> bytes:
    """The MP4 with a `free` box at its end, so that it is `size` bytes long."""
    padding = max(8, size - len(data))
    return data + padding.to_bytes(4, "big") + b"free" + bytes(padding - 8)


def _add_video(container: OutputContainer, bit_rate: int, fps: int) -> VideoStream:
    rate = str(bit_rate)
    options = {"preset": "veryfast", "crf": "24", "maxrate": rate, "bufsize": rate}
    stream = container.add_stream("libx264", rate=fps, options={**options, "bf": "0"})
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1
    stream.codec_context.gop_size = fps
    stream.codec_context.time_base = Fraction(1, fps)
    return stream


def _write_video(
    container: OutputContainer,
    stream: VideoStream,
    scene: Scene,
    size: tuple[int, int],
    fps: int,
    stopped: Callable[[], bool],
) -> None:
    import av

    image = decode(scene.image)
    ratio = scene.ratio or (image.width / image.height if image else 16 / 9)
    stream.width, stream.height = shape = frame_size(ratio, size)
    make_frame: Any = av.VideoFrame.from_image  # without types in PyAV's stubs
    for index, picture in enumerate(frames(scene, image, shape, _frame_count(scene, fps), fps)):
        if stopped():
            raise EncodingStoppedError
        frame = make_frame(picture)
        frame.pts, frame.time_base = index, Fraction(1, fps)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _add_audio(container: OutputContainer) -> AudioStream:
    stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
    stream.bit_rate = 48_000
    return stream


def _write_audio(container: OutputContainer, stream: AudioStream, seconds: float) -> None:
    """A soft chord, so that a player with sound has something to play."""
    from av.filter import Graph

    graph = Graph()
    graph.link_nodes(
        graph.add("aevalsrc", f"{CHORD}:sample_rate={SAMPLE_RATE}:duration=1"),
        graph.add("aloop", f"loop=-1:size={SAMPLE_RATE}"),
        graph.add("atrim", f"duration={seconds}"),
        graph.add("aformat", "sample_fmts=fltp"),
        graph.add("abuffersink"),
    ).configure()
    while True:
        try:
            frame: Any = graph.pull()
        except EOFError:
            break
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
