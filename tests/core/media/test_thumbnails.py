"""Small JPEGs of pictures, as a request sends them or as objects."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from support.videos import as_uri

from kling_integrations.core.errors import InvalidRequestError
from kling_integrations.core.media import thumbnail


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_a_picture_is_made_small_and_its_own_size_is_told(mode):
    data, size = thumbnail(Image.new(mode, (640, 320)), 160)
    assert opened(data).format == "JPEG"
    assert opened(data).size == (160, 80)
    assert size == (640, 320)


def test_what_is_see_through_is_white_as_on_a_page():
    data, _ = thumbnail(as_uri(Image.new("RGBA", (64, 64), (0, 0, 0, 0))), 64)
    assert min(opened(data).getpixel((32, 32))) > 250


@pytest.mark.parametrize("text", ["data:image/png;base64,AAAA", "no base64 at all!"])
def test_what_is_no_picture_is_an_error_that_can_be_caught(text):
    with pytest.raises(InvalidRequestError):
        thumbnail(text, 64)
