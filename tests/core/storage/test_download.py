"""Saving a video: whole or not at all, from servers of every temper."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import logging
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import requests

from kling_integrations.core.errors import DownloadError, KlingError, LinkExpiredError, ServerError
from kling_integrations.core.flows import Flows
from kling_integrations.core.generation import Failure, Generation, Saved, Status, Video
from kling_integrations.core.protocol import Endpoint
from kling_integrations.core.settings import Clock
from kling_integrations.core.storage import download, transfer
from kling_integrations.core.storage.download import save
from kling_integrations.core.storage.file_names import resolve_target
from kling_integrations.core.waiting import Flow, Patience

Reply = Callable[[BaseHTTPRequestHandler], None]
SECRET = "Signature=s3cret"


class Cdn:
    """A store on loopback: answers each request with the next reply, then with the last one."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.heard: list[BaseHTTPRequestHandler] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.heard.append(self)
                self.close_connection = True
                reply = outer.replies[min(len(outer.heard), len(outer.replies)) - 1]
                with contextlib.suppress(OSError):  # the client may leave first
                    reply(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/output.mp4?{SECRET}"

    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.heard]


def reply(
    body: bytes = b"",
    code: int = 200,
    *,
    length: int | None = -1,
    reset: bool = False,
    **headers: str,
) -> Reply:
    """A reply; ``length`` is what Content-Length claims (None: it is left out)."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in {"Content_Type": "video/mp4", **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        if length is not None:
            request.send_header("Content-Length", str(len(body) if length == -1 else length))
        request.end_headers()
        request.wfile.write(body)
        request.wfile.flush()
        if reset:
            linger = struct.pack("ii", 1, 0)  # closing sends RST
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.connection.close()

    return answer


def cut(body: bytes, at: int, **headers: str) -> Reply:
    return reply(body[:at], length=len(body), **headers)


def rest(body: bytes, **headers: str) -> Reply:
    """What a store that knows ranges answers."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        said = f"bytes {start}-{len(body) - 1}/{len(body)}"
        reply(body[start:], 206, Content_Range=said, **headers)(request)

    return answer


def chunked(body: bytes, *, whole: bool = True) -> Reply:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        for at in (0, 5, *range(1000, len(body), 1000)):
            piece = body[at : {0: 5, 5: 1000}.get(at, at + 1000)]
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if whole:
            request.wfile.write(b"0\r\n\r\n")

    return answer


def store_of(body: bytes) -> Reply:
    """The whole or the rest, as asked."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        (rest if "Range" in request.headers else reply)(body)(request)

    return answer


def hang(request: BaseHTTPRequestHandler) -> None:
    request.rfile.read(1)  # until the client hangs up


class Waited:
    """Sleeps that take no time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def cdn() -> Iterator[Callable[..., Cdn]]:
    running: list[Cdn] = []

    def start(*replies: Reply) -> Cdn:
        running.append(Cdn(*replies))
        return running[-1]

    yield start
    for one in running:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def waited() -> Waited:
    return Waited()


@pytest.fixture
def get(waited: Waited) -> Callable[..., Saved]:
    """`save` that never really sleeps."""

    def call(url: str, target: Path, **options: object) -> Saved:
        settings = {"sleep": waited.sleep, "timeout": 10.0, **options}
        return save(url, target, **settings)  # type: ignore[arg-type]

    return call


