"""A small, quick sandbox and a caller that speaks plain HTTP to it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import requests

from kling_integrations.sandbox import Sandbox

MODEL = "klingai/v2.5-turbo/pro/text-to-video"
UNIVERSAL = "/v2/video/generations"
LEGACY = "/v2/generate/video/kling/generation"


class Caller:
    """What a client without any intelligence would do."""

    def __init__(self, sandbox: Sandbox, path: str = UNIVERSAL) -> None:
        self.sandbox, self.url, self.session = sandbox, sandbox.base_url + path, requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = "Bearer sandbox"

    def get(self, path: str, **more) -> requests.Response:
        return self.session.get(self.sandbox.base_url + path, timeout=10, **more)

    def post(self, body=None, timeout=10, **more) -> requests.Response:
        if body is None:
            body = {"model": MODEL, "prompt": "A cat on a roof", "duration": 5}
        return self.session.post(self.url, json=body, timeout=timeout, **more)

    def submit(self, **changes) -> str:
        body = {"model": MODEL, "prompt": "A cat on a roof", "duration": 5, **changes}
        reply = self.post(body)
        assert reply.ok, reply.text
        return reply.json().get("id") or reply.json()["generation_id"]

    def poll(self, id: str, timeout=10, **more) -> requests.Response:
        params = {"generation_id": id}
        return self.session.get(self.url, params=params, timeout=timeout, **more)

    def finished_url(self, **changes) -> str:
        """The video's address of a generation that ends at once."""
        id = self.submit(**changes)
        self.sandbox.finish(id)
        video = self.poll(id).json()["video"]
        return (video[0] if isinstance(video, list) else video)["url"]

    def download(self, url: str, **more) -> requests.Response:
        return requests.get(url, timeout=10, **more)  # a session of its own: no key goes along

    def raw(self, id: str) -> bytes:
        """All bytes that come back for a poll, down to the end of the connection."""
        target = urlsplit(
            requests.Request("GET", self.url, params={"generation_id": id}).prepare().url
        )
        with socket.create_connection((target.hostname, target.port), timeout=10) as line:
            line.sendall(
                f"GET {target.path}?{target.query} HTTP/1.1\r\nHost: {target.netloc}\r\n"
                "Authorization: Bearer sandbox\r\nConnection: close\r\n\r\n".encode()
            )
            return b"".join(iter(lambda: line.recv(65_536), b""))


@contextmanager
def sandbox_with(**options) -> Iterator[Caller]:
    options = {"size": (160, 90), "fps": 8, "seconds": float("inf"), "seed": 7, **options}
    with Sandbox(**options) as sandbox:
        yield Caller(sandbox)


@pytest.fixture
def make():
    """Makes callers with a sandbox of their own: ``with make(speed=1000) as caller: …``."""
    return sandbox_with


@pytest.fixture
def caller() -> Iterator[Caller]:
    """A caller whose jobs run until the test ends them with ``caller.sandbox.finish()``."""
    with sandbox_with() as caller:
        yield caller


@pytest.fixture(scope="module")
def shared() -> Iterator[Caller]:
    """As `caller`, for tests that only look at one reply each."""
    with sandbox_with() as caller:
        yield caller
