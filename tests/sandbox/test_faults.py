"""Each fault, as a client sees it on the socket."""

import gzip
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import requests

from kling_integrations.sandbox import KINDS, Fault

# The submit was taken (and is billed), although the reply looks like this.
ACCEPTED = {
    "drop-after": {},
    "status-after": {"code": 502},
    "hang-after": {},
    "cut": {},
    "cut-json": {},
    "garbage": {},
    "not-http": {},
    "html": {},
    "empty": {},
    "no-id": {},
    "oversized": {"mb": 1},
    "bomb": {"mb": 1},
    "wrong-type": {},
    "odd-status": {},
    "reply": {"body": []},
    "slow": {"seconds": 0},
}
REFUSED = {"status": {}, "drop-before": {}, "hang": {}, "redirect": {"to": "http://127.0.0.1:9/"}}


def outcome(ask):
    """The reply, or the exception's class."""
    try:
        return ask()
    except requests.RequestException as error:
        return type(error)


@pytest.mark.parametrize(("kind", "options"), (ACCEPTED | REFUSED).items())
def test_a_fault_at_submit_is_before_or_after_the_acceptance(caller, kind, options):
    fault = caller.sandbox.fault("submit", kind, **options)
    outcome(lambda: caller.post(timeout=0.3, allow_redirects=False))
    assert fault.hits == 1
    (post,) = caller.sandbox.posts
    assert post.accepted is (kind in ACCEPTED)
    assert post.fault == kind
    assert caller.sandbox.paid == (kind in ACCEPTED)
    assert caller.post().ok  # once, and then all is well


def test_the_lists_above_name_every_fault_of_a_submit():
    assert (ACCEPTED | REFUSED).keys() == {k for k, v in KINDS.items() if "submit" in v.moments}


def test_accept_turns_a_fault_around(caller):
    caller.sandbox.fault("submit", "html", accept=False)
    caller.sandbox.fault("submit", "status", accept=True, code=500)
    assert caller.post().headers["content-type"] == "text/html"
    assert caller.sandbox.paid == 0
    assert caller.post().status_code == 500
    assert caller.sandbox.paid == 1


def test_a_refused_body_is_not_accepted_by_a_fault(caller):
    caller.sandbox.fault("submit", "drop-after")
    assert caller.post({"model": "nothing"}).status_code == 404
    assert caller.sandbox.paid == 0


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


def test_an_error_wears_the_envelope_of_choice(caller):
    id = caller.submit()
    for style, content_type in (
        ("problem", "application/problem+json"),
        ("legacy", "application/json"),
        ("html", "text/html"),
        ("empty", "text/plain"),
    ):
        caller.sandbox.fault("poll", "502", envelope=style)
        reply = caller.poll(id)
        assert reply.status_code == 502
        assert reply.headers["content-type"].startswith(content_type)
        if style == "legacy":
            assert reply.json()["statusCode"] == "502"
        elif style == "html":
            assert "<h1>502: Bad Gateway</h1>" in reply.text
        elif style == "empty":
            assert reply.content == b""
        assert "Retry-After" not in reply.headers


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


def test_a_sandbox_with_a_hanging_reply_closes_at_once(make):
    with make(faults=["submit:hang-after"]) as caller:
        thread = threading.Thread(target=lambda: outcome(caller.post))
        thread.start()
        caller.sandbox.wait_for(lambda sandbox: sandbox.paid)
        before = time.monotonic()
    assert time.monotonic() - before < 3
    thread.join()


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


# --- aiming --------------------------------------------------------------------------------------


def test_times_counts_and_none_is_for_ever_until_cleared(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "503", times=2)
    assert [caller.poll(id).status_code for _ in range(3)] == [503, 503, 200]
    caller.sandbox.fault("poll", "503", times=None)
    assert [caller.poll(id).status_code for _ in range(5)] == [503] * 5
    caller.sandbox.clear_faults()
    assert caller.poll(id).ok


