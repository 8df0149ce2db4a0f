"""Generation, Status, Video, Usage, Failure, Saved: what the gateway answered, in one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit


class Status(StrEnum):
    """Where a generation stands. UNKNOWN is an undocumented word: still pending."""

    QUEUED = "queued"
    GENERATING = "generating"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        return self in (Status.COMPLETED, Status.FAILED)


def printable(text: str) -> str:
    """Others' words without what steers a terminal or turns the direction of the line."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def without_query(url: str) -> str:
    """A URL fit for logs: a signed query string is a bearer secret, as are userinfo parts."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no address, for example
        return "an unreadable address"
    host = parts.netloc.rpartition("@")[2]
    shown = urlunsplit((parts.scheme, host, parts.path, "…" if parts.query else "", ""))
    return printable(shown)


def url_expiry(url: str) -> datetime | None:
    """When a signed URL ends, read from its query (UTC); None where it does not say.

    Known forms: ``ksTime`` (hexadecimal Unix seconds), ``Expires`` (Unix seconds),
    ``X-Amz-Date`` + ``X-Amz-Expires`` and ``X-Tos-Date`` + ``X-Tos-Expires``.
    """
    try:
        query_text = urlsplit(url).query[:4096]  # signatures are short; what is longer is none
        query = {key.lower(): values[0] for key, values in parse_qs(query_text).items()}
        if "kstime" in query:
            return datetime.fromtimestamp(int(query["kstime"], 16), UTC)
        if "expires" in query:
            return datetime.fromtimestamp(int(query["expires"]), UTC)
        for vendor in ("x-amz", "x-tos"):
            if f"{vendor}-date" in query and f"{vendor}-expires" in query:
                signed = datetime.strptime(query[f"{vendor}-date"], "%Y%m%dT%H%M%SZ")
                lifetime = int(query[f"{vendor}-expires"])
                return datetime.fromtimestamp(
                    signed.replace(tzinfo=UTC).timestamp() + lifetime, UTC
                )
    except (ValueError, OverflowError, OSError):
        return None
    return None


@dataclass(frozen=True, slots=True)
class Video:
    """A finished video at the gateway. ``file_size`` is in bytes, ``duration`` in seconds."""

    url: str = field(repr=False)
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = None
    duration: float | None = None

    @property
    def expires_at(self) -> datetime | None:
        return url_expiry(self.url)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the gateway says that it cost; every figure may be missing."""

    credits_used: float | None = None
    usd_spent: float | None = None
    tokens_used: float | None = None

    def to_json(self) -> dict[str, float]:
        figures = {
            "credits_used": self.credits_used,
            "usd_spent": self.usd_spent,
            "tokens_used": self.tokens_used,
        }
        return {name: value for name, value in figures.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generation failed. ``kind``: moderation, input, credits, provider or unknown."""

    message: str
    name: str | None = None
    kind: str = "unknown"


@dataclass(frozen=True, slots=True)
class Generation:
    """One paid generation. ``id`` is opaque: never parsed, never compared with the model."""

    id: str
    status: Status
    video: Video | None = None
    error: Failure | None = None
    usage: Usage | None = None
    model: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_terminal(self) -> bool:
        return self.status.is_terminal


@dataclass(frozen=True, slots=True)
class Saved:
    """A video on disk. ``size`` is in bytes; ``sha256`` (hexadecimal) is that of the file."""

    path: Path
    size: int
    sha256: str
    content_type: str | None
