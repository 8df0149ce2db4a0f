"""Jobs on a scaled clock, and the records of all requests: what tests read."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.catalog import Model
from .payloads import Era

UNKNOWN_SECONDS = 170.0  # where the documents state no time


def documented_seconds(model: Model | None, duration: int | None) -> float:
    """Gateway seconds that a generation of that length takes, by the documents."""
    expected = model.expected_seconds(duration) if model else None
    return expected or UNKNOWN_SECONDS


class GatewayClock:
    """Gateway seconds since the sandbox was made; `speed` of them pass in one real second."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._monotonic = time.monotonic()
        self._unix = time.time()

    def now(self) -> float:
        return (time.monotonic() - self._monotonic) * self.speed

    def unix(self, gateway_seconds: float) -> float:
        """The real time (Unix seconds) at which this clock shows so many seconds."""
        return self._unix + gateway_seconds / self.speed


@dataclass(slots=True)
class Post:
    """One submit that arrived, accepted or not. `status` is None while or when none was sent."""

    time: float  # Unix seconds
    path: str
    headers: dict[str, str]  # without the key
    body: Any = None  # parsed JSON, or the text that was not JSON
    client_request_id: str | None = None
    accepted: bool = False
    generation_id: str | None = None
    status: int | None = None
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        record = {name: getattr(self, name) for name in self.__slots__}
        record["body"] = shorten(self.body)
        return record


@dataclass(slots=True)
class SandboxJob:
    """An accepted generation: it is paid for, and it ends at its time on the clock."""

    id: str
    model: str  # as the request spelled it
    payload: dict[str, Any]
    client_request_id: str | None
    request_id: str
    key_fingerprint: str
    era: Era
    clock: GatewayClock
    start: float  # on the clock
    seconds: float  # gateway seconds from the start to the end; inf: until finish()
    fail: str | None  # the kind of failure that it ends with, if any
    usd: float
    slug: str  # the video's file name, without ".mp4"
    polls: int = 0
    seen: float | None = None  # on the clock: the first poll whose reply reported the end

    @property
    def end(self) -> float:
        return self.start + self.seconds

    def status_at(self, now: float) -> str:
        """queued, generating, completed or error at that time of the clock."""
        if now >= self.end:
            return "error" if self.fail else "completed"
        waited = now - self.start
        return "queued" if waited < min(12.0, 0.1 * self.seconds) else "generating"

    @property
    def status(self) -> str:
        return self.status_at(self.clock.now())

    @property
    def is_terminal(self) -> bool:
        return self.clock.now() >= self.end

    @property
    def created(self) -> float:
        """Unix seconds."""
        return self.clock.unix(self.start)

    @property
    def finished_at(self) -> float | None:
        """Unix seconds at which it ends or ended; None while it runs until `finish()`."""
        return None if math.isinf(self.seconds) else self.clock.unix(self.end)

    @property
    def first_seen_finished(self) -> float | None:
        """Unix seconds of the first poll whose reply reported the end."""
        return None if self.seen is None else self.clock.unix(self.seen)

    @property
    def lateness(self) -> float | None:
        """Gateway seconds between the end and the first poll whose reply reported it."""
        return None if self.seen is None else max(0.0, self.seen - self.end)

    @property
    def prompt(self) -> str:
        return str(self.payload.get("prompt") or "")

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "model": self.model,
            "status": self.status,
            "payload": shorten(self.payload),
            "client_request_id": self.client_request_id,
            "created": self.created,
            "seconds": None if math.isinf(self.seconds) else self.seconds,
            "finished_at": self.finished_at,
            "first_seen_finished": self.first_seen_finished,
            "lateness": self.lateness,
            "polls": self.polls,
            "usd": self.usd,
        }


@dataclass
class Records:
    """Everything that happened; every change notifies the threads that wait on `changed`."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    posts: list[Post] = field(default_factory=list)
    jobs: dict[str, SandboxJob] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    leaked_keys: int = 0

    def count(self, operation: str) -> None:
        with self.changed:
            self.requests[operation] += 1
            self.changed.notify_all()

    def notify(self) -> None:
        with self.changed:
            self.changed.notify_all()


def shorten(value: Any, limit: int = 300) -> Any:
    """The same JSON with its long strings (images) cut, for reading."""
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:limit]}… ({len(value)} characters)"
    if isinstance(value, Mapping):
        return {key: shorten(item, limit) for key, item in value.items()}
    if isinstance(value, list):
        return [shorten(item, limit) for item in value]
    return value
