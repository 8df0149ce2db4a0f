"""Each fault, as a client sees it on the socket."""

import gzip
import json
import time
from urllib.parse import urlsplit

import pytest
import requests
from support.outcomes import outcome


@pytest.mark.parametrize("moment", ["submit", "poll", "billing", "logs", "models", "download"])
@pytest.mark.parametrize("code", [400, 404, 429, 500, 502, 503, 504, 524])
def test_any_status_at_any_moment(caller, moment, code):
    url = caller.finished_url()
    id = next(iter(caller.sandbox.jobs))
    caller.sandbox.fault(moment, str(code), retry_after=7)
    reply = {
        "submit": caller.post,
        "poll": lambda: caller.poll(id),
        "billing": lambda: caller.get("/v2/billing"),
        "logs": lambda: caller.get("/v2/logs?period=1h"),
        "models": lambda: caller.get("/v1/models"),
        "download": lambda: caller.download(url),
    }[moment]()
    assert reply.status_code == code
    assert reply.headers["Retry-After"] == "7"
    assert reply.json()["status"] == code


def test_a_status_after_the_acceptance_carries_the_id_in_a_header_or_not(caller):
    caller.sandbox.fault("submit", "504-after")
    caller.sandbox.fault("submit", "504-after", header=False)
    first, second = caller.post(), caller.post()
    assert first.headers["x-inference-id"] in caller.sandbox.jobs
    assert "x-inference-id" not in second.headers
    assert caller.sandbox.paid == 2


def test_a_drop_is_the_end_of_the_connection_without_a_byte(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "drop-before")
    assert caller.raw(id) == b""
    caller.sandbox.fault("poll", "drop-before", reset=True)
    with pytest.raises(ConnectionResetError):
        caller.raw(id)


def test_a_slow_reply_comes_whole_and_late(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "slow", seconds=0.2)
    before = time.monotonic()
    assert caller.poll(id).json()["id"] == id
    assert time.monotonic() - before >= 0.2


def test_a_hanging_reply_never_comes_and_ends_with_its_client(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "hang")
    assert outcome(lambda: caller.poll(id, timeout=0.2)) is requests.ReadTimeout
    assert caller.poll(id).ok


def test_a_cut_reply_promises_more_than_it_sends(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "cut", at=10)
    head, _, body = caller.raw(id).partition(b"\r\n\r\n")
    promised = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(body) == 10 < promised


def test_cut_json_is_complete_http_and_half_json(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "cut-json")
    reply = caller.poll(id)
    assert reply.status_code == 200
    assert len(reply.content) == int(reply.headers["content-length"])
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.content)


def test_bodies_that_are_no_answer(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "garbage", bytes=99)
    caller.sandbox.fault("poll", "html")
    caller.sandbox.fault("poll", "empty")
    caller.sandbox.fault("poll", "reply", body=[1, "two"], code=202)
    caller.sandbox.fault("poll", "reply", body="hello", type="text/plain")
    assert len(caller.poll(id).content) == 99
    assert caller.poll(id).text.startswith("<!DOCTYPE html>")
    assert caller.poll(id).content == b""
    third = caller.poll(id)
    assert (third.status_code, third.json()) == (202, [1, "two"])
    assert caller.poll(id).text == "hello"
    assert caller.poll(id).ok


def test_bytes_that_are_no_http(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "not-http")
    assert not caller.raw(id).startswith(b"HTTP/")


def test_no_id_leaves_it_out_of_body_and_headers(caller):
    caller.sandbox.fault("submit", "no-id")
    reply = caller.post()
    assert reply.ok
    assert reply.json() == {"status": "queued"}
    assert "x-inference-id" not in reply.headers


def test_an_oversized_reply_is_valid_json_of_many_megabytes(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "oversized", mb=3)
    reply = caller.poll(id)
    assert len(reply.content) > 3 * 2**20
    assert reply.json()["id"] == id


def test_a_bomb_is_small_on_the_line_and_large_unpacked(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "bomb", mb=20)
    body = caller.raw(id).partition(b"\r\n\r\n")[2]
    assert len(body) < 200_000
    unpacked = gzip.decompress(body)
    assert len(unpacked) > 20 * 2**20
    assert json.loads(unpacked)["id"] == id


def test_a_good_body_under_a_wrong_type(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "wrong-type", times=2)
    caller.sandbox.fault("poll", "wrong-type", type="image/png")
    assert caller.poll(id).headers["content-type"] == "text/plain"
    caller.poll(id)
    reply = caller.poll(id)
    assert reply.headers["content-type"] == "image/png"
    assert reply.json()["id"] == id


def test_odd_status_words(caller):
    id = caller.submit()
    for word in ("unknown", "paused", 7, None):
        caller.sandbox.fault("poll", "odd-status", word=word)
        assert caller.poll(id).json()["status"] == word


def test_an_id_that_changes_its_shape(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "id-changes")
    other = caller.poll(id).json()["id"]
    assert other != id
    assert other.isdigit()
    assert caller.poll(other).status_code == 404
    assert caller.poll(id).json()["id"] == id


def test_no_video_waits_for_the_completed_reply(caller):
    fault = caller.sandbox.fault("poll", "no-video")
    id = caller.submit()
    caller.poll(id)
    assert fault.hits == 0
    caller.sandbox.finish(id)
    body = caller.poll(id).json()
    assert (body["status"], body["video"]) == ("completed", None)
    assert caller.poll(id).json()["video"]["url"]


def test_a_redirect_leads_to_another_host_which_counts_the_keys_it_gets(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "redirect", times=2)
    reply = caller.poll(id, allow_redirects=False)
    assert reply.status_code == 307
    target = urlsplit(reply.headers["Location"])
    assert (target.hostname, target.port) == ("localhost", caller.sandbox.port)
    assert caller.poll(id).status_code == 404  # requests follows, and drops the key
    assert caller.sandbox.leaked_keys == 0
    requests.get(reply.headers["Location"], headers={"Authorization": "Bearer k"}, timeout=5)
    assert caller.sandbox.leaked_keys == 1
