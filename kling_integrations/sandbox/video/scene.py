"""The frames of a sandbox video: what is drawn, and how it moves.

Pillow is imported when something is drawn and not before. Nothing is ever fetched: an image that
was given as a URL is drawn as a card that names the URL.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    RGB = tuple[int, int, int]

WHITE = (255, 255, 255)
AMBER = (255, 184, 28)
INK = (18, 16, 24)
# Dark, middle, bright, and the light that wanders; the prompt picks one.
PALETTES = (
    ((16, 14, 44), (76, 36, 122), (222, 92, 118), (255, 206, 148)),
    ((8, 24, 44), (16, 92, 116), (70, 190, 160), (214, 250, 206)),
    ((14, 16, 52), (38, 70, 168), (84, 170, 232), (226, 240, 255)),
    ((34, 10, 34), (132, 32, 84), (240, 130, 84), (255, 220, 150)),
    ((20, 18, 40), (62, 66, 140), (178, 120, 214), (255, 200, 228)),
    ((10, 26, 34), (30, 84, 92), (226, 158, 92), (255, 226, 170)),
)
MAX_PIXELS = 60_000_000


@dataclass(frozen=True)
class Scene:
    """What a video shows. `shots` are the prompts in order; they share the seconds evenly."""

    model: str
    shots: tuple[str, ...]
    seconds: float
    ratio: float | None = None  # width / height; None: the image's, or 16:9
    image: str | None = None  # data URI, base64 or URL, as the caller sent it
    audio: bool = False

    def key(self) -> str:
        """Equal scenes have equal keys."""
        return hashlib.sha256(repr(self).encode("utf-8", "replace")).hexdigest()


def pictures(
    scene: Scene, image: Image.Image | None, size: tuple[int, int], frames: int, fps: int
) -> Iterator[Image.Image]:
    from PIL import ImageDraw

    width, height = size
    # Everything is drawn for a short side of 360 and scaled; not beyond what can be read.
    unit = max(min(size) / 360, 0.4)
    picture = image
    if picture is None and scene.image:
        picture = _card(scene.image, size, unit)
    digest = hashlib.sha256(repr(scene.shots).encode("utf-8", "replace")).digest()
    palette = PALETTES[digest[0] % len(PALETTES)]
    behind = _zoom(picture, size) if picture else _aurora(palette, size, digest[1] / 40)
    glow = _glow(round(150 * unit))
    overlays = [_overlay(scene, shot, size, unit, picture is not None) for shot in scene.shots]
    margin, bar = round(20 * unit), max(2, round(4 * unit))

    for index in range(frames):
        share = index / frames
        frame = behind(share)
        if picture is None:
            angle = 2 * math.pi * index / fps / 8 - 1
            x = width * (0.5 + 0.36 * math.cos(angle)) - glow.width / 2
            y = height * (0.5 + 0.30 * math.sin(2 * angle)) - glow.height / 2
            frame.paste(palette[3], (round(x), round(y)), glow)
        overlay = overlays[min(int(share * len(overlays)), len(overlays) - 1)]
        frame.paste(overlay, (0, 0), overlay)
        clock = _text(f"{index / fps:.1f} / {scene.seconds:g} s", 14 * unit)
        frame.paste(WHITE, (width - margin - clock.width, round(margin + 2 * unit)), clock)
        draw = ImageDraw.Draw(frame, "RGBA")
        draw.rectangle((0, height - bar, width, height), (255, 255, 255, 60))
        reached = round(width * (index + 1) / frames)
        draw.rectangle((0, height - bar, reached, height), AMBER)
        yield frame


def _aurora(
    palette: tuple[RGB, ...], size: tuple[int, int], phase: float
) -> Callable[[float], Image.Image]:
    """Slow coloured clouds: a few dozen cells per frame, enlarged smoothly."""
    from PIL import Image

    columns, rows = (16, 9) if size[0] >= size[1] else (9, 16)
    # The way from dark over the middle to the bright colour, in 256 steps.
    ramp = [_blend(palette, step / 255) for step in range(256)]
    places = [(x / (columns - 1), y / (rows - 1)) for y in range(rows) for x in range(columns)]

    def picture(share: float) -> Image.Image:
        turn = phase + 2 * math.pi * share
        cells = bytearray()
        for u, v in places:
            wave = (
                math.sin(2.4 * u + 1.9 * v + turn)
                + math.sin(3.6 * v - 2.6 * u + 1.3 - turn)
                + math.cos(5 * (u - 0.4) * (v + 0.3) + 2 * phase)
            )
            cells += ramp[min(max(round((wave / 4.4 + 0.46) * 255), 0), 255)]
        small = Image.frombytes("RGB", (columns, rows), bytes(cells))
        return small.resize(size, Image.Resampling.BICUBIC)

    return picture


def _blend(palette: tuple[RGB, ...], light: float) -> bytes:
    first, second = (palette[0], palette[1]) if light < 0.5 else (palette[1], palette[2])
    share = light * 2 % 1 if light < 1 else 1
    return bytes(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def _zoom(picture: Image.Image, size: tuple[int, int]) -> Callable[[float], Image.Image]:
    """The caller's image, filling the frame, approached slowly."""
    from PIL import Image, ImageOps

    large = ImageOps.fit(picture, (round(size[0] * 1.25), round(size[1] * 1.25)))

    def at(share: float) -> Image.Image:
        scale = 1 - 0.2 * share
        width, height = large.width * scale, large.height * scale
        left = (large.width - width) * (0.5 + 0.2 * math.sin(math.pi * share))
        upper = (large.height - height) / 2
        box = (left, upper, left + width, upper + height)
        return large.resize(size, Image.Resampling.BILINEAR, box=box)

    return at


