"""The first picture of a video in any store."""

from __future__ import annotations

import threading
from typing import BinaryIO

from ...core.errors import InvalidRequestError
from ...core.media import frames

# Decoding takes processor time that the API server needs for everything else.
_one_at_a_time = threading.Semaphore(1)


def poster_of(file: BinaryIO) -> bytes:
    """A JPEG; empty where there is none to be had (PyAV is missing, the file is broken)."""
    with _one_at_a_time:
        try:
            return frames.poster(file)
        except InvalidRequestError:
            return b""
