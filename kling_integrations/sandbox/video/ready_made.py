"""The clip for a plain installation: without PyAV and Pillow no video can be encoded.

It is committed beside this file, and `scripts/make_ready_made_clip.py` has made it.
"""

from __future__ import annotations

import functools
from importlib import resources

from .encode import file_size, padded
from .scene import Scene

NOTE = (
    "Videos are one ready-made clip, because PyAV and Pillow are not installed; "
    "with them they show your prompt: pip install 'kling-integrations[sandbox]'"
)


def ready_made(scene: Scene, size: tuple[int, int], fps: int) -> bytes:
    """A real MP4 of five seconds, whatever the scene, as long in bytes as the scene's own."""
    return padded(_clip(), file_size(scene, size, fps))


@functools.cache
def _clip() -> bytes:
    return resources.files(__package__).joinpath("ready_made.mp4").read_bytes()
