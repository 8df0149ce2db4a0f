"""Reading a reply takes bounded time and memory, whatever it says; load does so as well."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_integrations import (
    AsyncKlingClient,
    KlingError,
    SubmissionUncertainError,
    VideoRequest,
)
from kling_integrations.core import payloads, protocol
from kling_integrations.core.generation import Generation
from kling_integrations.core.manifest import manifest
from kling_integrations.core.payloads import MAX_BODY_BYTES, Reply
from kling_integrations.core.protocol import Trouble
from kling_integrations.core.storage.file_names import default_file_name
from kling_integrations.sandbox import Sandbox

FULL = MAX_BODY_BYTES


def wide(count: int) -> bytes:
    return b"{" + b",".join(b'"k%d":1' % n for n in range(count)) + b'"status":"queued"}'


MONSTERS = {
    "nested lists": b"[" * (FULL // 2) + b"]" * (FULL // 2),
    "nested objects": b'{"a":' * (FULL // 6) + b"1" + b"}" * (FULL // 6),
    "nested errors": b'{"status":"error","error":' + b'{"message":' * 900 + b'""' + b"}" * 901,
    "many keys": wide(300_000),
    "the same key": b"{" + b'"id":"x",' * (FULL // 9 - 1) + b'"status":"queued"}',
    "a number of a million digits": b'{"id":' + b"9" * 1_000_000 + b"}",
    "a fraction of a million digits": b'{"status":"queued","duration":0.' + b"9" * 1_000_000 + b"}",
    "an exponent": b'{"status":"queued","duration":1e999999999}',
    "a long id": b'{"id":"' + b"i" * (FULL - 20) + b'"}',
    "a long status": b'{"status":"' + b"s" * (FULL - 20) + b'"}',
    "a long message": b'{"message":"' + b"m " * (FULL // 2 - 20) + b'"}',
    "many messages": b'{"message":[' + b'"m",' * (FULL // 4 - 20) + b'"m"]}',
    "a long address": b'{"status":"completed","video":{"url":"https://a/?'
    + b"u=1&" * (FULL // 4 - 30)
    + b'"}}',
    "many videos": b'{"status":"completed","video":['
    + b'{"url":"https://a/"},' * (FULL // 22)
    + b'{"url":"b"}]}',
    "an error of addresses": b'{"status":"error","error":"' + b"http://a?b " * (FULL // 12) + b'"}',
    "an error of spaces": b'{"status":"error","error":"' + b"\\t" * (FULL // 2 - 40) + b'"}',
    "escapes": b'{"status":"' + b"\\ud800" * (FULL // 6 - 10) + b'"}',
    "zeros": bytes(FULL),
    "a byte order mark": b"\xef\xbb\xbf" + b'{"status":"queued"}',
    "utf-16": '{"status":"queued"}'.encode("utf-16"),
    "too long": b" " * (FULL + 1),
}


@pytest.mark.parametrize("monster", MONSTERS)
def test_a_monster_is_read_in_bounded_time_and_memory(monster):
    body = MONSTERS[monster]
    for status in (200, 403, 503):
        tracemalloc.start()
        began = time.process_time()
        read_everything(Reply(status, {"content-type": "x" * 60_000}, body))
        spent = time.process_time() - began
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert spent < 20  # seconds of CPU under tracemalloc, which makes it many times slower
        # Small values become Python objects of a hundred bytes each: thirty times their text.
        assert peak < 36 * FULL, f"{peak / FULL:.1f} times the body"


def read_everything(reply: Reply) -> None:
    """All that is ever made of a reply; only a KlingError may come out."""
    for read in (protocol.read_submit, protocol.read_poll, protocol.read_one_poll):
        try:
            answer = read(reply, "gen-1")
        except KlingError as error:
            assert len(str(error)) < 3000
            assert len(repr(error)) < 3000
            continue
        if isinstance(answer, Trouble):
            assert len(answer.reason) < 1000
            continue
        assert isinstance(answer, Generation)
        assert answer.id
        assert len(answer.id) <= payloads.MAX_ID_LENGTH
        json.dumps(manifest(answer, base_url="https://api.example"))
        assert len(repr(answer)) < 20_000 or answer.video or answer.model
        protocol.odd_status(answer)
        default_file_name(None, answer.id)
    try:
        protocol.read_logs(protocol.read_service(reply, "the logs"))
    except KlingError as error:
        assert len(str(error)) < 3000


_words = st.sampled_from(
    ["id", "generation_id", "status", "video", "url", "error", "meta", "usage", "detail", "message"]
    + ["msg", "name", "type", "data", "kind", "file_size", "file_name", "duration", "credits_used"]
    + ["model", "title", "errors", "completed", "error", "https://a/?Expires=1", "\x1b[2J", ""]
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=30)
    | _words,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(_words | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)
_headers = st.dictionaries(
    st.sampled_from(["x-inference-id", "retry-after", "content-type", "location"]),
    st.text(max_size=30) | st.sampled_from(["nan", "inf", "-1", "1e400", "Tue, 99 Foo 2020"]),
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=_json, status=st.integers(100, 599), headers=_headers)
def test_all_that_is_made_of_any_json_raises_nothing_but_klingerrors(body, status, headers):
    read_everything(Reply(status, headers, json.dumps(body).encode()))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.binary(max_size=300), status=st.integers(100, 599), headers=_headers)
def test_all_that_is_made_of_any_bytes_raises_nothing_but_klingerrors(raw, status, headers):
    read_everything(Reply(status, headers, raw))


LONG = {
    "links": lambda: {"message": "http://" * 100_000},
    "text": lambda: {"message": "internal server error " * 30_000},
    "words of moderation": lambda: {"error": {"name": "x" * 400_000, "message": "y " * 200_000}},
    "details": lambda: {"detail": [{"msg": "z " * 20_000, "type": "t" * 9_000}] * 10},
    "nested lists": lambda: {"message": json.loads("[" * 500 + "1" + "]" * 500)},
    "nested objects": lambda: {"error": json.loads('{"message":' * 500 + '"x"' + "}" * 500)},
    "figures": lambda: {"status": "completed", "meta": {"usage": {"usd_spent": 10**400}}},
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("status", [200, 400, 403, 404, 500])
def test_no_reply_keeps_an_event_loop_busy_for_long(name, status):
    """The best of five, in CPU time, not time on the clock: a busy neighbour does not count."""
    body = json.dumps({"status": "error", **LONG[name]()}).encode()
    assert len(body) < MAX_BODY_BYTES
    reply = Reply(status, {}, body)
    best = min(_cpu_seconds(lambda: read_everything(reply)) for _ in range(5))
    assert best < 0.020


def _cpu_seconds(work):
    began = time.thread_time()
    work()
    return time.thread_time() - began


def test_a_nested_reply_to_a_post_is_uncertain_and_no_crash():
    nested = Reply(500, {}, json.dumps({"message": json.loads("[" * 500 + "]" * 500)}).encode())
    with pytest.raises(SubmissionUncertainError):
        protocol.read_submit(nested, "kling-1")


@pytest.mark.parametrize(
    "link",
    [
        "https://cdn.example/v.mp4?Signature=s3cret",
        "HTTPS://cdn.example/v.mp4?Signature=s3cret",
        "https:\\/\\/cdn.example\\/v.mp4?Signature=s3cret",
        "'https://cdn.example/v.mp4?Signature=s3cret'",
        "https%3A%2F%2Fcdn.example%2Fv.mp4%3FSignature%3Ds3cret",
    ],
)
def test_a_signature_in_any_spelling_shows_in_no_error(link):
    reply = Reply(400, {}, json.dumps({"message": f"could not open {link} today"}).encode())
    with pytest.raises(KlingError) as caught:
        protocol.read_submit(reply, "kling-1")
    assert "s3cret" not in str(caught.value)


# --- load ----------------------------------------------------------------------------------------


async def crowd(sandbox: Sandbox, count: int, **options) -> tuple[Counter[str], int]:
    """So many generations in one process; how they ended, and the growth of memory in bytes."""
    async with AsyncKlingClient("k", sandbox.base_url, timeout=30, **options) as client:

        async def one(number: int) -> str:
            try:
                done = await client.generate(VideoRequest(prompt=f"clip {number}"), timeout=20_000)
            except SubmissionUncertainError:
                return "uncertain"
            return done.status.value

        warm = await asyncio.gather(*(one(-n) for n in range(1, 21)))
        assert set(warm) <= {"completed", "uncertain"}
        gc.collect()
        tracemalloc.start()
        ended = Counter(await asyncio.gather(*(one(n) for n in range(count))))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return ended, after


@pytest.mark.filterwarnings("ignore::kling_integrations.KlingWarning")
async def test_a_thousand_generations_through_faults_end_with_one_post_each():
    """A tenth of all calls goes wrong: drops, errors, pages of HTML, cut bodies, 429s."""
    dice = random.Random(5)
    doubtful, harmless = ("drop-after", "503", "not-http"), ("502-after", "cut", "html")
    polls = ("drop-before", "500", "503", "404", "429", "html", "cut", "cut-json", "garbage")
    with Sandbox(speed=60, seconds=lambda *_: dice.uniform(100, 300), seed=9) as sandbox:
        share = 0.1
        for moment, kinds in (("submit", (*doubtful, *harmless, "429")), ("poll", polls)):
            # The first that fits strikes: each takes its part of what the ones before left.
            for place, kind in enumerate(kinds):
                part = share / len(kinds) / (1 - share * place / len(kinds))
                sandbox.fault(moment, kind, times=None, share=part)
        ended, grown = await crowd(sandbox, 1000)
        prompts = Counter(post.body["prompt"] for post in sandbox.posts if post.status != 429)
        assert set(prompts.values()) == {1}
        accepted = Counter(job.prompt for job in sandbox.jobs.values())
        assert set(accepted.values()) == {1}
    print(f"1,000 generations through faults at 10 %: {dict(ended)}, {grown / 1e6:.1f} MB stay")
    assert set(ended) == {"completed", "uncertain"}
    assert 10 <= ended["uncertain"] <= 100
    assert grown < 15e6  # 15 kB each, most of them the records that the gateway keeps here


GATEWAY = """
import random, sys
from kling_integrations.sandbox import Sandbox
dice = random.Random(6)
with Sandbox(speed=10, seconds=lambda *_: dice.uniform(1000, 1600), seed=9) as sandbox:
    print(sandbox.base_url, flush=True)
    sys.stdin.readline()
    polls, opened = sandbox.requests["poll"], sandbox.connections
    print(len(sandbox.posts), sandbox.paid, polls, opened, flush=True)
"""


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(900)
async def test_ten_thousand_wait_in_one_process():
    """The gateway is another process, so that what is measured here is the client's."""
    gateway = subprocess.Popen(
        [sys.executable, "-c", GATEWAY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    base_url = gateway.stdout.readline().strip()
    before, began, cpu = resident(), time.monotonic(), time.process_time()
    async with AsyncKlingClient("k", base_url, timeout=120) as client:

        async def one(number: int) -> str:
            done = await client.generate(VideoRequest(prompt=f"clip {number}"), timeout=20_000)
            return done.status.value

        ended = Counter(await asyncio.gather(*(one(n) for n in range(10_000))))
    cpu, took = time.process_time() - cpu, time.monotonic() - began
    grown = resident() - before
    told, _ = gateway.communicate("\n", timeout=60)
    posts, paid, polls, connections = map(int, told.split())
    print(
        f"10,000: {dict(ended)}, {cpu:.0f} s CPU, {took:.0f} s, {polls} polls, "
        f"{connections - posts} connections beside the POSTs', {grown / 1e6:.0f} MB"
    )
    assert ended == {"completed": 10_000}
    assert posts == paid == 10_000
    assert grown < 400e6
    assert connections - posts <= 400


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
