"""Pictures in (``images``, objects by ``encoding``), frames, posters and small ones out
(``frames``), and what a video is made into (``excerpts``)."""

from __future__ import annotations

from .excerpts import all_frames, array, gif, small_copy
from .frames import VideoFacts, frame, last_frame, poster, probe, thumbnail
from .images import ImageLimits, check_image, image_size, image_type, image_url, limits_for

__all__ = [
    "ImageLimits",
    "VideoFacts",
    "all_frames",
    "array",
    "check_image",
    "frame",
    "gif",
    "image_size",
    "image_type",
    "image_url",
    "last_frame",
    "limits_for",
    "poster",
    "probe",
    "small_copy",
    "thumbnail",
]
