"""Gateways that no library would make: endless, huge, lying, and with words that bite."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import time
import tracemalloc
import zlib

import pytest
from resilience.gateways import Drip, endless
from support.raw_gateway import RawGateway, http

from kling_integrations import (
    AsyncKlingClient,
    DownloadError,
    KlingClient,
    KlingError,
    KlingWarning,
    Ledger,
    Status,
    SubmissionUncertainError,
    VideoRequest,
    WaitTimeoutError,
)
from kling_integrations.core import payloads, protocol
from kling_integrations.core.generation import Generation, Video
from kling_integrations.core.manifest import manifest
from kling_integrations.core.payloads import Reply
from kling_integrations.core.protocol import Outcome
from kling_integrations.core.storage import download
from kling_integrations.core.waiting import Patience
from kling_integrations.sandbox import Sandbox

MEGABYTE = 2**20
URL = "https://cdn.example/v.mp4?ksTime=70000000"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\x00\x9b31m"


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture
def raw():
    """``raw(reply, …)`` answers with these, in this order."""
    with contextlib.ExitStack() as stack:

        def make(*answers: bytes) -> RawGateway:
            gateway = RawGateway(*answers)
            stack.callback(gateway.close)
            return gateway

        yield make


SHORT = Patience(first=0.01, most=0.02, connect=0.1, rate_limit=0.1)


def call(kind, base_url, verb, *args, timeout=0.5, patience=SHORT, **options):
    if kind == "sync":
        with KlingClient("k3y", base_url, timeout=timeout, patience=patience) as client:
            return getattr(client, verb)(*args, **options)

    async def work():
        async with AsyncKlingClient("k3y", base_url, timeout=timeout, patience=patience) as client:
            return await getattr(client, verb)(*args, **options)

    return asyncio.run(work())


def poll(kind, base_url, timeout=0.5) -> Outcome:
    endpoint = protocol.Endpoint(base_url, "k3y")
    return call(kind, base_url, "exchange", endpoint.poll("gen-1"), timeout=timeout)


# --- replies that never end ------------------------------------------------------------------

DRIPS = {
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    "body without an end": (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "status line": (b"HTTP/1.1 200 O", b"K"),
    "header": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "continues": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
}


@pytest.mark.parametrize("part", DRIPS)
def test_a_reply_that_drips_for_ever_ends_with_the_exchanges_timeout(kind, part):
    with Drip(endless(*DRIPS[part]), pause=0.02) as gateway:
        began = time.monotonic()
        poll(kind, gateway.base_url, timeout=0.3)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("part", ["headers", "body", "continues"])
def test_a_post_whose_reply_drips_for_ever_is_uncertain_and_single(kind, part):
    with Drip(endless(*DRIPS[part]), pause=0.02) as gateway:
        with pytest.raises(SubmissionUncertainError):
            call(kind, gateway.base_url, "submit", VideoRequest(prompt="a"), timeout=0.3)
        assert len(gateway.heard) == 1


def test_a_download_whose_head_drips_for_ever_is_given_up(tmp_path):
    with Drip(endless(*DRIPS["headers"]), pause=0.02) as cdn:
        began = time.monotonic()
        with pytest.raises(DownloadError):
            download.save(cdn.base_url, tmp_path / "a.mp4", timeout=0.2, patience=0.3)
        assert time.monotonic() - began < 5
    assert list(tmp_path.iterdir()) == []


def test_a_download_may_take_longer_than_the_timeout_of_its_head(tmp_path):
    box = b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00"
    moov = b"\x00\x01\x00\x08moov" + bytes(65536)
    pieces = [moov[n : n + 6554] for n in range(0, len(moov), 6554)]
    size = len(box + moov)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
    with Drip(lambda _: [head, box, *pieces], pause=0.1) as cdn:
        saved = download.save(cdn.base_url, tmp_path / "a.mp4", timeout=0.4, patience=0.1)
    assert saved.size == size
    assert len(cdn.heard) == 1


# --- replies that are too large --------------------------------------------------------------


def squeezed(megabytes: int, layers: int = 1) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    data = b"".join(packer.compress(b" " * MEGABYTE) for _ in range(megabytes)) + packer.flush()
    for _ in range(layers - 1):
        data = zlib.compress(data, wbits=31)
    return data


BOMBS = {
    "gzip": ("200 OK", {"content_encoding": "gzip"}, lambda: squeezed(100)),
    "gzip in gzip": ("200 OK", {"content_encoding": "gzip, gzip"}, lambda: squeezed(300, 2)),
    "gzip of a redirect": (
        "307 Elsewhere",
        {"content_encoding": "gzip", "location": "http://localhost:1/"},
        lambda: squeezed(100),
    ),
    "redirect": (
        "302 Found",
        {"location": "http://localhost:1/"},
        lambda: b" " * (40 * MEGABYTE),
    ),
    "error page": ("502 Bad Gateway", {}, lambda: b"<p>" * (14 * MEGABYTE)),
    "deflate": ("200 OK", {"content_encoding": "deflate"}, lambda: zlib.compress(bytes(10**8))),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_reply_takes_more_memory_than_a_few_times_its_bound(kind, raw, bomb):
    status, headers, body = BOMBS[bomb]
    gateway = raw(http(status, body(), **headers))
    poll(kind, raw(http("200 OK", b"{}")).base_url)  # what is imported is no reply
    tracemalloc.start()
    try:
        base, _ = tracemalloc.get_traced_memory()
        poll(kind, gateway.base_url, timeout=20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - base < 6 * payloads.MAX_BODY_BYTES


@pytest.mark.parametrize(
    "head",
    [
        b"X-Big: " + b"x" * 10 * MEGABYTE,
        b"\r\n".join(b"X-%d: y" % n for n in range(100_000)),
        b"Location: http://[" + b"\xff" * 1000,
        b"Retry-After: " + b"9" * 60_000,
        b"Content-Length: -1",
        b"Content-Length: 1\r\nContent-Length: 2",
        b"Content-Length: 99999999999999999999",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Content-Encoding: " + b", ".join([b"gzip"] * 2000),
        b"Set-Cookie: " + b"a=b; " * 1000,
        b"x-inference-id: \x1b[2J",
        b"\x00\x01: \xff",
        b": nameless",
        b" folded",
    ],
    ids=lambda head: head[:20].decode("latin-1").split("\r")[0].encode("ascii", "replace").decode(),
)
def test_heads_that_bomb_or_lie_are_an_outcome_like_any_other(kind, raw, head):
    for status in ("200 OK", "429 Too Many Requests", "302 Found"):
        gateway = raw(f"HTTP/1.1 {status}\r\n".encode() + head + b"\r\n\r\n{}")
        outcome = poll(kind, gateway.base_url)
        with contextlib.suppress(KlingError):
            protocol.read_poll(outcome, "gen-1")


@pytest.mark.filterwarnings("ignore::kling_integrations.KlingWarning")
@pytest.mark.parametrize("seed", range(40))
def test_whatever_bytes_come_over_the_wire_only_a_klingerror_comes_out(kind, raw, seed):
    dice = random.Random(seed)
    good = http("200 OK", b'{"id": "gen-1", "status": "queued"}', content_type="application/json")
    torn = bytearray(good)
    for _ in range(dice.randint(1, 8)):
        place = dice.randrange(len(torn))
        match dice.randrange(4):
            case 0:
                torn[place] = dice.randrange(256)
            case 1:
                del torn[place : place + dice.randint(1, 9)]
            case 2:
                torn[place:place] = dice.randbytes(dice.randint(1, 30))
            case 3:
                del torn[max(1, place) :]
        if len(torn) < 2:
            break
    gateway = raw(bytes(torn), bytes(torn))
    try:
        generation = call(kind, gateway.base_url, "submit", VideoRequest(prompt="a"))
    except KlingError as error:
        assert str(error).isprintable() or "\n" in str(error)
    else:
        assert generation.id
    with contextlib.suppress(KlingError):
        call(kind, gateway.base_url, "get", "gen-1")
    assert sum(heard.startswith(b"POST") for heard in gateway.heard) == 1


# --- words that bite -------------------------------------------------------------------------


def said(status: str, body: object) -> bytes:
    return http(status, json.dumps(body).encode(), content_type="application/json")


@pytest.mark.parametrize(
    "body",
    [
        {"message": f"no {ESCAPES}"},
        {"title": f"no {ESCAPES}"},
        {"error": {"data": {"kind": ESCAPES}, "message": ESCAPES}},
        {"detail": [{"msg": ESCAPES}]},
        {"errors": [f"duration: {ESCAPES}"]},
    ],
)
@pytest.mark.parametrize(
    "status", ["400 Bad", "401 No", "403 No", "429 Slow", "500 Oops", "404 No"]
)
def test_no_error_text_steers_a_terminal(kind, raw, status, body):
    gateway = raw(*[said(status, body)] * 30)
    with pytest.raises(KlingError) as caught:
        call(kind, gateway.base_url, "submit", VideoRequest(prompt="a"))
    assert_harmless(str(caught.value))


def test_no_failure_status_or_content_type_steers_a_terminal(kind, raw):
    with pytest.raises(KlingError) as caught:
        gateway = raw(said("200 OK", {"status": "error", "error": {"message": ESCAPES}}))
        call(kind, gateway.base_url, "wait", "gen-1")
    assert_harmless(str(caught.value))
    with pytest.raises(KlingError) as caught:
        call(kind, raw(http("503 x", b"a", content_type="te\x1b[2Jxt")).base_url, "get", "gen-1")
    assert_harmless(str(caught.value))
    seen = []
    gateway = raw(
        said("200 OK", {"status": ESCAPES}),
        said("200 OK", {"status": "completed", "video": {"url": URL}}),
    )
    call(kind, gateway.base_url, "wait", "gen-1", poll_interval=0.01, on_update=seen.append)
    assert_harmless("\n".join(map(str, seen)))


def assert_harmless(text: str) -> None:
    assert all(char.isprintable() or char == "\n" for char in text), repr(text)


@pytest.mark.parametrize(
    "odd",
    [
        ESCAPES,
        "x" * MEGABYTE,
        "a\nb",
        "a\x00b",
        "\ud800",
        "",
        "   ",
        10**5000,
        1.5,
        True,
        None,
        ["gen-1"],
        {"id": "gen-1"},
    ],
    ids=lambda odd: ascii(odd)[:12] if not isinstance(odd, int) else "int",
)
def test_an_id_that_cannot_be_one_is_no_id(kind, raw, odd):
    body = b'{"status": "queued", "id": %s}'
    text = b"1" + b"0" * 5000 if odd == 10**5000 else json.dumps(odd).encode()
    with pytest.raises(SubmissionUncertainError) as caught:
        call(kind, raw(http("200 OK", body % text)).base_url, "submit", VideoRequest(prompt="a"))
    assert len(str(caught.value)) < 1000
    named = raw(http("200 OK", body % text, x_inference_id="gen-2"))
    assert call(kind, named.base_url, "submit", VideoRequest(prompt="a")).id == "gen-2"


@pytest.mark.parametrize(
    "odd", ["日本:语/ü", "-rf", "a b", "../../etc", "%2e%2e", "a'b\"c;$(d)", "?"]
)
def test_an_odd_id_is_kept_whole_and_arrives_whole(kind, raw, odd):
    from urllib.parse import parse_qs, urlsplit

    gateway = raw(
        said("200 OK", {"id": odd, "status": "queued"}),
        said("200 OK", {"id": odd, "status": "completed", "video": {"url": URL}}),
    )
    done = call(kind, gateway.base_url, "generate", VideoRequest(prompt="a"), poll_interval=0.01)
    assert done.id == odd
    target = gateway.heard[1].split(b" ")[1].decode()
    assert parse_qs(urlsplit(target).query) == {"generation_id": [odd]}


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:video/mp4;base64,AAAA",
        "ftp://example.com/v.mp4",
        "//cdn.example/v.mp4",
        "v.mp4",
        "http://[bad?sign=s3cret",
        "http://127.0.0.1:99999/v.mp4?sign=s3cret",
        "http://\x1b[2J/v.mp4",
        "http://a b/v.mp4",
        "http://ex\x00ample/v.mp4",
        "http://" + "a" * 300 + "/v.mp4?sign=s3cret",
        "https://cdn.example/" + "a" * (MEGABYTE // 2) + "?sign=s3cret",
        "\ud800",
        "http://cdn.example/?X-Amz-Date=\x1b&X-Amz-Expires=" + "9" * 5000,
    ],
    ids=lambda url: ascii(url)[:30],
)
def test_an_address_that_is_no_video_is_refused_and_the_generation_is_kept(
    kind, raw, tmp_path, monkeypatch, url
):
    def nobody(*args, **kwargs):
        raise OSError("no such host")

    monkeypatch.setattr("socket.getaddrinfo", nobody) if "cdn.example" in url else None
    body = {"id": "gen-1", "status": "completed", "video": {"url": url}}
    gateway = raw(*[said("200 OK", body)] * 3)
    if "cdn.example" in url:
        done = protocol.read_poll(Reply(200, {}, json.dumps(body).encode()), "gen-1")
    else:
        done = call(kind, gateway.base_url, "wait", "gen-1")
    made = manifest(done, base_url="https://api.example")
    assert made["generation_id"] == "gen-1"
    json.dumps(made)
    repr(done)
    with pytest.raises(DownloadError) as caught:
        download.save(url, tmp_path / "a.mp4", generation_id="gen-1", patience=0.01, timeout=0.2)
    assert caught.value.generation_id == "gen-1"
    assert_harmless(str(caught.value))
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert list(tmp_path.iterdir()) == []


# --- in doubt --------------------------------------------------------------------------------


def test_a_429_that_names_a_generation_is_looked_into_before_anything_is_repeated(kind):
    with Sandbox(speed=1000, seconds=100, size=(160, 90), fps=8) as sandbox:
        sandbox.fault("submit", "429-after")
        options = {"timeout": 5, "patience": Patience()}
        done = call(kind, sandbox.base_url, "generate", VideoRequest(prompt="a"), **options)
        assert done.status is Status.COMPLETED
        assert len(sandbox.posts) == sandbox.paid == 1


def test_a_429_that_names_a_generation_which_does_not_exist_is_repeated(kind, raw):
    gateway = raw(
        http("429 Slow", b"{}", x_inference_id="gen-1"),
        http("404 No", b"{}"),
        said("200 OK", {"id": "gen-2", "status": "queued"}),
    )
    assert call(kind, gateway.base_url, "submit", VideoRequest(prompt="a")).id == "gen-2"
    assert [heard.split()[0] for heard in gateway.heard] == [b"POST", b"GET", b"POST"]


def test_a_429_that_names_a_generation_nobody_tells_of_is_uncertain(kind, raw):
    gateway = raw(http("429 Slow", b"{}", x_inference_id="gen-1"), b"")
    with pytest.raises(SubmissionUncertainError, match="gen-1"):
        call(kind, gateway.base_url, "submit", VideoRequest(prompt="a"))


def test_a_deadline_passes_on_a_gateway_that_lies_about_retry_after(kind, raw):
    gateway = raw(*[http("429 Slow", b"{}", retry_after="1e300")] * 5)
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError), pytest.warns(KlingWarning, match="429"):
        wait_briefly(kind, gateway.base_url)
    assert time.monotonic() - began < 5
    with pytest.raises(KlingError, match="Nothing was submitted"):
        call(kind, gateway.base_url, "submit", VideoRequest(prompt="a"))


def wait_briefly(kind, base_url):
    if kind == "sync":
        with KlingClient("k3y", base_url) as client:
            return client.wait("gen-1", timeout=0.3)

    async def work():
        async with AsyncKlingClient("k3y", base_url) as client:
            return await client.wait("gen-1", timeout=0.3)

    return asyncio.run(work())


# --- where things go -------------------------------------------------------------------------


def test_a_proxy_of_the_environment_never_sees_what_is_for_loopback(kind, raw, monkeypatch):
    proxy = raw(*[said("200 OK", {"id": "stolen", "status": "queued"})] * 3)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy.base_url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Sandbox(speed=1000, seconds=10, size=(160, 90), fps=8) as sandbox:
        generation = call(kind, sandbox.base_url, "submit", VideoRequest(prompt="a"), timeout=5)
        assert generation.id in sandbox.jobs
    assert proxy.heard == []


def test_a_redirect_is_never_followed_with_the_key(kind, raw):
    elsewhere = raw(*[said("200 OK", {"id": "stolen", "status": "queued"})] * 9)
    for status in ("301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"):
        gateway = raw(http(status, b"", location=elsewhere.base_url))
        with pytest.raises(SubmissionUncertainError):
            call(kind, gateway.base_url, "submit", VideoRequest(prompt="a"))
        gateway = raw(http(status, b"", location=elsewhere.base_url))
        with pytest.raises(KlingError):
            call(kind, gateway.base_url, "get", "gen-1")
    assert elsewhere.heard == []


def test_a_download_takes_no_key_along_not_even_to_the_gateways_own_host(tmp_path, raw):
    gateway = raw(http("404 No", b""), http("404 No", b""))
    video = Video(url=f"{gateway.base_url}/v.mp4?sign=s3cret")
    done = Generation("gen-1", Status.COMPLETED, video)
    with KlingClient("k3y", gateway.base_url) as client, pytest.raises(KlingError):
        client.download(done, tmp_path / "a.mp4")
    assert b"k3y" not in gateway.heard[0]


def test_the_open_files_of_a_thousand_bad_exchanges_are_closed(kind, raw, tmp_path):
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.history()
    before = count()
    for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"\x00" * 100) * 5:
        gateway = RawGateway(answer)
        with contextlib.suppress(KlingError):
            call(kind, gateway.base_url, "submit", VideoRequest(prompt="a"))
        gateway.close()
        with contextlib.suppress(KlingError):
            ledger.entry("x", "y")
    assert count() <= before + 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**21


def test_a_429_is_tried_a_few_times_however_long_each_try_waits_for_its_turn():
    from kling_integrations.core.errors import RateLimitedError
    from kling_integrations.core.protocol import Endpoint
    from kling_integrations.core.waiting import Ask, Sleep, submitting

    clock = [0.0]
    steps = submitting(
        Endpoint("https://api.example", "k"),
        VideoRequest(prompt="a"),
        "kling-1",
        now=lambda: clock[0],
        patience=Patience(),
        rng=random.Random(1),
    )
    asked, outcome = 0, None
    with pytest.raises(RateLimitedError):
        while True:
            match steps.send(outcome):
                case Ask():
                    clock[0] += 1000  # in line behind thousands
                    asked += 1
                    outcome = Reply(429, {}, b"{}")
                case Sleep():
                    outcome = None
    assert asked == 4
