"""Both clients behind one face, and gateways for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.raw_gateway import RawGateway

from kling_integrations import AsyncKlingClient, KlingClient, VideoRequest
from kling_integrations.core.waiting import Patience
from kling_integrations.sandbox import Sandbox


class Front:
    """One face for KlingClient and AsyncKlingClient, so that every test runs on both."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def run(self, base_url: str, work: str, *args: Any, **options: Any) -> Any:
        """Makes a client, calls one verb, closes the client."""
        call = {name: options.pop(name) for name in list(options) if name in _CALL_OPTIONS}
        options.setdefault("api_key", "sandbox")
        options.setdefault("patience", Patience(first=0.01, most=0.02))
        if self.kind == "sync":
            with KlingClient(base_url=base_url, **options) as client:
                return getattr(client, work)(*args, **call)

        async def on_loop() -> Any:
            async with AsyncKlingClient(base_url=base_url, **options) as client:
                return await getattr(client, work)(*args, **call)

        return asyncio.run(on_loop())


_CALL_OPTIONS = ("on_update", "poll_interval", "new", "take", "schedule", "elapsed")


@pytest.fixture(params=["sync", "async"])
def front(request: pytest.FixtureRequest) -> Front:
    return Front(request.param)


@pytest.fixture
def gateway() -> Iterator[Callable[..., RawGateway]]:
    """``gateway(reply, reply, …)`` answers with these, in this order."""
    made: list[RawGateway] = []

    def make(*answers: bytes) -> RawGateway:
        made.append(RawGateway(*answers))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Jobs of 100 gateway seconds, 1,000 of which pass in a second."""
    with Sandbox(speed=1000, seconds=100, size=(160, 90), fps=8, seed=3) as running:
        yield running


@pytest.fixture
def raccoon() -> VideoRequest:
    return VideoRequest(model="v2.5-turbo-pro", prompt="A cheerful white raccoon")
