"""What all handlers share: the sandbox's choices, clock and records, and the callers' keys."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from kling_integrations.core.catalog import Model
from kling_integrations.sandbox.faults import FaultBoard
from kling_integrations.sandbox.faulty_responses import answer, error
from kling_integrations.sandbox.jobs import Clock, Job, Records
from kling_integrations.sandbox.payloads import Era
from kling_integrations.sandbox.video.cache import Videos

VIDEO_PATHS = ("/v2/video/generations", "/v2/generate/video/kling/generation")
UNKNOWN_SECONDS = 170.0  # where the documents state no time

Seconds = float | Callable[[str, dict[str, Any]], float] | None
Fail = str | Callable[[str, dict[str, Any]], str | None] | None


@dataclass
class Habits:
    """What the caller of the sandbox chose; see Sandbox."""

    seconds: Seconds = None
    fail: Fail = None
    era: Era | None = None
    logs_show_running: bool = False
    unknown_models: bool = False
    balance: float = 1_000_000.0


@dataclass
class World:
    """One sandbox, as its handlers see it. Handlers run on the sandbox's own event loop."""

    habits: Habits
    clock: Clock
    records: Records
    faults: FaultBoard
    videos: Videos
    rng: random.Random
    log: Callable[[str], None]
    base_url: str = ""  # known once the server listens
    cdn_origin: str = ""
    slugs: dict[str, Job] = field(default_factory=dict)  # by the names of their video files
    held: float = 0.0  # sandbox dollars of all jobs, refunds not counted

    def available(self) -> float:
        """Sandbox dollars that are left: a failed job gives its hold back."""
        now = self.clock.now()
        spent = sum(
            job.usd for job in self.records.jobs.values() if not (job.fail and job.end <= now)
        )
        return self.habits.balance - spent

    def can_pay(self, usd: float) -> bool:
        # Adding up all jobs at each submit would be slow; without refunds it is one subtraction.
        return self.habits.balance - self.held >= usd or self.available() >= usd

    async def serve(
        self,
        request: web.Request,
        moment: str,
        body: Callable[[], dict[str, Any]],
        headers: Mapping[str, str] | None = None,
        key: bool = True,
    ) -> web.StreamResponse:
        """A plain answer of one of the smaller calls: counted, guarded, spoilt by its faults."""
        self.records.count(moment)
        if key and (refusal := refuse_key(request)) is not None:
            return refusal
        fault = self.faults.take(moment)
        known = {"x-request-id": os.urandom(8).hex(), **(headers or {})}
        return await answer(request, fault, 200, body(), known)


def usual_seconds(model: Model | None, duration: int | None) -> float:
    """Gateway seconds that such a generation takes, by the documents."""
    expected = model.expected_seconds(duration) if model else None
    return expected or UNKNOWN_SECONDS


def key_of(request: web.Request) -> str | None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def mark_of(key: str | None) -> str:
    """Tells keys apart without keeping them."""
    return hashlib.sha256((key or "").encode()).hexdigest()[:12]


def refuse_key(request: web.Request) -> web.Response | None:
    key = key_of(request)
    return None if key and "bad" not in key else error(request, 401)


def is_broke(request: web.Request) -> bool:
    return "broke" in (key_of(request) or "")


def parse(raw: bytes) -> dict[str, Any] | None:
    """The JSON object in it, or None."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
