"""Without PyAV or Pillow a sandbox serves a real clip all the same, and says so once."""

import sys
from uuid import uuid4

import pytest
from support.videos import boxes, probe

from kling_integrations.sandbox.video import ready_made
from kling_integrations.sandbox.video.encode import file_size
from kling_integrations.sandbox.video.scene import Scene


@pytest.fixture(params=["av", "PIL"])
def missing(request, monkeypatch):
    monkeypatch.setitem(sys.modules, request.param, None)
    return monkeypatch


def test_a_download_is_a_real_video_of_the_stated_size_and_the_log_says_once_why(make, missing):
    lines = []
    with make(log=lines.append) as caller:
        replies, stated = [], []
        for _ in range(2):
            id = caller.submit(prompt=f"A cat {uuid4()}")
            caller.sandbox.finish(id)
            video = caller.poll(id).json()["video"]
            replies.append(caller.download(video["url"]))
            stated.append(video["file_size"])
        assert caller.sandbox.video_note == ready_made.NOTE
    missing.undo()
    assert [reply.status_code for reply in replies] == [200, 200]
    assert [len(reply.content) for reply in replies] == stated
    width, height, seconds, images, _, kinds = probe(replies[0].content)
    assert (width, height, seconds, len(images), kinds) == (320, 180, 5, 40, ["video"])
    [note] = [line for line in lines if "pip install 'kling-integrations[sandbox]'" in line]
    assert note == ready_made.NOTE


def test_a_video_is_encoded_again_as_soon_as_it_can_be(make, missing):
    prompt = f"A cat {uuid4()}"
    with make() as caller:
        caller.download(caller.finished_url(prompt=prompt))
    missing.undo()
    with make() as caller:
        data = caller.download(caller.finished_url(prompt=prompt)).content
        assert caller.sandbox.video_note is None
    assert probe(data)[:2] == (160, 90)


@pytest.mark.parametrize("seconds", [0.5, 5, 15])
@pytest.mark.parametrize(("size", "fps"), [((16, 16), 1), ((160, 90), 8), ((1280, 720), 60)])
def test_the_clip_fits_into_every_size_that_is_stated_for_a_video(seconds, size, fps):
    scene = Scene("m", ("x",), seconds)
    data = ready_made.ready_made(scene, size, fps)
    assert len(data) == file_size(scene, size, fps)
    names = boxes(data)
    assert names[0] == "ftyp"
    assert names.index("moov") < names.index("mdat")
    assert names[-1] == "free"


def test_the_clip_is_small():
    scene = Scene("m", ("x",), 5)
    assert len(ready_made.ready_made(scene, (16, 16), 1).rstrip(b"\0")) < 16_000
