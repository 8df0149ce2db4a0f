"""Pictures one by one, arrays, GIFs and small copies of a video."""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from support.videos import probe

from kling_integrations.core import media
from kling_integrations.core.errors import InvalidRequestError
from kling_integrations.core.media import excerpts
from kling_integrations.core.media.frames import opened_video
from kling_integrations.sandbox.video.encode import encode
from kling_integrations.sandbox.video.scene import Scene


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "five.mp4"
    path.write_bytes(encode(Scene("a-model", ("A lighthouse",), 5), size=(320, 180), fps=12))
    return path


def test_pictures_come_one_by_one_all_or_thinned_out(video):
    assert len(list(media.all_frames(video))) == 60
    assert len(list(media.all_frames(video, fps=4))) == 20
    assert len(list(media.all_frames(video, fps=100))) == 60
    first = next(media.all_frames(video, width=160))
    assert first.size == (160, 90)
    assert next(media.all_frames(video, width=4000)).size == (320, 180)  # never enlarged


def test_a_picture_is_decoded_when_it_is_asked_for(video, monkeypatch):
    decoded = 0

    class Counting:
        def __init__(self, container):
            self.container = container

        def decode(self, stream):
            nonlocal decoded
            for picture in self.container.decode(stream):
                decoded += 1
                yield picture

    @contextmanager
    def opened(path):
        with opened_video(path) as (container, stream):
            yield Counting(container), stream

    monkeypatch.setattr(excerpts, "opened_video", opened)
    pictures = media.all_frames(video)
    assert decoded == 0
    next(pictures)
    next(pictures)
    assert decoded == 3  # the last one is known by that none follows
    pictures.close()
    assert decoded == 3


def test_an_array_has_the_shape_that_models_take(video):
    made = media.array(video, fps=4, width=160)
    assert made.shape == (20, 90, 160, 3)
    assert str(made.dtype) == "uint8"
    last = media.all_frames(video, fps=4, width=160)
    assert (made[0] == next(last)).all()


def test_an_array_beyond_the_memory_is_refused_and_not_tried(video, monkeypatch):
    monkeypatch.setattr(excerpts, "_MOST_ARRAY", 1_000_000)
    with pytest.raises(InvalidRequestError, match="more than 0.001 GB") as caught:
        media.array(video)
    assert "fps=" in caught.value.hint


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"fps": -1}, {"width": 0}, {"fps": float("inf")}])
def test_numbers_that_mean_nothing_are_refused_at_once(video, wrong):
    for function in (media.all_frames, media.array):
        with pytest.raises(InvalidRequestError, match="more than 0"):
            function(video, **wrong)


def test_a_gif_moves_and_repeats(video):
    image = Image.open(io.BytesIO(media.gif(video, fps=4, width=160)))
    assert image.format == "GIF"
    assert image.size == (160, 90)
    assert image.n_frames > 10
    assert image.info["loop"] == 0


def test_a_small_copy_is_a_video_of_the_same_length_and_no_larger_than_asked(video):
    made = media.small_copy(video, 60_000)
    assert len(made) <= 60_000
    width, _, seconds, _, _, kinds = probe(made)
    assert width <= 480
    assert seconds == pytest.approx(5, abs=0.3)
    assert kinds == ["video"]
    with pytest.raises(InvalidRequestError, match="too long"):
        media.small_copy(video, 500)


def test_what_is_no_video_is_an_error_that_can_be_caught(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    for function in (media.array, media.gif, media.small_copy):
        with pytest.raises(InvalidRequestError):
            function(broken)
    with pytest.raises(InvalidRequestError):
        list(media.all_frames(broken))
