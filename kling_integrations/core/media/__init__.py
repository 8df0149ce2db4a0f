"""Pictures in (``images``), frames and posters out (``frames``), small ones (``thumbnails``)."""

from __future__ import annotations

from .frames import VideoFacts, frame, last_frame, poster, probe
from .images import ImageLimits, check_image, image_size, image_type, image_url, limits_for
from .thumbnails import thumbnail

__all__ = [
    "ImageLimits",
    "VideoFacts",
    "check_image",
    "frame",
    "image_size",
    "image_type",
    "image_url",
    "last_frame",
    "limits_for",
    "poster",
    "probe",
    "thumbnail",
]
