"""Downloads: ranges, refusals, and the faults of a download."""

import socket
from urllib.parse import urlsplit

import pytest
import requests
from support.outcomes import outcome


def test_two_prompts_give_two_videos_each_with_its_own_etag(caller):
    one, same, other = (
        caller.download(caller.finished_url(prompt=text)) for text in ("A cat", "A cat", "A dog")
    )
    assert one.content == same.content != other.content
    assert one.headers["ETag"] == same.headers["ETag"] != other.headers["ETag"]


def test_the_cdn_refuses_and_counts_api_keys(caller):
    url = caller.finished_url()
    reply = requests.get(url, headers={"Authorization": "Bearer sandbox"}, timeout=5)
    assert reply.status_code == 400
    assert caller.sandbox.leaked_keys == 1
    assert caller.download(url).ok
    assert caller.sandbox.leaked_keys == 1


def test_the_cdn_can_be_another_host_name(make):
    with make(cdn_host="localhost") as caller:
        url = caller.finished_url()
        assert urlsplit(url).hostname == "localhost"
        assert caller.download(url).ok


@pytest.mark.parametrize(
    ("asked", "code", "span"),
    [
        (None, 200, slice(None)),
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-50", 206, slice(-50, None)),
        ("bytes=10-99999999", 206, slice(10, None)),
        ("bytes=nonsense", 200, slice(None)),
        ("bytes=0-1,5-9", 200, slice(None)),
    ],
)
def test_ranges_are_served_as_asked(caller, asked, code, span):
    url = caller.finished_url()
    whole = caller.download(url).content
    reply = caller.download(url, headers={"Range": asked} if asked else {})
    assert reply.status_code == code
    assert reply.content == whole[span]
    if code == 206:
        start = span.indices(len(whole))[0]
        stop = start + len(reply.content) - 1
        assert reply.headers["Content-Range"] == f"bytes {start}-{stop}/{len(whole)}"


def test_a_range_beyond_the_end_is_416_and_a_changed_file_comes_whole(caller):
    url = caller.finished_url()
    whole = caller.download(url)
    beyond = caller.download(url, headers={"Range": f"bytes={len(whole.content)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{len(whole.content)}"
    changed = {"Range": "bytes=10-", "If-Range": '"another"'}
    assert caller.download(url, headers=changed).status_code == 200
    same = {"Range": "bytes=10-", "If-Range": whole.headers["ETag"]}
    assert caller.download(url, headers=same).status_code == 206


def test_a_head_request_tells_the_length(caller):
    url = caller.finished_url()
    reply = requests.head(url, timeout=10)
    assert reply.ok
    assert int(reply.headers["content-length"]) == len(caller.download(url).content)


def test_a_cut_download_can_be_resumed_by_range(caller):
    url = caller.finished_url()
    whole = caller.download(url).content
    caller.sandbox.fault("download", "cut", at=1000)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        caller.download(url)
    with socket.create_connection(("127.0.0.1", caller.sandbox.port), timeout=5) as line:
        caller.sandbox.fault("download", "cut", at=1000)
        path = url.removeprefix(caller.sandbox.origin)
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        got = b"".join(iter(lambda: line.recv(65_536), b"")).partition(b"\r\n\r\n")[2]
    assert got == whole[:1000]
    rest = caller.download(url, headers={"Range": "bytes=1000-"})
    assert rest.status_code == 206
    assert got + rest.content == whole


def test_without_range_support_the_whole_file_comes_again(caller):
    url = caller.finished_url()
    caller.sandbox.fault("download", "no-range")
    reply = caller.download(url, headers={"Range": "bytes=1000-"})
    assert reply.status_code == 200
    assert "Accept-Ranges" not in reply.headers
    assert reply.content == caller.download(url).content


def test_a_short_file_is_whole_by_its_length_and_less_than_was_announced(caller):
    id = caller.submit()
    caller.sandbox.finish(id)
    video = caller.poll(id).json()["video"]
    caller.sandbox.fault("download", "short", by=5000)
    reply = caller.download(video["url"])
    assert len(reply.content) == int(reply.headers["content-length"])
    assert len(reply.content) == video["file_size"] - 5000


def test_other_faults_of_a_download(caller):
    url = caller.finished_url()
    for kind in ("expired", "429", "html", "empty", "wrong-type", "garbage", "drop-before"):
        caller.sandbox.fault("download", kind)
    assert caller.download(url).status_code == 403
    assert caller.download(url).status_code == 429
    page = caller.download(url)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html")
    assert caller.download(url).content == b""
    odd = caller.download(url)
    assert odd.headers["content-type"] == "application/json"
    assert odd.content[4:8] == b"ftyp"
    assert len(caller.download(url).content) == 512
    assert outcome(lambda: caller.download(url)) is requests.ConnectionError
    assert caller.download(url).content[4:8] == b"ftyp"


def test_an_endless_download_states_no_length(caller):
    url = caller.finished_url()
    caller.sandbox.fault("download", "oversized", mb=5)
    reply = caller.download(url)
    assert "content-length" not in reply.headers
    assert len(reply.content) == 5 * 2**20