@pytest.fixture(scope="module")
def mp4() -> bytes:
    """A real one, of about 200 kB."""
    file = io.BytesIO()
    noise = np.random.default_rng(7)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        for _ in range(24):
            pixels = noise.integers(0, 255, (108, 192, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def assert_saved(saved: Saved, target: Path, content: bytes) -> None:
    assert target.read_bytes() == content
    assert (saved.path, saved.size) == (target, len(content))
    assert saved.sha256 == hashlib.sha256(content).hexdigest()
    assert os.listdir(target.parent) == [target.name], "no debris"


def assert_nothing(folder: Path) -> None:
    assert os.listdir(folder) == []


# The good case


def test_a_video_is_saved_with_its_hash_and_readable_by_others(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    target = tmp_path / "clip.mp4"
    before = os.umask(0o027)
    try:
        saved = get(cdn(reply(mp4, Content_Type="video/mp4; x=y")).url, target)
    finally:
        os.umask(before)
    assert_saved(saved, target, mp4)
    assert saved.content_type == "video/mp4"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_video_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path,
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    mp4: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = []

    def noted(real: Callable[..., None]) -> Callable[..., None]:
        return lambda *given: (done.append(real.__name__), real(*given))[1]

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(getattr(os, name)))
    get(cdn(reply(mp4)).url, tmp_path / "a.mp4")
    assert done == ["fsync", "replace"]


def test_the_file_is_private_and_apart_until_it_is_whole(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"the old one")
    seen = []

    def look(received: int, total: int | None) -> None:
        (part,) = tmp_path.glob(".*.part")
        seen.append((stat.S_IMODE(part.stat().st_mode), target.read_bytes(), received, total))

    saved = get(cdn(reply(mp4)).url, target, progress=look)
    assert seen
    assert {mode for mode, *_ in seen} == {0o600}
    assert {old for _, old, *_ in seen} == {b"the old one"}
    assert seen[-1][2:] == (len(mp4), len(mp4))
    assert_saved(saved, target, mp4)


def test_a_chunked_reply_is_saved(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    seen = []
    saved = get(cdn(chunked(mp4)).url, tmp_path / "a.mp4", progress=lambda *said: seen.append(said))
    assert_saved(saved, tmp_path / "a.mp4", mp4)
    assert seen[-1] == (len(mp4), None)


def test_a_reply_that_ends_with_its_connection_is_saved_when_the_boxes_are_whole(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    cut_short = reply(mp4[:-5000], length=None)
    for then in (reply(mp4, length=None), store_of(mp4)):
        store = cdn(cut_short, then)
        assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
        assert len(store.heard) == 2


@pytest.mark.parametrize(
    ("name", "head"),
    [("mov", b"\0\0\0\x08wide\0\0\0\x10mdat"), ("webm", b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\xf7")],
)
def test_other_video_formats_are_accepted(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], name: str, head: bytes
) -> None:
    content = head + bytes(1000)
    target = tmp_path / f"a.{name}"
    assert_saved(get(cdn(reply(content)).url, target), target, content)


def test_the_bytes_decide_and_not_the_content_type(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    store = cdn(reply(mp4, Content_Type="text/html", Content_Encoding="aws-chunked"))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)


def test_memory_does_not_grow_with_the_video(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved]
) -> None:
    size, block = 48 * 2**20, b"\0\0\0\x10ftypmp42" + bytes(2**16 - 12)

    def large(request: BaseHTTPRequestHandler) -> None:
        reply(b"", length=size)(request)
        for _ in range(size // len(block)):
            request.wfile.write(block)

    url = cdn(large).url
    tracemalloc.start()
    try:
        saved = get(url, tmp_path / "a.mp4")
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    assert saved.sha256 == hashlib.sha256(block * (size // len(block))).hexdigest()


def test_many_at_once_are_all_saved_also_to_the_same_target(
    tmp_path: Path, cdn: Callable[..., Cdn], mp4: bytes
) -> None:
    together = threading.Barrier(8)

    def at_once(request: BaseHTTPRequestHandler) -> None:
        together.wait(10)
        reply(mp4)(request)

    url = cdn(at_once).url
    targets = [tmp_path / f"{number // 2}.mp4" for number in range(8)]
    saved: list[Saved] = []
    threads = [
        threading.Thread(target=lambda path=path: saved.append(save(url, path))) for path in targets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(one.path for one in saved) == sorted(targets)
    assert sorted(os.listdir(tmp_path)) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert {path.read_bytes() for path in targets} == {mp4}


# Cuts and other trouble that passes


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_is_resumed_where_it_ended(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes, reset: bool
) -> None:
    first = reply(mp4[:70_000], length=len(mp4), reset=reset, ETag='"v1"')
    store = cdn(first, rest(mp4, ETag='"v1"'))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert store.ranges()[0] is None
    assert store.heard[1].headers["If-Range"] == '"v1"'
    if not reset:  # a reset may take back bytes that were under way
        assert store.ranges()[1] == "bytes=70000-"


def test_a_weak_etag_does_not_guard_a_range_but_a_date_does(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    date = "Fri, 21 Aug 2026 10:00:00 GMT"
    store = cdn(cut(mp4, 50_000, ETag='W/"v1"', Last_Modified=date), rest(mp4))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert store.heard[1].headers["If-Range"] == date


def test_cuts_in_a_row_are_resumed_as_long_as_they_get_on(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    def a_piece_more(request: BaseHTTPRequestHandler) -> None:
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        said = f"bytes {start}-{len(mp4) - 1}/{len(mp4)}"
        piece = mp4[start : start + 20_000]
        reply(piece, 206, length=len(mp4) - start, Content_Range=said)(request)

    store = cdn(cut(mp4, 20_000), a_piece_more)
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert store.ranges()[:3] == [None, "bytes=20000-", "bytes=40000-"]


def test_a_server_that_ignores_ranges_starts_over_and_so_does_the_hash(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    shorter = b"\0\0\0\x10ftypmp42" + bytes(20_000)
    for whole in (mp4[:-1] + b"\x01", shorter):
        store = cdn(cut(mp4, 90_000), reply(whole))
        assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", whole)


def test_a_video_that_changed_between_two_attempts_is_not_glued_together(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    other = mp4 + b"\0\0\0\x08free"
    store = cdn(cut(mp4, 90_000), rest(other), reply(other))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", other)
    assert store.ranges() == [None, "bytes=90000-", None]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Range": "bytes 5-10/200"},
        {"Content_Range": "bytes 90000-99999/*"},
        {"Content_Range": "nonsense"},
        {"Content_Type": "multipart/byteranges; boundary=x"},
    ],
)
def test_a_part_that_was_not_asked_for_is_not_taken(
    tmp_path: Path,
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    mp4: bytes,
    headers: dict[str, str],
) -> None:
    store = cdn(cut(mp4, 90_000), reply(mp4[90_000:], 206, **headers), reply(mp4))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert store.ranges() == [None, "bytes=90000-", None]


def test_416_means_done_when_all_is_there_and_start_over_when_not(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    all_there = reply(code=416, Content_Range=f"bytes */{len(mp4)}")
    store = cdn(chunked(mp4, whole=False), all_there)
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    store = cdn(cut(mp4, 90_000), reply(code=416, Content_Range="bytes */10"), reply(mp4))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert store.ranges() == [None, "bytes=90000-", None]


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 524, 599])
def test_trouble_of_the_server_is_outlived(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes, code: int
) -> None:
    store = cdn(reply(b"try later", code), reply(b"try later", code), reply(mp4))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)


def test_retry_after_is_obeyed_in_seconds_and_as_a_date(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], waited: Waited, mp4: bytes
) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    store = cdn(
        reply(b"", 429, Retry_After="40"),
        reply(b"", 503, Retry_After=soon),
        reply(b"", 503, Retry_After="nan"),
        reply(mp4),
    )
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert waited.slept[0] == 40
    assert 55 < waited.slept[1] <= 60
    assert waited.slept[2] < 10


def test_a_retry_after_beyond_the_patience_ends_at_once(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], waited: Waited
) -> None:
    with pytest.raises(DownloadError, match="HTTP 429"):
        get(cdn(reply(b"", 429, Retry_After="86400")).url, tmp_path / "a.mp4")
    assert waited.slept == []


def test_delays_grow_and_end_with_the_patience(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], waited: Waited
) -> None:
    store = cdn(reply(b"", 503))
    with pytest.raises(DownloadError, match="HTTP 503"):
        get(store.url, tmp_path / "a.mp4", patience=300)
    assert_nothing(tmp_path)
    assert 200 < sum(waited.slept) <= 300
    assert waited.slept[0] <= 1
    assert max(waited.slept) <= 30
    assert len(store.heard) == len(waited.slept) + 1 < 40


def test_pauses_shrink_with_the_clock_of_a_sandbox_and_transfers_do_not(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], waited: Waited, mp4: bytes
) -> None:
    store = cdn(hang, reply(b"", 503, Retry_After="50"), reply(mp4))
    get(store.url, tmp_path / "a.mp4", clock=Clock(1000), timeout=0.2, patience=60)
    assert waited.slept[1] == pytest.approx(0.05)


def test_a_server_that_cuts_and_cannot_resume_does_not_renew_the_patience(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], waited: Waited
) -> None:
    store = cdn(cut(b"\0\0\0\x10ftyp" + bytes(4 * 2**20), 2 * 2**20))
    with pytest.raises(DownloadError, match="2,097,152 of 4,194,312 bytes"):
        get(store.url, tmp_path / "a.mp4", patience=100)
    assert_nothing(tmp_path)
    assert sum(waited.slept) <= 101


def test_a_hung_connection_ends_by_timeout_and_is_tried_again(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    def stop_midway(request: BaseHTTPRequestHandler) -> None:
        cut(mp4, 60_000)(request)
        hang(request)

    store = cdn(hang, stop_midway, rest(mp4))
    saved = get(store.url, tmp_path / "a.mp4", timeout=0.2)
    assert_saved(saved, tmp_path / "a.mp4", mp4)
    assert store.ranges() == [None, None, "bytes=60000-"]


def test_a_trickle_counts_as_hung(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    gone = threading.Event()

    def trickle(request: BaseHTTPRequestHandler) -> None:
        cut(mp4, 1000)(request)
        try:
            for byte in mp4[1000:]:
                request.wfile.write(bytes([byte]))
                gone.wait(0.02)
        except OSError:
            gone.set()

    store = cdn(trickle, rest(mp4))
    saved = get(store.url, tmp_path / "a.mp4", timeout=0.3)
    assert_saved(saved, tmp_path / "a.mp4", mp4)
    assert len(store.heard) == 2


def test_a_head_that_drips_in_counts_as_hung(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    gone = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        try:
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Padding: more\r\n" * 60:
                request.wfile.write(bytes([byte]))
                gone.wait(0.02)
        except OSError:
            gone.set()

    store = cdn(drip, reply(mp4))
    saved = get(store.url, tmp_path / "a.mp4", timeout=0.3)
    assert_saved(saved, tmp_path / "a.mp4", mp4)
    assert gone.wait(5), "the client left before the end"


def test_a_refused_connection_and_noise_are_outlived(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], waited: Waited, mp4: bytes
) -> None:
    def noise(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")

    store = cdn(noise, reply(mp4))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="refused"):
        get(f"http://127.0.0.1:{port}/x.mp4", tmp_path / "b.mp4", patience=60)
    assert sum(waited.slept) > 10


# What is no video


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", {"Content_Type": "text/html"}, "a web page"),
        (b"\xef\xbb\xbf\n<html>", {}, "a web page"),
        (b'{"error": "no such thing"}', {"Content_Type": "application/json"}, "JSON"),
        (b"", {}, "sent nothing"),
        (b"\x7fELF" + bytes(5000), {}, "something else"),
        (gzip.compress(bytes(10**6)), {"Content_Encoding": "gzip"}, r"compressed data \(gzip\)"),
    ],
)
def test_what_is_no_video_is_asked_for_thrice_and_never_saved(
    tmp_path: Path,
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    body: bytes,
    headers: dict[str, str],
    says: str,
) -> None:
    store = cdn(reply(body, **headers))
    with pytest.raises(DownloadError, match=says):
        get(store.url, tmp_path / "a.mp4")
    assert_nothing(tmp_path)
    assert len(store.heard) == 3


def test_a_web_page_in_between_is_not_the_end(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    page = reply(b"<html>please wait</html>", length=None)
    store = cdn(page, reply(b"", 204), store_of(mp4))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)


def test_an_endless_page_is_left_after_its_first_bytes(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved]
) -> None:
    sent = []

    def endless(request: BaseHTTPRequestHandler) -> None:
        reply(b"<html>", length=None)(request)
        while True:
            sent.append(request.wfile.write(b" " * 65536))

    with pytest.raises(DownloadError, match="web page"):
        get(cdn(endless).url, tmp_path / "a.mp4")
    assert sum(sent) < 100 * 2**20


def test_a_video_shorter_than_announced_is_refused(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    store = cdn(reply(mp4[:-3]))
    with pytest.raises(DownloadError, match=f"{len(mp4):,} were announced"):
        get(store.url, tmp_path / "a.mp4", expected_size=len(mp4))
    assert_nothing(tmp_path)
    store = cdn(reply(mp4[:-3]), reply(mp4))
    saved = get(store.url, tmp_path / "a.mp4", expected_size=len(mp4))
    assert_saved(saved, tmp_path / "a.mp4", mp4)


def test_a_whole_video_is_kept_although_the_gateway_announced_another_size(
    tmp_path: Path,
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    mp4: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = cdn(reply(mp4))
    saved = get(store.url, tmp_path / "a.mp4", expected_size=len(mp4) + 12345)
    assert_saved(saved, tmp_path / "a.mp4", mp4)
    assert len(store.heard) == 1
    assert "announced" in caplog.text


def test_a_size_beyond_the_most_allowed_is_refused_before_it_comes(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    with pytest.raises(DownloadError, match="1,099,511,627,776 bytes are more"):
        get(cdn(reply(mp4, length=2**40)).url, tmp_path / "a.mp4")
    assert_nothing(tmp_path)


@pytest.mark.parametrize("stated", [True, False])
def test_more_than_the_most_allowed_is_refused(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes, stated: bool
) -> None:
    store = cdn(reply(mp4) if stated else chunked(mp4))
    with pytest.raises(DownloadError, match=r"100,000 .*allowed"):
        get(store.url, tmp_path / "a.mp4", max_size=100_000)
    assert_nothing(tmp_path)
    assert len(store.heard) == 1


# Links that end


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_an_ended_link_says_so_at_once(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], code: int
) -> None:
    store = cdn(reply(b"<Error><Code>AccessDenied</Code></Error>", code))
    with pytest.raises(LinkExpiredError, match=f"HTTP {code}") as caught:
        get(store.url, tmp_path / "a.mp4", generation_id="-abc")
    assert caught.value.generation_id == "-abc"
    assert "client.download('-abc', " in str(caught.value)
    assert len(store.heard) == 1
    assert_nothing(tmp_path)


@pytest.mark.parametrize("code", [200, 400])
def test_an_expiry_in_the_address_explains_what_the_store_does_not(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], code: int
) -> None:
    store = cdn(reply(b"<html>", code))
    ended = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    with pytest.raises(LinkExpiredError, match="ended on 2026-01-02 03:04 UTC"):
        get(f"{store.url}&ksTime={int(ended.timestamp()):x}", tmp_path / "a.mp4")
    assert len(store.heard) == 1


def test_a_refusal_is_not_repeated(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved]
) -> None:
    for code in (400, 405, 451, 304):
        store = cdn(reply(b"", code))
        with pytest.raises(DownloadError, match=f"HTTP {code}") as caught:
            get(store.url, tmp_path / "a.mp4")
        assert not isinstance(caught.value, LinkExpiredError)
        assert len(store.heard) == 1


# Where a link may lead


def test_redirects_are_followed_and_the_cut_resumed_through_them(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    store = cdn(cut(mp4, 80_000), rest(mp4))
    port = store.server.server_address[1]
    front = cdn(reply(b"moved", 302, Location=f"http://localhost:{port}/v?{SECRET}"))
    around = cdn(reply(b"", 308, Location=front.url))
    assert_saved(get(around.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert store.ranges() == [None, "bytes=80000-"]


def test_a_redirect_may_be_relative(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    store = cdn(reply(b"", 307, Location="../other/video.mp4"), reply(mp4))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert store.heard[1].path == "/other/video.mp4"


def test_circles_of_redirects_end(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved]
) -> None:
    store = cdn(reply(b"", 302, Location="/again"))
    with pytest.raises(DownloadError, match="more than 5 times"):
        get(store.url, tmp_path / "a.mp4")
    assert len(store.heard) == 6


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "javascript:alert(1)", "ftp://127.0.0.1/x", "http://[::1"],
)
def test_a_redirect_elsewhere_is_refused(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], location: str
) -> None:
    store = cdn(reply(b"", 302, Location=location))
    with pytest.raises(DownloadError, match="redirects elsewhere"):
        get(store.url, tmp_path / "a.mp4")
    assert len(store.heard) == 1
    assert_nothing(tmp_path)


def test_https_may_not_fall_back_to_plain_http_off_loopback() -> None:
    problem = transfer.address_problem
    assert problem("http://cdn.example/x", "https://cdn.example/x")
    assert problem("//cdn.example/x", "https://other.example/x") is None
    assert problem("http://127.0.0.1/x", "https://cdn.example/x")
    assert problem("http://127.0.0.1/x", "https://localhost/x") is None
    assert problem("https://cdn.example/x", "http://cdn.example/x") is None


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:video/mp4;base64," + "A" * 10_000,
        "/output.mp4",
        "",
        "http://[::1",
        "http://",
        "https://exa mple.com:port/x",
    ],
)
def test_an_address_that_is_none_is_refused_in_a_sentence(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError) as caught:
        save(url, tmp_path / "a.mp4")
    assert len(str(caught.value)) < 400
    assert_nothing(tmp_path)


