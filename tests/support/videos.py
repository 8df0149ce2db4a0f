"""Looks into MP4s and makes images for requests."""

import base64
import io

import av


def probe(data):
    """Width, height, seconds, frames (as images), key frames, kinds of streams."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        kinds = [s.type for s in container.streams]
        seconds = float(stream.duration * stream.time_base)
        frames = list(container.decode(stream))
        keys = sum(frame.key_frame for frame in frames)
        images = [frame.to_image() for frame in frames]
    return stream.width, stream.height, seconds, images, keys, kinds


def boxes(data):
    """The names of the file's outermost boxes; fails when their lengths do not add up."""
    names, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        names.append(data[at + 4 : at + 8].decode())
        assert 8 <= size <= len(data) - at
        at += size
    return names


def as_uri(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def difference(one, other):
    return max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))
