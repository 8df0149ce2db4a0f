"""What the frame of a video is known by, wherever it is decoded."""

import hashlib
import io
import pickle
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from kling_integrations import VideoRequest
from kling_integrations.core import media
from kling_integrations.core.media import frames, images


def encoded(value):
    return images.encode(value, name="image", model_id=None)


def identity(value):
    return encoded(value).identity


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six busy pictures a twelfth of a second apart: each processor rounds them in its own way."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    noise = np.random.default_rng(3).integers(0, 255, (18, 32, 3)).astype(np.uint8)
    shown = np.asarray(Image.fromarray(noise).resize((320, 180), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=12)
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        for number in range(6):
            picture = av.VideoFrame.from_ndarray(np.roll(shown, number * 9, 1).copy(), "rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 12)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    return path


PLAIN_C = """
import ctypes, glob, hashlib, os, sys
import av
for library in glob.glob(os.path.join(os.path.dirname(av.__file__), "..", "av.libs", "libavutil*")):
    ctypes.CDLL(library).av_force_cpu_flags(0)
from kling_integrations.core import media
from kling_integrations.core.media import images
image = media.last_frame(sys.argv[1])
print(images.encode(image, name="image", model_id=None).identity)
print(hashlib.sha256(image.tobytes()).hexdigest())
"""


def test_a_frame_is_the_same_picture_on_a_processor_without_its_fast_paths(clip):
    out = subprocess.run(
        [sys.executable, "-c", PLAIN_C, str(clip)], capture_output=True, text=True, check=True
    )
    known, pixels = out.stdout.split("\n")[:2]
    image = media.last_frame(clip)
    assert identity(image) == known
    assert hashlib.sha256(image.tobytes()).hexdigest() == pixels


def test_a_frame_is_known_by_video_and_moment_whatever_its_pixels_became(clip, monkeypatch):
    before = identity(media.last_frame(clip)), identity(media.frame(clip, 0.25))
    monkeypatch.setattr(
        frames, "converted", lambda picture, *_: picture.to_image().point(lambda x: x // 2)
    )
    assert (identity(media.last_frame(clip)), identity(media.frame(clip, 0.25))) == before


def test_each_moment_is_a_frame_of_its_own_and_the_last_is_last_however_it_is_asked_for(clip):
    shown = [identity(media.frame(clip, number / 12)) for number in range(6)]
    assert len(set(shown)) == 6
    assert identity(media.frame(clip, 0.05)) == shown[0]  # between two pictures
    assert identity(media.last_frame(clip)) == identity(media.frame(clip, 99)) == shown[-1]


def test_a_frame_is_the_same_one_by_one_or_alone(clip):
    shown = [identity(image) for image in media.all_frames(clip)]
    assert shown == [identity(media.frame(clip, number / 12)) for number in range(6)]
    assert [identity(each) for each in media.all_frames(clip, fps=4)] == shown[::3]
    small = [identity(each) for each in media.all_frames(clip, width=64)]
    assert len({*small, *shown}) == 12


def test_a_copy_of_the_video_has_the_same_frames_and_another_video_others(clip, tmp_path):
    copy, other = tmp_path / "copy.mp4", tmp_path / "other.mp4"
    copy.write_bytes(clip.read_bytes())
    other.write_bytes(clip.read_bytes() + b"\0\0\0\x08free")
    assert identity(media.last_frame(copy)) == identity(media.last_frame(clip))
    with copy.open("rb") as file:
        assert identity(media.last_frame(file)) == identity(media.last_frame(clip))
    assert identity(media.last_frame(other)) != identity(media.last_frame(clip))


def test_a_frame_that_was_copied_or_pickled_is_that_frame_and_one_that_was_changed_is_not(clip):
    image = media.last_frame(clip)
    known = identity(image)
    for same in (image.copy(), image.convert("RGB"), pickle.loads(pickle.dumps(image))):
        assert identity(same) == known
    drawn = image.copy()
    ImageDraw.Draw(drawn).line((0, 0, 9, 9), fill="red")
    changed = [drawn, image.resize((64, 36)), image.rotate(180), image.convert("L")]
    found = {identity(each) for each in changed}
    assert known not in found
    assert len(found) == len(changed)
    assert all(encoded(each).earlier is None for each in changed)


def test_what_was_paid_for_with_an_earlier_conversion_of_the_frame_is_found(clip):
    picture = encoded(media.last_frame(clip))
    with av.open(str(clip)) as container:
        *_, last = container.decode(video=0)
    as_before = io.BytesIO()
    last.to_image().save(as_before, "PNG")
    assert picture.earlier == media.image_url(as_before.getvalue())
    assert picture.earlier != picture.url


def test_a_frame_whose_file_was_paid_for_is_not_paid_for_again_as_a_frame(clip, tmp_path):
    media.last_frame(clip).save(tmp_path / "last.png")
    saved = VideoRequest(prompt="It jumps", image=tmp_path / "last.png")
    asked = VideoRequest(prompt="It jumps", image=media.last_frame(clip))
    assert saved.fingerprint in asked.fingerprints