def test_a_redirect_with_a_bomb_in_its_body_is_not_read(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    sent = []

    def bomb(request: BaseHTTPRequestHandler) -> None:
        reply(b"", 302, length=2**40, Location="/here", Content_Encoding="gzip")(request)
        while True:
            sent.append(request.wfile.write(bytes(65536)))

    store = cdn(bomb, reply(mp4))
    assert_saved(get(store.url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert sum(sent) < 100 * 2**20


# Secrets


def test_no_key_no_netrc_entry_and_no_cookie_reach_the_store(
    tmp_path: Path,
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    mp4: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\ndefault login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    store = cdn(reply(b"", 302, Location="/x"), reply(mp4))
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer key"
        session.auth = ("user", "password")
        address = store.url.replace("://", "://name:word@")
        get(address, tmp_path / "a.mp4", session=session)
        get(address, tmp_path / "b.mp4")
    assert len(store.heard) == 3
    for request in store.heard:
        assert not {"authorization", "cookie", "proxy-authorization"} & {
            name.lower() for name in request.headers
        }
        assert request.headers["Accept-Encoding"] == "identity"
        assert request.headers["User-Agent"].startswith("kling-integrations/")


def test_loopback_is_never_reached_through_a_proxy(
    tmp_path: Path,
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    mp4: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = cdn(reply(b"no way", 502))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url.partition("/output")[0])
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert_saved(get(cdn(reply(mp4)).url, tmp_path / "a.mp4"), tmp_path / "a.mp4", mp4)
    assert proxy.heard == []


def test_a_signed_query_reaches_neither_logs_nor_errors_nor_tracebacks(
    tmp_path: Path,
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/x.mp4?{SECRET}"
    urls = [
        cdn(reply(b"", 503)).url,
        cdn(reply(b"", 403)).url,
        cdn(reply(b"<html>")).url,
        cdn(hang).url,
        cdn(reply(b"", 302, Location=f"file:///x?{SECRET}")).url,
        nobody,
        f"http://exa mple.com:port/x?{SECRET}",
        f"javascript:x?{SECRET}",
    ]
    for url in urls:
        with pytest.raises(DownloadError) as caught:
            get(url, tmp_path / "a.mp4", patience=5, timeout=0.2)
        said = "".join(traceback.format_exception(caught.value))
        assert "s3cret" not in said + repr(caught.value)
        assert caught.value.__context__ is None, "nothing that prints more"
    assert "output.mp4" in caplog.text, "there is something to be seen at all"
    assert "s3cret" not in caplog.text


def test_the_log_of_other_traffic_is_left_alone(
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    mp4: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = cdn(reply(mp4))
    get(store.url, tmp_path / "a.mp4")
    caplog.set_level(logging.DEBUG)
    requests.get(store.url.replace(SECRET, "page=2"), timeout=10)
    assert "page=2" in caplog.text


# Interrupts, kills, disks


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interrupt_leaves_nothing_behind_and_the_old_file_alone(
    tmp_path: Path,
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    mp4: bytes,
    error: type[BaseException],
) -> None:
    target = tmp_path / "a.mp4"
    target.write_bytes(b"old")

    def stop(received: int, total: int | None) -> None:
        raise error

    with pytest.raises(error):
        get(cdn(reply(mp4)).url, target, progress=stop)
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert target.read_bytes() == b"old"


def test_an_interrupt_while_waiting_to_try_again_leaves_nothing_behind(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(cdn(cut(mp4, 50_000)).url, tmp_path / "a.mp4", sleep=interrupted)
    assert_nothing(tmp_path)


def test_what_a_killed_run_left_is_gone_with_the_next_success_and_a_live_run_is_not_hurt(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    go_on = threading.Event()

    def half(request: BaseHTTPRequestHandler) -> None:
        reply(mp4[:100_000], length=len(mp4))(request)
        go_on.wait(20)
        request.wfile.write(mp4[100_000:])

    store = cdn(half, half, reply(mp4))
    target = tmp_path / "a.mp4"
    program = (
        "import sys; from kling_integrations.core.storage.download import save\n"
        "save(sys.argv[1], sys.argv[2], progress=lambda *_: print('on', flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, store.url, str(target)], stdout=subprocess.PIPE
    ) as killed:
        assert killed.stdout
        assert killed.stdout.readline() == b"on\n"
        killed.send_signal(signal.SIGKILL)
    (stale,) = os.listdir(tmp_path)
    assert stale.startswith(".a.mp4.")
    assert stale.endswith(".part")

    half_way = threading.Event()
    live: list[Saved] = []
    thread = threading.Thread(
        target=lambda: live.append(save(store.url, target, progress=lambda *_: half_way.set()))
    )
    thread.start()
    assert half_way.wait(20)
    (tmp_path / ".b.mp4.0123456789abcdef.part").touch()  # another target's
    (tmp_path / ".a.mp4.not-one-of-ours.part").touch()
    (tmp_path / "0123456789abcdef.part").touch()
    try:
        get(store.url, target)
        left = os.listdir(tmp_path)
        assert stale not in left
        assert sum(name.endswith(".part") for name in left) == 4, "the live one and the others"
    finally:
        go_on.set()
        thread.join(20)
    assert live[0].sha256 == hashlib.sha256(mp4).hexdigest()
    assert sum(name.endswith(".part") for name in os.listdir(tmp_path)) == 3


def test_a_full_or_forbidden_disk_is_told_in_a_sentence(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    store = cdn(reply(mp4))
    for target in (
        tmp_path / "none" / "a.mp4",
        tmp_path / f"{'x' * 300}.mp4",
        tmp_path / "a\0b.mp4",
    ):
        with pytest.raises(DownloadError, match="the disk refuses"):
            get(store.url, target)
    with pytest.raises(DownloadError, match="is a folder"):
        get(store.url, tmp_path)
    program = (
        "import resource, signal, sys; from kling_integrations.core.errors import DownloadError\n"
        "from kling_integrations.core.storage.download import save\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: save(sys.argv[1], sys.argv[2])\n"
        "except DownloadError as error: sys.exit(str(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, store.url, str(tmp_path / "a.mp4")],
        capture_output=True,
        text=True,
    )
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing(tmp_path)


def test_a_file_is_not_overwritten_when_that_is_not_wanted(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes
) -> None:
    target = tmp_path / "a.mp4"
    store = cdn(reply(mp4))
    assert_saved(get(store.url, target, overwrite=False), target, mp4)
    with pytest.raises(DownloadError, match="exists already"):
        get(store.url, target, overwrite=False)
    assert len(store.heard) == 1
    target.unlink()

    def in_between(received: int, total: int | None) -> None:
        target.write_bytes(b"of somebody else")

    with pytest.raises(DownloadError, match="exists already"):
        get(store.url, target, overwrite=False, progress=in_between)
    assert target.read_bytes() == b"of somebody else"
    assert os.listdir(tmp_path) == ["a.mp4"]


# Names


def test_a_file_is_taken_as_it_is_named_and_its_folder_is_made(tmp_path: Path) -> None:
    named = tmp_path / "new" / "deep" / "raccoon"
    assert resolve_target(named, file_name="x.mp4", generation_id="1") == named
    assert named.parent.is_dir()


@pytest.mark.parametrize(
    "says",
    [
        "output.mp4",
        "../../etc/cron.d/evil",
        "..\\..\\evil.mp4",
        "/etc/passwd",
        "C:\\x\\evil.exe",
        ".bashrc",
        "-rf.mp4",
        "..",
        "a\0b.mp4",
        "index.html",
        "x" * 500 + ".mp4",
        "猫" * 300 + ".mp4",
        "con.mp4",
        "\n",
        "",
        None,
    ],
)
def test_no_name_of_a_server_leaves_the_folder_or_becomes_anything_but_a_video(
    tmp_path: Path, says: str | None
) -> None:
    path = resolve_target(tmp_path, file_name=says, generation_id="a/b:c", prompt="A cat/../x")
    assert path.parent == tmp_path
    assert path.suffix == ".mp4"
    assert path.name[0] not in ".-"
    path.touch()
    assert os.listdir(tmp_path) == [path.name]
    assert path == resolve_target(
        tmp_path, file_name=says, generation_id="a/b:c", prompt="A cat/../x"
    )


def test_the_same_name_for_two_generations_makes_two_files(tmp_path: Path) -> None:
    folder = f"{tmp_path}/videos/"
    paths = {
        resolve_target(folder, file_name="output.mp4", generation_id=str(number))
        for number in range(100)
    }
    assert len(paths) == 100
    assert {path.parent for path in paths} == {tmp_path / "videos"}
    assert all(path.name.startswith("output_") for path in paths)


def test_a_prompt_names_the_file_where_the_server_does_not(tmp_path: Path) -> None:
    path = resolve_target(tmp_path, file_name=None, generation_id="1", prompt="A White Raccoon!")
    assert path.name.startswith("a-white-raccoon_")


def test_home_and_the_current_folder_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert resolve_target("~/a.mp4", file_name=None, generation_id="1") == tmp_path / "a.mp4"
    for here in (None, "."):
        path = resolve_target(here, file_name="output.mp4", generation_id="1")
        assert path.resolve().parent == tmp_path.resolve()
    assert resolve_target("a.mp4", file_name=None, generation_id="1") == Path("a.mp4")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "a.mp4", "~nobody-of-that-name/a.mp4", "a\0/b/"):
        with pytest.raises(DownloadError, match="cannot be made") as caught:
            resolve_target(target, file_name=None, generation_id="1")
        assert "client.download('1', " in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_target_that_is_no_regular_file_is_refused_and_stays(
    tmp_path: Path, cdn: Callable[..., Cdn], get: Callable[..., Saved], mp4: bytes, kind: str
) -> None:
    target = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(target)
    else:
        os.mknod(target, 0o600 | stat.S_IFSOCK)
    store = cdn(reply(mp4))
    with pytest.raises(DownloadError, match="no regular file"):
        get(store.url, target)
    assert not stat.S_ISREG(target.lstat().st_mode)
    assert not store.heard


def test_a_video_that_drips_for_an_hour_is_given_up(
    tmp_path: Path,
    cdn: Callable[..., Cdn],
    get: Callable[..., Saved],
    mp4: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fast enough to be no hung connection, and yet without an end."""
    monkeypatch.setattr(transfer, "_LONGEST", 0.0)
    with pytest.raises(DownloadError, match="not whole after"):
        get(cdn(reply(mp4)).url, tmp_path / "a.mp4")
    assert_nothing(tmp_path)


# A generation's video


def saving(generation: Generation, target: Path, refresh: Callable[[str], Generation]) -> Saved:
    """The flow of ``client.save``, with ``refresh`` as the gateway."""

    class Gateway(Flows):
        def get(self, generation_id: str) -> Flow[Generation]:
            yield from ()
            return refresh(generation_id)

    endpoint = Endpoint("https://gateway.example", "key")
    flow = Gateway(endpoint, Clock(), Patience(), None).save(generation, target)
    result, raised = None, None
    while True:
        try:
            action = flow.send(result) if raised is None else flow.throw(raised)
        except StopIteration as done:
            return done.value
        result = raised = None
        try:
            result = download.fetch(action)
        except DownloadError as error:
            raised = error


def finished(url: str | None, **more: object) -> Generation:
    video = Video(url, file_name="output.mp4", **more) if url else None  # type: ignore[arg-type]
    return Generation("g:1", Status.COMPLETED, video=video)


def never(generation_id: str) -> Generation:
    raise AssertionError("nothing to ask the gateway for")


def test_a_generation_is_saved_into_a_folder(
    tmp_path: Path, cdn: Callable[..., Cdn], mp4: bytes
) -> None:
    generation = finished(cdn(reply(mp4)).url, file_size=len(mp4))
    saved = saving(generation, tmp_path, refresh=never)
    assert_saved(saved, saved.path, mp4)
    assert saved.path.name.startswith("output_")


def test_an_expired_link_is_asked_for_anew_once(
    tmp_path: Path, cdn: Callable[..., Cdn], mp4: bytes
) -> None:
    old, new = cdn(reply(b"", 403)), cdn(reply(mp4))
    asked = []

    def refresh(generation_id: str) -> Generation:
        asked.append(generation_id)
        return finished(new.url)

    saved = saving(finished(old.url), tmp_path / "a.mp4", refresh=refresh)
    assert_saved(saved, tmp_path / "a.mp4", mp4)
    assert asked == ["g:1"]
    with pytest.raises(LinkExpiredError):
        saving(finished(old.url), tmp_path / "b.mp4", refresh=lambda _: finished(old.url))
    assert len(old.heard) == 3


def test_a_gateway_that_has_no_new_link_is_named_beside_the_old_one(
    tmp_path: Path, cdn: Callable[..., Cdn]
) -> None:
    old = cdn(reply(b"", 410))

    def down(generation_id: str) -> Generation:
        raise ServerError("the gateway is out of reach")

    with pytest.raises(LinkExpiredError, match=r"HTTP 410.*out of reach") as caught:
        saving(finished(old.url), tmp_path / "a.mp4", refresh=down)
    assert "client.download('g:1', " in str(caught.value)


def test_a_generation_without_a_video_is_looked_up_and_then_told_apart(
    tmp_path: Path, cdn: Callable[..., Cdn], mp4: bytes
) -> None:
    pending = Generation("g:1", Status.GENERATING)
    done = finished(cdn(reply(mp4)).url)
    assert saving(pending, tmp_path / "a.mp4", refresh=lambda _: done).size == len(mp4)
    failed = Generation("g:1", Status.FAILED, error=Failure("a face was not found"))
    for answer, says in (
        (pending, "not finished yet.*client.wait\\('g:1'\\)"),
        (failed, "a face was not found"),
        (finished(None), "names no video"),
    ):
        with pytest.raises(DownloadError, match=f"(?s){says}"):
            saving(answer, tmp_path / "b.mp4", refresh=lambda _, answer=answer: answer)
    assert not issubclass(DownloadError, ServerError)
    assert issubclass(LinkExpiredError, KlingError)
