"""The frames of a sandbox video: what is drawn, and how it moves.

A backdrop (the request's image, or coloured clouds that the prompt picks), across which the camera
pans; on it the prompt, the model, the elapsed seconds and a progress bar. Pillow is imported when
something is drawn and not before. Nothing is ever fetched: an image that was given as a URL is
named in the caption.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import io
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..prices import has_audio, seconds_of
from ..validation import find_model

if TYPE_CHECKING:
    from PIL import Image, ImageFont

WHITE = (255, 255, 255)
AMBER = (255, 184, 28)
INK = (18, 16, 24)
# Dark, middle and bright colour of the clouds.
PALETTES = (
    ((16, 14, 44), (76, 36, 122), (222, 92, 118)),
    ((8, 24, 44), (16, 92, 116), (70, 190, 160)),
    ((14, 16, 52), (38, 70, 168), (84, 170, 232)),
    ((34, 10, 34), (132, 32, 84), (240, 130, 84)),
    ((20, 18, 40), (62, 66, 140), (178, 120, 214)),
    ((10, 26, 34), (30, 84, 92), (226, 158, 92)),
)
BACKDROP = 1.25  # its size relative to the frame: the room for the camera
FONT_SIZES = (30, 26, 22, 19, 16, 14)  # of the prompt, for a frame whose short side is 360
MAX_CHARACTERS = 600
MAX_PIXELS = 60_000_000


@dataclass(frozen=True)
class Scene:
    """What a video shows. `shots` are the prompts in order; they share the seconds evenly."""

    model: str
    shots: tuple[str, ...]
    seconds: float
    ratio: float | None = None  # width / height; None: the image's, or 16:9
    image: str | None = None  # data URI, base64 or URL, as in the request
    audio: bool = False

    @classmethod
    def of(cls, model: str, payload: Mapping[str, Any]) -> Scene:
        """The scene that the body of a submit asks for."""
        return cls(
            model=model,
            shots=_shots(payload),
            seconds=seconds_of(payload),
            ratio=_ratio(payload.get("aspect_ratio")),
            image=_image(payload),
            audio=has_audio(find_model(model), payload),
        )

    def digest(self) -> str:
        """Equal scenes have equal digests."""
        return hashlib.sha256(repr(self).encode("utf-8", "replace")).hexdigest()


def _shots(payload: Mapping[str, Any]) -> tuple[str, ...]:
    shots = payload.get("multi_prompt")
    if isinstance(shots, list) and shots:
        texts = [shot.get("prompt") if isinstance(shot, Mapping) else shot for shot in shots]
        return tuple(str(text) for text in texts)
    return (str(payload.get("prompt") or payload.get("effect_scene") or ""),)


def _ratio(text: Any) -> float | None:
    try:
        width, height = str(text).split(":")
        return float(width) / float(height)
    except (ValueError, ZeroDivisionError):
        return None


def _image(payload: Mapping[str, Any]) -> str | None:
    for name in ("image_url", "image_list", "image_urls"):
        value = payload.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str) and value:
            return value
    return None


def decode(image: str | None) -> Image.Image | None:
    """The image of a data URI or of bare base64; None for a URL or what is no image."""
    if not image or _is_url(image):
        return None
    from PIL import Image, ImageOps

    try:
        raw = base64.b64decode(image.partition(",")[2] if image.startswith("data:") else image)
        picture = Image.open(io.BytesIO(raw))
        if picture.width * picture.height > MAX_PIXELS:
            return None
        return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, binascii.Error, Image.DecompressionBombError):
        return None


def _is_url(image: str) -> bool:
    return image.startswith(("http://", "https://"))


def frames(
    scene: Scene, image: Image.Image | None, size: tuple[int, int], count: int, fps: int
) -> Iterator[Image.Image]:
    """`count` RGB images of that width and height; `image` is the decoded `scene.image`."""
    from PIL import ImageDraw

    width, height = size
    # Everything is drawn for a short side of 360 and scaled; not beyond what can be read.
    unit = max(min(size) / 360, 0.4)
    camera = _camera(image or _clouds(scene), size)
    captions = [_caption(scene, shot, size, unit, image is not None) for shot in scene.shots]
    margin, bar, font = round(20 * unit), max(2, round(4 * unit)), _font(14 * unit)
    for index in range(count):
        share = index / count
        frame = camera(share)
        caption = captions[int(share * len(captions))]
        frame.paste(caption, (0, 0), caption)
        draw = ImageDraw.Draw(frame, "RGBA")
        elapsed = f"{index / fps:.1f} / {scene.seconds:g} s"
        draw.text((width - margin, margin), elapsed, WHITE, font, "ra")
        draw.rectangle((0, height - bar, width, height), (255, 255, 255, 60))
        draw.rectangle((0, height - bar, round(width * (index + 1) / count), height), AMBER)
        yield frame


def _clouds(scene: Scene) -> Image.Image:
    """Coloured clouds, always the same for the same prompts."""
    from PIL import Image, ImageOps

    digest = hashlib.sha256(repr(scene.shots).encode("utf-8", "replace")).digest()
    dark, middle, bright = PALETTES[digest[0] % len(PALETTES)]
    cells = Image.frombytes("L", (8, 4), digest)
    clouds = cells.resize((320, 160), Image.Resampling.BICUBIC)
    return ImageOps.colorize(clouds, dark, bright, middle)


def _camera(picture: Image.Image, size: tuple[int, int]) -> Callable[[float], Image.Image]:
    """A pan across the picture: from the share of the video that has passed to a frame."""
    from PIL import ImageOps

    width, height = size
    large = ImageOps.fit(picture, (round(width * BACKDROP), round(height * BACKDROP)))

    def frame(share: float) -> Image.Image:
        left = round((large.width - width) * share)
        upper = round((large.height - height) * (1 - share))
        return large.crop((left, upper, left + width, upper + height))

    return frame


def _caption(scene: Scene, shot: str, size: tuple[int, int], unit: float, low: bool) -> Image.Image:
    """All that stands still: badge, prompt, notes. `low` leaves the middle free for an image."""
    from PIL import Image, ImageDraw

    width, height = size
    margin = round(20 * unit)
    # A shade behind the text: even, or growing towards the foot.
    layer = Image.new("RGBA", size, (0, 0, 0, 60))
    if low:
        slope = [max(30, value - 60) for value in range(256)]
        layer.putalpha(Image.linear_gradient("L").point(slope).resize(size))
    draw = ImageDraw.Draw(layer)

    font = _font(14 * unit)
    right = margin + font.getlength("SANDBOX") + 18 * unit
    top, bottom = margin - 4 * unit, margin + 20 * unit
    draw.rounded_rectangle((margin, top, right, bottom), 12 * unit, AMBER)
    middle = ((margin + right) / 2, (top + bottom) / 2)
    draw.text(middle, "SANDBOX", INK, font, "mm")

    notes, font = _notes(scene, min(size) >= 200), _font(12 * unit)
    notes = [_shorten(note, font, width - 2 * margin) for note in notes]
    draw.text((margin, height - margin), "\n".join(notes), WHITE, font, "ld")

    ceiling = bottom + 10 * unit
    floor = height - margin - (17 * len(notes) + 6) * unit
    text, font = _fit(shot, width - 2 * margin, floor - ceiling, unit)
    position, anchor = (floor, "ld") if low else ((ceiling + floor) / 2, "lm")
    draw.text((margin + unit, position + unit), text, (0, 0, 0, 140), font, anchor)
    draw.text((margin, position), text, WHITE, font, anchor)
    return layer


def _notes(scene: Scene, all_of_them: bool) -> list[str]:
    """The lines at the foot. A thumbnail has no room for the last one."""
    notes = [scene.model]
    if scene.image and (_is_url(scene.image) or decode(scene.image) is None):
        notes.append(f"image: {scene.image if _is_url(scene.image) else '(cannot be read)'}")
    return [*notes, "Rendered on this machine, not by Kling"] if all_of_them else notes


def _fit(text: str, width: float, height: float, unit: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text in lines and the largest font in which it fits; a long one ends with an ellipsis."""
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    text = " ".join(printable.split())[:MAX_CHARACTERS] or "(no prompt)"
    for points in FONT_SIZES:
        font = _font(points * unit)
        columns = max(1, int(width / font.getlength("e")))
        block = textwrap.fill(text, columns)
        _, _, right, bottom = draw.multiline_textbbox((0, 0), block, font)
        if right <= width and bottom <= height:
            return block, font
    rows = max(1, int(height / bottom * (block.count("\n") + 1)))
    columns = max(1, int(columns * min(1, width / right)))
    return textwrap.fill(text, columns, max_lines=rows, placeholder="…"), font


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    room = int(len(text) * width / max(1, font.getlength(text)))
    return text if room >= len(text) else text[: max(0, room - 1)] + "…"


@functools.lru_cache(maxsize=64)
def _font(points: float) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=max(6.0, points))
