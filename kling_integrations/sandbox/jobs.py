"""Jobs on a scaled clock, and the record of all that was asked: what tests read."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kling_integrations.sandbox.payloads import Era


class Clock:
    """Gateway seconds since the sandbox was made; `speed` of them pass in one real second."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._monotonic = time.monotonic()
        self._unix = time.time()

    def now(self) -> float:
        return (time.monotonic() - self._monotonic) * self.speed

    def unix(self, moment: float) -> float:
        """The real time (Unix seconds) of a moment on this clock."""
        return self._unix + moment / self.speed


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
class Job:
    """An accepted generation: it is paid for, and it ends when the clock says so."""

    id: str
    model: str  # as the caller spelled it
    payload: dict[str, Any]
    client_request_id: str | None
    request_id: str
    key_mark: str  # tells the callers' keys apart without keeping them
    era: Era
    clock: Clock
    start: float  # on the clock
    seconds: float  # gateway seconds from the start to the end; inf: until finish()
    fail: str | None  # how it ends when not well
    usd: float
    slug: str  # the video's file name, without ".mp4"
    polls: int = 0
    seen: float | None = None  # on the clock: when a poll first told of the end

    @property
    def end(self) -> float:
        return self.start + self.seconds

    def state(self, now: float) -> str:
        """queued, generating, completed or error at that moment of the clock."""
        if now >= self.end:
            return "error" if self.fail else "completed"
        waited = now - self.start
        return "queued" if waited < min(12.0, 0.1 * self.seconds) else "generating"

    @property
    def status(self) -> str:
        return self.state(self.clock.now())

    @property
    def is_terminal(self) -> bool:
        return self.clock.now() >= self.end

    @property
    def created(self) -> float:
        """Unix seconds."""
        return self.clock.unix(self.start)

    @property
    def finished_at(self) -> float | None:
        """Unix seconds at which it ends or ended; None when nobody knows yet."""
        return None if math.isinf(self.seconds) else self.clock.unix(self.end)

    @property
    def first_seen_finished(self) -> float | None:
        """Unix seconds at which a poll first told of the end."""
        return None if self.seen is None else self.clock.unix(self.seen)

    @property
    def lateness(self) -> float | None:
        """Gateway seconds between the end and the first poll that told of it."""
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
    """Everything that happened; every change wakes those who wait on `changed`."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    posts: list[Post] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    leaked_keys: int = 0

    def count(self, what: str) -> None:
        with self.changed:
            self.requests[what] += 1
            self.changed.notify_all()

    def touch(self) -> None:
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
