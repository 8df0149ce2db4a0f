"""Makes the clip that a sandbox without PyAV and Pillow serves: make_ready_made_clip.py

Five seconds of H.264, still but for a progress bar, so that it is a few kB. The result is committed
as a part of the package; run this again only to change the picture.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

TARGET = Path(__file__).parents[1] / "kling_integrations/sandbox/video/ready_made.mp4"
WIDTH, HEIGHT, FPS, SECONDS = 320, 180, 8, 5
INK, WHITE, AMBER = (18, 16, 24), (255, 255, 255), (255, 184, 28)
LINES = (
    "A ready-made clip: PyAV and Pillow are",
    "not installed. To see your own prompt:",
    "pip install 'kling-integrations[sandbox]'",
)


def picture(index: int) -> Image.Image:
    frame = Image.new("RGB", (WIDTH, HEIGHT), INK)
    draw = ImageDraw.Draw(frame)
    draw.rectangle((12, 12, 92, 32), AMBER)
    draw.text((52, 22), "SANDBOX", INK, ImageFont.load_default(12), "mm")
    font = ImageFont.load_default(13)
    draw.multiline_text((12, HEIGHT / 2), "\n".join(LINES), WHITE, font, "lm", spacing=6)
    draw.rectangle((0, HEIGHT - 6, round(WIDTH * (index + 1) / (FPS * SECONDS)), HEIGHT), AMBER)
    return frame


def main() -> None:
    with av.open(str(TARGET), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = "SANDBOX"
        container.metadata["comment"] = "Ready-made for the kling-integrations sandbox, not Kling"
        stream = container.add_stream("libx264", rate=FPS)
        stream.options = {"preset": "veryslow", "crf": "34", "bf": "0"}
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = FPS * SECONDS
        stream.codec_context.time_base = Fraction(1, FPS)
        for index in range(FPS * SECONDS):
            frame = av.VideoFrame.from_image(picture(index))
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
