"""One picture of many videos: their first pictures side by side, each with its label."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidRequestError
from .encoding import pillow
from .frames import poster

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDTH, _NARROWEST = 1600, 96  # pixels of the sheet, and of a picture at least
_GAP, _LABEL = 6, 16  # pixels between pictures, and for a line of text
_MARK = "contact sheet, kling-integrations"
_MOST = 600  # pictures on one sheet


@dataclass(frozen=True, slots=True)
class Tile:
    """One video of a sheet. ``path`` None: it has none, and its label says why."""

    label: str
    path: Path | None


def contact_sheet(
    tiles: Sequence[Tile], *, columns: int | None = None, width: int | None = None
) -> Image:
    """The sheet, ``width`` pixels wide (default: 1600).

    At most 600 videos are shown, the first ones. A video that cannot be read leaves its place
    empty. Raises InvalidRequestError for no videos and without Pillow and PyAV.
    """
    if not tiles:
        raise InvalidRequestError("There are no videos for a contact sheet.")
    images, width = pillow(), width or _WIDTH
    from PIL import ImageDraw, ImageFont

    tiles = tiles[:_MOST]
    columns = columns or max(1, min(math.ceil(math.sqrt(1.6 * len(tiles))), width // _NARROWEST))
    wide = (width - _GAP) // columns - _GAP
    pictures = [_picture(tile, wide) for tile in tiles]
    tall = max((each.height for each in pictures if each), default=wide * 9 // 16)
    lines = math.ceil(len(tiles) / columns)
    sheet: Image = images.new("RGB", (width, _GAP + lines * (tall + _LABEL + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_LABEL - 5)
    for number, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        left = _GAP + number % columns * (wide + _GAP)
        top = _GAP + number // columns * (tall + _LABEL + _GAP)
        if picture:
            sheet.paste(picture, (left + (wide - picture.width) // 2, top))
        else:
            draw.rectangle((left, top, left + wide - 1, top + tall - 1), outline="#bbbbbb")
        draw.text((left, top + tall + 1), _fitting(tile.label, draw, font, wide), "#333333", font)
    return sheet


def encoded(sheet: Image, kind: str) -> bytes:
    """The sheet as the bytes of a ``JPEG`` or a ``PNG``, which say what they are."""
    from PIL.PngImagePlugin import PngInfo

    data, info = io.BytesIO(), PngInfo()
    info.add_text("comment", _MARK)
    sheet.save(data, kind, quality=80, optimize=True, comment=_MARK, pnginfo=info)
    return data.getvalue()


def is_contact_sheet(path: Path) -> bool:
    """Whether a file is a sheet that was made here."""
    try:
        with pillow().open(path) as picture:
            mark = picture.info.get("comment", "")
    except Exception:  # noqa: BLE001 (whatever it is, it is none)
        return False
    return (mark.decode(errors="replace") if isinstance(mark, bytes) else mark) == _MARK


def _picture(tile: Tile, wide: int) -> Image | None:
    try:
        if tile.path is None:
            return None
        picture: Image = pillow().open(io.BytesIO(poster(tile.path, wide))).convert("RGB")
    except InvalidRequestError:
        return None
    picture.thumbnail((wide, 2 * wide))
    return picture


def _fitting(label: str, draw: object, font: object, wide: int) -> str:
    """As much of a label as there is room for; what the font cannot draw is a question mark."""
    text = " ".join(label.split()).encode("latin-1", "replace").decode("latin-1")
    while text and draw.textlength(text, font=font) > wide:  # type: ignore[attr-defined]
        text = text[: -max(1, len(text) // 8)]
    return text