def test_a_fault_can_skip_wait_for_the_end_or_pick_a_prompt(caller):
    dog, cat = caller.submit(prompt="a dog"), caller.submit(prompt="a cat")
    caller.sandbox.fault("poll", "500", after=2, match="dog")
    assert [caller.poll(cat).status_code for _ in range(3)] == [200] * 3
    assert [caller.poll(dog).status_code for _ in range(4)] == [200, 200, 500, 200]
    caller.sandbox.fault("poll", "500", when="terminal")
    assert caller.poll(dog).ok
    caller.sandbox.finish(dog)
    assert caller.poll(dog).status_code == 500


def test_a_fault_can_strike_a_share_of_the_calls(caller):
    id = caller.submit()
    fault = caller.sandbox.fault("poll", "500", times=None, share=0.3)
    codes = [caller.poll(id).status_code for _ in range(200)]
    assert 30 < codes.count(500) < 90
    assert fault.hits == codes.count(500)


def test_faults_strike_in_the_order_in_which_they_were_armed(caller):
    id = caller.submit()
    for code in ("500", "429", "404"):
        caller.sandbox.fault("poll", code)
    assert [caller.poll(id).status_code for _ in range(4)] == [500, 429, 404, 200]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("submit:drop-after", ("submit", "drop-after", 1, {})),
        ("submit:drop-after:2", ("submit", "drop-after", 2, {})),
        ("poll:503:*", ("poll", "status", None, {"code": 503})),
        ("submit:502-after", ("submit", "status-after", 1, {"code": 502})),
        ("poll:429:3:retry_after=2", ("poll", "status", 3, {"code": 429, "retry_after": 2})),
        ("download:cut:at=1000", ("download", "cut", 1, {"at": 1000})),
        ("poll:odd-status:1:word=paused,after=2", ("poll", "odd-status", 1, {"word": "paused"})),
        ("poll:redirect:to=http://h/a:b", ("poll", "redirect", 1, {"to": "http://h/a:b"})),
    ],
)
def test_a_fault_can_be_written_as_one_word(text, expected):
    fault = Fault.parse(text)
    moment, kind, times, options = expected
    assert (fault.moment, fault.kind, fault.times) == (moment, kind, times)
    assert fault.options.items() >= options.items()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("poll", "unknown fault ''"),
        ("lunch:503", "unknown moment 'lunch': one of submit"),
        ("poll:explode", "unknown fault 'explode': one of status"),
        ("poll:expired", "expired happens at download: not poll"),
        ("poll:503:many", "'many' is no count"),
        ("poll:503:1:color=red", "status has no option 'color'"),
        ("poll:503:1:code", "'code' is not name=value"),
        ("poll:503:0", "times is a count"),
    ],
)
def test_a_mistyped_fault_is_refused_in_a_sentence(text, words):
    with pytest.raises(ValueError, match=words):
        Fault.parse(text)


def test_other_processes_arm_see_and_clear_faults_over_http(caller):
    id = caller.submit()
    url = f"{caller.sandbox.base_url}/_faults"
    armed = requests.post(url, json={"fault": "poll:503:2"}, timeout=5).json()
    assert (armed["kind"], armed["code"], armed["times"]) == ("status", 503, 2)
    body = {"moment": "poll", "kind": "odd-status", "times": None, "word": "paused"}
    assert requests.post(url, json=body, timeout=5).ok
    assert len(requests.get(url, timeout=5).json()["faults"]) == 2
    assert [caller.poll(id).status_code for _ in range(2)] == [503, 503]
    assert caller.poll(id).json()["status"] == "paused"
    requests.delete(url, timeout=5)
    assert caller.poll(id).json()["status"] == "queued"
    for wrong in ({"fault": "poll:explode"}, {"kind": "503"}, {"moment": 3, "kind": "503", "x": 1}):
        refused = requests.post(url, json=wrong, timeout=5)
        assert refused.status_code == 400
        assert refused.json()["message"]


# --- the same, at a download ---------------------------------------------------------------------


def test_a_cut_download_can_be_resumed_by_range(caller):
    url = caller.finished_url()
    whole = caller.download(url).content
    caller.sandbox.fault("download", "cut", at=1000)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        caller.download(url)
    with socket.create_connection(("127.0.0.1", caller.sandbox.port), timeout=5) as line:
        caller.sandbox.fault("download", "cut", at=1000)
        path = url.removeprefix(caller.sandbox.origin)
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
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
