"""What the videos show."""

import itertools

import pytest
from PIL import Image, ImageChops
from support.videos import as_uri, difference, probe

from kling_integrations.sandbox.video.encode import encode
from kling_integrations.sandbox.video.scene import Scene, frames

SMALL = {"size": (160, 90), "fps": 8}


def test_the_picture_moves_and_shows_mark_and_progress():
    _, _, _, images, _, _ = probe(encode(Scene("m", ("A cat on a roof",), 2), fps=12))
    first, last = images[0], images[-1]
    assert difference(first, last) > 60
    backdrop = (400, 230, 620, 340)  # no text, no bar
    assert difference(first.crop(backdrop), last.crop(backdrop)) > 20
    clock = (540, 10, 630, 45)
    assert difference(images[2].crop(clock), images[4].crop(clock)) > 60
    amber = first.getpixel((28, 28))  # in the badge at the upper left
    assert amber[0] > 200
    assert amber[2] < 110
    bar = [image.getpixel((600, image.height - 2)) for image in (first, last)]
    assert bar[1][0] - bar[0][0] > 40  # the bar at the foot has arrived there at the end
    white = sum(min(pixel) > 200 for pixel in zip(*[iter(first.tobytes())] * 3, strict=True))
    assert white > 300  # the prompt


def test_shots_follow_one_another():
    _, _, _, images, _, _ = probe(encode(Scene("m", ("One", "Two words here"), 4), **SMALL))
    middle = (10, 35, 150, 65)
    steps = [difference(a.crop(middle), b.crop(middle)) for a, b in itertools.pairwise(images)]
    assert steps.index(max(steps)) == len(images) // 2 - 1


def test_an_image_is_shown_and_decides_the_aspect_ratio(caller):
    image = as_uri(Image.new("RGB", (300, 200), (20, 160, 40)), "JPEG")
    url = caller.finished_url(model="klingai/v2.5-turbo/pro/image-to-video", image_url=image)
    width, height, _, images, _, _ = probe(caller.download(url).content)
    assert width / height == pytest.approx(1.5, abs=0.03)
    red, green, blue = images[0].getpixel((width // 2, height // 3))
    assert green > 2 * red
    assert green > 2 * blue


def test_an_image_named_by_url_is_drawn_and_never_fetched(caller):
    """The address is the sandbox itself: a fetch would be counted."""
    address = f"{caller.sandbox.origin}/sandbox-elsewhere/secret.png"
    url = caller.finished_url(model="klingai/v2.5-turbo/pro/image-to-video", image_url=address)
    assert len(probe(caller.download(url).content)[3]) == 40
    assert caller.sandbox.requests["elsewhere"] == 0


def test_an_image_named_by_url_is_named_in_the_caption():
    scenes = [Scene("m", ("A cat",), 1, image=f"https://example.com/{n}.png") for n in "ab"]
    one, other = (next(frames(scene, None, (640, 360), 1, 1)) for scene in scenes)
    left, upper, right, lower = ImageChops.difference(one, other).getbbox()
    assert 20 <= left < right < 400
    assert 300 < upper < lower < 345


@pytest.mark.parametrize("image", ["data:image/png;base64,AAAA", "data:,", "iVBORw0KGgo" * 9])
def test_an_unreadable_image_does_not_stop_the_video(caller, image):
    url = caller.finished_url(model="klingai/v2.5-turbo/pro/image-to-video", image_url=image)
    assert len(probe(caller.download(url).content)[3]) == 40


@pytest.mark.parametrize(
    "text",
    ["", "x" * 3000, "long " * 500, "tab\tand\nnew line\x00", "<b>&amp;", "日本語 🦝 العربية"],
    ids=["empty", "one long word", "many words", "control", "markup", "other scripts"],
)
@pytest.mark.parametrize("ratio", [16 / 9, 9 / 16])
def test_any_prompt_can_be_drawn(text, ratio):
    assert len(probe(encode(Scene("m", (text,), 0.5, ratio), **SMALL))[3]) == 4
