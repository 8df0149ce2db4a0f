"""A saved video as HTTP: ranges, versions, stores, bounded memory."""

from __future__ import annotations

import os
import tracemalloc

import pytest
from fastapi import FastAPI, Request
from fsspec.implementations.memory import MemoryFileSystem
from starlette.testclient import TestClient

from kling_integrations.airflow.plugin.streaming import (
    CHUNK,
    NotAVideo,
    OpenFile,
    byte_range,
    response,
)

pytestmark = pytest.mark.thorough

VIDEO = b"\0\0\0\x18ftypisom" + os.urandom(3 * CHUNK)


@pytest.fixture(params=["disk", "store"])
def path(request, tmp_path):
    if request.param == "disk":
        (tmp_path / "a.mp4").write_bytes(VIDEO)
        yield str(tmp_path / "a.mp4")
        return
    try:
        from airflow.sdk.io.store import attach
    except ImportError:
        from airflow.sdk.io import attach

    store = MemoryFileSystem()
    attach("memory", fs=store)
    store.pipe("/films/a.mp4", VIDEO)
    yield "memory://films/a.mp4"
    store.store.clear()


@pytest.fixture
def browser(path):
    app = FastAPI()

    @app.get("/file")
    def file(request: Request):
        return response(OpenFile.video(path), request.headers, 'a "b".mp4')

    return TestClient(app)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-", (0, 100)),
        ("bytes=0-9", (0, 10)),
        ("bytes=90-200", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=100-", None),
        ("bytes=7-6", None),
        ("bytes=-0", None),
        ("bytes=0-1,5-6", (0, 100)),
        ("items=0-1", (0, 100)),
        ("bytes=-", (0, 100)),
        ("bytes=a-b", (0, 100)),
    ],
)
def test_ranges(asked, expected):
    assert byte_range(asked, 100) == expected


def test_the_whole_is_sent_with_its_length(browser):
    reply = browser.get("/file")
    assert (reply.status_code, reply.content) == (200, VIDEO)
    assert reply.headers["content-length"] == str(len(VIDEO))
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["content-type"] == "video/mp4"
    assert reply.headers["content-disposition"] == 'inline; filename="a__b_.mp4"'


def test_a_player_can_seek(browser):
    reply = browser.get("/file", headers={"Range": f"bytes={CHUNK}-{2 * CHUNK + 9}"})
    assert reply.status_code == 206
    assert reply.content == VIDEO[CHUNK : 2 * CHUNK + 10]
    assert reply.headers["content-range"] == f"bytes {CHUNK}-{2 * CHUNK + 9}/{len(VIDEO)}"


def test_a_range_beyond_the_end_is_416(browser):
    reply = browser.get("/file", headers={"Range": f"bytes={len(VIDEO)}-"})
    assert reply.status_code == 416
    assert reply.headers["content-range"] == f"bytes */{len(VIDEO)}"


def test_what_the_browser_has_is_not_sent_again(browser):
    etag = browser.get("/file", headers={"Range": "bytes=0-1"}).headers["etag"]
    assert browser.get("/file", headers={"If-None-Match": etag}).status_code == 304
    assert browser.get("/file", headers={"Range": "bytes=0-1", "If-Range": etag}).status_code == 206


def test_a_part_of_another_version_is_never_mixed_in(browser):
    reply = browser.get("/file", headers={"Range": "bytes=5-9", "If-Range": '"older"'})
    assert (reply.status_code, reply.content) == (200, VIDEO)


def test_only_a_video_is_sent(tmp_path):
    (tmp_path / "secrets.mp4").write_text("root:x:0:0:root:/root:/bin/sh\n" * 10)
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("secrets.mp4", "empty.mp4", "pipe.mp4"):
        with pytest.raises(NotAVideo):
            OpenFile.video(str(tmp_path / name))
    with pytest.raises(OSError, match="directory"):
        OpenFile.video(str(tmp_path))


async def test_memory_is_bounded_whatever_the_size(tmp_path):
    path = tmp_path / "large.mp4"
    with path.open("wb") as file:
        file.write(VIDEO[:12])
        file.truncate(200 * 2**20)
    video = OpenFile.video(str(path))
    tracemalloc.start()
    total = 0
    async for chunk in video.part(0, video.size):
        total += len(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 200 * 2**20
    assert peak < 4 * 2**20


async def test_a_browser_that_leaves_closes_the_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(VIDEO)
    video = OpenFile.video(str(path))
    parts = video.part(0, video.size)
    await anext(parts)
    await parts.aclose()
    assert video.file.closed