def _glow(diameter: int) -> Image.Image:
    from PIL import Image

    # The gradient is 0 in the middle and 255 in the corners; the disc has a soft edge.
    fall = [round(235 / (1 + math.exp((i - 70) / 16))) if i < 180 else 0 for i in range(256)]
    side = max(4, diameter)
    return Image.radial_gradient("L").point(fall).resize((side, side))


def _overlay(scene: Scene, shot: str, size: tuple[int, int], unit: float, low: bool) -> Image.Image:
    """All that stands still: the mark, the prompt, the model. `low` leaves the middle free."""
    from PIL import Image, ImageDraw

    # Drawn at twice the size: small type comes out evenly spaced.
    final, unit = size, unit * 2
    width, height = size[0] * 2, size[1] * 2
    margin = round(20 * unit)
    shade = Image.new("L", (1, height))
    for y in range(height):
        depth = y / height
        foot = max(0.0, (depth - 0.4) / 0.6) * (200 if low else 90)
        head = max(0.0, 1 - depth / 0.25) * 90
        shade.putpixel((0, y), round(max(foot, head)))
    overlay = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    overlay.putalpha(shade.resize((width, height)))
    # Drawing on RGBA replaces alpha too; so the text gets a layer of its own.
    layer = Image.new("RGBA", (width, height), (255, 255, 255, 0))
    draw = ImageDraw.Draw(layer)

    font, stroke = _font(14 * unit), round(0.35 * unit)
    _, _, right, _ = draw.textbbox((0, 0), "SANDBOX", font, stroke_width=stroke)
    box = (margin, margin - 4 * unit, margin + right + 18 * unit, margin + 20 * unit)
    draw.rounded_rectangle(box, 12 * unit, AMBER)
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    draw.text(middle, "SANDBOX", INK, font, "mm", stroke_width=stroke, stroke_fill=INK)

    font, floor = _font(12 * unit), float(height - margin)
    note = "Rendered on this machine, not by Kling"
    # A thumbnail has no room for the note.
    for line, alpha in ((note, 190), (scene.model, 240))[min(size) < 200 :]:
        text = _fit(draw, line, font, width - 2 * margin)
        draw.text((margin, floor), text, (255, 255, 255, alpha), font, "ls")
        floor -= round(17 * unit)

    ceiling, floor = box[3] + 14 * unit, floor - 6 * unit
    font, lines = _wrap(draw, shot, width - 2 * margin, floor - ceiling, unit)
    step = font.size * 1.28
    block = step * len(lines)
    top = floor - block if low else ceiling + (floor - ceiling - block) / 2
    for number, line in enumerate(lines):
        left, upper = margin, top + number * step
        draw.text((left + unit, upper + unit), line, (0, 0, 0, 140), font)
        draw.text((left, upper), line, WHITE, font)
    overlay.alpha_composite(layer)
    return overlay.resize(final, Image.Resampling.BOX)


