"""A video is encoded at its first download, and once."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from support.outcomes import outcome

from kling_integrations.sandbox.video import cache


def test_nothing_is_encoded_before_the_first_download():
    code = (
        "import sys, requests\n"
        "from kling_integrations.sandbox import Sandbox\n"
        "with Sandbox(seconds=0) as sandbox:\n"
        "    url = sandbox.base_url + '/v2/video/generations'\n"
        "    keys = {'Authorization': 'Bearer sandbox'}\n"
        "    body = {'model': 'klingai/v2.5-turbo/pro/text-to-video', 'prompt': 'x'}\n"
        "    id = requests.post(url, json=body, headers=keys).json()['id']\n"
        "    poll = requests.get(url, params={'generation_id': id}, headers=keys)\n"
        "    print(poll.json()['status'])\n"
        "print([name for name in ('av', 'PIL') if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == ["completed", "[]"], run.stderr


@pytest.fixture
def encoded(monkeypatch):
    """The prompts of the videos that were encoded during the test."""
    prompts, real = [], cache.encode

    def counting(scene, *args):
        prompts.extend(scene.shots)
        return real(scene, *args)

    monkeypatch.setattr(cache, "encode", counting)
    return prompts


@pytest.fixture
def prompt():
    """One that no other test has asked for."""
    return f"A cat on roof {uuid4()}"


def test_a_video_is_encoded_once_for_all_its_downloads(caller, encoded, prompt):
    urls = [caller.finished_url(prompt=prompt) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        files = {reply.content for reply in pool.map(caller.download, urls * 3)}
    assert len(files) == 1
    assert encoded == [prompt]


def test_sandboxes_of_a_process_share_videos_of_the_same_frame_size_and_rate(make, encoded, prompt):
    files = []
    for options in ({}, {}, {"fps": 4}, {"size": (96, 54)}):
        with make(**options) as caller:
            files.append(caller.download(caller.finished_url(prompt=prompt)).content)
    assert files[0] == files[1]
    assert len(set(files)) == 3
    assert encoded == [prompt] * 3


def test_the_cache_forgets_what_was_asked_for_longest_ago():
    keys = [(name, (160, 90), 8) for name in "abc"]
    videos = cache.VideoCache(max_bytes=25)
    for key in keys[:2]:
        videos.put(key, bytes(10))
    assert videos.get(keys[0])
    videos.put(keys[2], bytes(10))
    assert [videos.get(key) is not None for key in keys] == [True, False, True]
    videos.put(keys[1], bytes(100))  # larger than the cache: this one alone
    assert [videos.get(key) is not None for key in keys] == [False, True, False]
    videos.put(keys[1], bytes(5))  # replaced, not added
    videos.put(keys[0], bytes(20))
    assert [videos.get(key) is not None for key in keys] == [True, True, False]


def test_closing_a_sandbox_ends_the_encoding_that_is_under_way(make, prompt):
    with make(size=(1280, 720), fps=60) as caller:
        url = caller.finished_url(prompt=prompt, duration=10)
        thread = threading.Thread(target=lambda: outcome(lambda: caller.download(url)))
        thread.start()
        caller.sandbox.wait_for(lambda sandbox: sandbox.requests["download"])
        before = time.monotonic()
    assert time.monotonic() - before < 3  # all of it would take far longer
    thread.join(5)
    assert not thread.is_alive()
    encoders = [t for t in threading.enumerate() if t.name.startswith("kling-sandbox-video")]
    for encoder in encoders:
        encoder.join(5)
        assert not encoder.is_alive()
