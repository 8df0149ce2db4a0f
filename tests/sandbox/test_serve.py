"""The sandbox as a process of its own."""

import re
import signal
import subprocess
import sys

import pytest
import requests

SCRIPT = (
    "from kling_integrations.sandbox import serve; serve(port=0, speed=100, faults=['poll:503'])"
)


@pytest.fixture
def process():
    with subprocess.Popen(
        [sys.executable, "-u", "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_what_it_is_serves_and_ends_quietly_at_a_signal(process, number):
    banner = ""
    while "Ctrl-C" not in banner:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        banner += line
    assert "SANDBOX" in banner
    assert "not the real gateway" in banner
    url = re.search(r"export AIML_BASE_URL=(\S+)", banner)[1]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/sandbox/x100", url)
    assert "export AIML_API_KEY=sandbox" in banner
    headers = {"Authorization": "Bearer sandbox"}
    body = {"model": "klingai/v2.5-turbo/pro/text-to-video", "prompt": "x"}
    path = f"{url}/v2/video/generations"
    id = requests.post(path, json=body, headers=headers, timeout=5).json()["id"]
    polls = [
        requests.get(path, params={"generation_id": id}, headers=headers, timeout=5).status_code
        for _ in range(2)
    ]
    assert polls == [503, 200]
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert err == ""
    assert f"accepted {body['model']}: {id}" in out
    assert "1 submits, 1 generations, 2 polls, 0 downloads" in out