def _text(text: str, points: float) -> Image.Image:
    """One line as a mask, drawn at twice the size for the same reason."""
    from PIL import Image, ImageDraw

    font = _font(points * 2)
    mask = Image.new("L", (round(font.getlength(text)) + 4, round(points * 3)))
    ImageDraw.Draw(mask).text((2, 0), text, 255, font)
    return mask.reduce(2)


def _wrap(
    draw: ImageDraw.ImageDraw, text: str, width: float, height: float, unit: float
) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """The largest type in which the text fits; a long text ends with an ellipsis."""
    text = re.sub(r"[\s\x00-\x1f]+", " ", text).strip()[:600] or "(no prompt)"
    for points in (30, 26, 22, 19, 16, 14):
        font = _font(points * unit)
        lines = _lines(draw, text, font, width)
        if len(lines) * font.size * 1.28 <= height:
            return font, lines
    room = max(1, int(height / (font.size * 1.28)))
    lines = lines[:room]
    lines[-1] = _fit(draw, lines[-1] + "…", font, width)
    return font, lines


def _lines(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float
) -> list[str]:
    lines: list[str] = []
    for word in text.split(" "):
        # A word wider than the frame (a URL, text without spaces) is broken.
        for piece in textwrap.wrap(word, max(1, int(width / (font.size * 0.6)))) or [""]:
            joined = f"{lines[-1]} {piece}" if lines else piece
            if lines and draw.textlength(joined, font) <= width:
                lines[-1] = joined
            else:
                lines.append(piece)
    return lines


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "…", font) > width:
        text = text[:-1]
    return text.rstrip("…") + "…"


@functools.lru_cache(maxsize=64)
def _font(points: float) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=max(6.0, points))


def decode(image: str | None) -> Image.Image | None:
    """The image of a data URI or of bare base64; None for a URL or what is no image."""
    if not image or image.startswith(("http://", "https://")):
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


def _card(image: str, size: tuple[int, int], unit: float) -> Image.Image:
    """Stands for an image that was named by URL: the sandbox fetches nothing."""
    from PIL import Image, ImageDraw

    width, height = size
    card = Image.new("RGB", size, (38, 44, 62))
    draw = ImageDraw.Draw(card)
    for y in range(height):
        tint = y / height
        draw.line((0, y, width, y), (round(58 + 170 * tint), round(84 + 70 * tint), 150))
    draw.ellipse(
        (width * 0.74, height * 0.10, width * 0.74 + 56 * unit, height * 0.10 + 56 * unit),
        (255, 226, 160),
    )
    draw.polygon(
        [(0, height), (0, height * 0.72), (width * 0.3, height * 0.38), (width * 0.7, height)],
        (46, 62, 92),
    )
    draw.polygon(
        [
            (width * 0.25, height),
            (width * 0.68, height * 0.5),
            (width, height * 0.76),
            (width, height),
        ],
        (32, 42, 68),
    )
    name = image if image.startswith(("http://", "https://")) else "(cannot be read)"
    font = _font(13 * unit)
    text = _fit(draw, f"image: {name}", font, width * 0.72)
    half = draw.textlength(text, font) / 2 + 12 * unit
    across, down = width / 2, height * 0.36
    pill = (across - half, down - 13 * unit, across + half, down + 13 * unit)
    draw.rounded_rectangle(pill, 13 * unit, (28, 34, 56))
    draw.text((across, down), text, WHITE, font, "mm")
    return card
