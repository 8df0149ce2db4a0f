"""Small JPEGs of pictures, to be shown beside text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ..errors import InvalidRequestError
from .images import decoded, pillow

if TYPE_CHECKING:
    from PIL.Image import Image


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
