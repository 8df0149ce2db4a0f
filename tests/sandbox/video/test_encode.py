"""The videos are real: they decode, last as long as requested and have their stated size."""

import io

import av
import pytest
from PIL import Image
from support.videos import as_uri, boxes, probe

from kling_integrations.sandbox.video.encode import encode, file_size
from kling_integrations.sandbox.video.scene import Scene


@pytest.mark.parametrize(
    ("ratio", "size"), [("16:9", (160, 90)), ("9:16", (90, 160)), ("1:1", (90, 90))]
)
@pytest.mark.parametrize("duration", [5, 10])
def test_a_video_has_the_asked_length_and_aspect_ratio(caller, ratio, size, duration):
    url = caller.finished_url(aspect_ratio=ratio, duration=duration)
    reply = caller.download(url)
    assert reply.headers["content-type"] == "video/mp4"
    width, height, seconds, images, keys, kinds = probe(reply.content)
    assert (width, height) == size
    assert seconds == pytest.approx(duration)
    assert len(images) == duration * 8
    assert keys >= duration  # one each second, for seeking
    assert kinds == ["video"]


def test_a_video_starts_with_its_index_so_that_it_plays_while_it_loads(caller):
    names = boxes(caller.download(caller.finished_url()).content)
    assert names[0] == "ftyp"
    assert names.index("moov") < names.index("mdat")


def test_sound_comes_with_generate_audio(caller):
    model = "klingai/video-v2-6-pro-text-to-video"
    loud = caller.download(caller.finished_url(model=model)).content  # its default
    silent = caller.download(caller.finished_url(model=model, generate_audio=False)).content
    assert probe(loud)[5] == ["video", "audio"]
    assert probe(silent)[5] == ["video"]
    with av.open(io.BytesIO(loud)) as container:
        assert max(abs(frame.to_ndarray()).max() for frame in container.decode(audio=0)) > 0.01


@pytest.mark.parametrize("seconds", [0.5, 5, 15])
@pytest.mark.parametrize(("size", "fps"), [((160, 90), 8), ((64, 36), 30), ((640, 360), 4)])
def test_even_noise_stays_below_the_size_that_is_known_beforehand(seconds, size, fps):
    noise = as_uri(Image.effect_noise((2 * size[0], 2 * size[1]), 120))
    scene = Scene("m", ("noise",), seconds, image=noise, audio=True)
    data = encode(scene, size, fps)
    assert len(data) == file_size(scene, size, fps)
    assert boxes(data)[-1] == "free"


def test_the_size_is_stated_before_the_encoding(caller):
    id = caller.submit()
    caller.sandbox.finish(id)
    video = caller.poll(id).json()["video"]
    assert caller.sandbox.requests["download"] == 0
    assert len(caller.download(video["url"]).content) == video["file_size"]
