"""S3 on loopback: moto's server in a process of its own, as many processes share a bucket."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BUCKET = "records"

# moto looks whether an object is there and then puts it, in several threads at once: of a race for
# one name two could win, which S3 never lets them. So its puts take turns.
_SERVER = """
import sys, threading
from moto.s3.responses import S3Response
from moto.server import main

turn, put = threading.Lock(), S3Response.put_object

def put_object(self):
    with turn:
        return put(self)

S3Response.put_object = put_object
main(sys.argv[1:])
"""


@contextmanager
def s3_server(python: str = sys.executable) -> Iterator[dict[str, str]]:
    """The environment with which s3fs finds the server, which has an empty bucket ``records``.

    ``python`` is an interpreter that has moto. Where that or s3fs is missing the test is skipped.
    """
    if python == sys.executable:
        pytest.importorskip("moto")
        pytest.importorskip("s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [python, "-c", _SERVER, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await(url, server)
        request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        yield {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }
    finally:
        server.terminate()
        server.wait(30)


def _await(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)
