"""Tolerant reading of the gateway's JSON: every era of the documentation, and garbage.

Nothing here raises for what a reply holds. What a reply means for the caller is decided in
``protocol``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .concealed import SignedUrl
from .errors import warn
from .generation import Failure, Generation, Status, Usage, Video, printable

# A generation's reply is under 2 kB; whatever is larger is not one, and must not fill memory.
MAX_BODY_BYTES = 1024 * 1024

_LONGEST = 2000  # characters of a reply's words that are looked at

# The longest documented id has 100 characters; it goes into a URL, a row and a sentence.
MAX_ID_LENGTH = 1000

# The documented words, and those of Kling itself and of gateways like this one.
_PENDING = {
    "queued": Status.QUEUED,
    "waiting": Status.QUEUED,
    "submitted": Status.QUEUED,
    "active": Status.GENERATING,
    "generating": Status.GENERATING,
    "processing": Status.GENERATING,
}
_STATUS = {
    **_PENDING,
    "completed": Status.COMPLETED,
    **dict.fromkeys(("succeeded", "succeed", "success", "done"), Status.COMPLETED),
    "error": Status.FAILED,
    "failed": Status.FAILED,
    **dict.fromkeys(("canceled", "cancelled", "expired"), Status.FAILED),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: header names in lower case, at most MAX_BODY_BYTES of body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


def json_object(reply: Reply) -> dict[str, Any]:
    """The body as a JSON object; empty for HTML, garbage, cut or oversized bodies."""
    if len(reply.body) > MAX_BODY_BYTES:
        return {}
    try:
        body = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def generation_id_of(body: Mapping[str, Any]) -> str:
    """``id`` or ``generation_id``; a native Kling id can come as a number."""
    return id_or_empty(body.get("id")) or id_or_empty(body.get("generation_id"))


def id_or_empty(value: Any) -> str:
    """An id as text; empty for what cannot be one, such as words that would steer a terminal."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= MAX_ID_LENGTH and text.isprintable() else ""


def generation_of(body: Mapping[str, Any], generation_id: str, fresh: bool = False) -> Generation:
    """The reply in one shape. The id stays the one that was polled for, whatever the body says."""
    status = known_status(body)
    video = video_of(body)
    if status is None:
        # What is there says more than an unknown word. A reply to a POST is no end.
        status = Status.UNKNOWN
        if video and not fresh:
            status = Status.COMPLETED
        elif says_error(body) and not fresh:
            status = Status.FAILED
    model = body.get("model")
    return Generation(
        id=generation_id,
        status=status,
        video=video if status is Status.COMPLETED else None,
        # A completed sample of the documentation carries a placeholder error: status decides.
        error=_failure(body.get("error") or _ended_by(body)) if status is Status.FAILED else None,
        usage=_usage(body),
        model=model if isinstance(model, str) else None,
        raw=body,
    )


def known_status(body: Mapping[str, Any]) -> Status | None:
    word = body.get("status")
    return _STATUS.get(word.strip().lower()) if isinstance(word, str) else None


def says_error(body: Mapping[str, Any]) -> bool:
    """Whether there is an error with words in it, not an empty place for one."""
    error = body.get("error")
    if isinstance(error, dict):
        return any(_sentences(error.get(name)) for name in ("message", "detail", "name", "type"))
    return isinstance(error, str) and bool(error.strip())


def _ended_by(body: Mapping[str, Any]) -> str | None:
    word = body.get("status")
    word = word.strip().lower() if isinstance(word, str) else ""
    ended = word in ("canceled", "cancelled", "expired")
    return f"the gateway says that it is {word}" if ended else None


def video_of(body: Mapping[str, Any]) -> Video | None:
    """The first of ``video``: an object, an array or null, over all eras of the documentation."""
    found = body.get("video")
    for item in found if isinstance(found, list) else [found]:
        if not isinstance(item, dict) or not isinstance(item.get("url"), str) or not item["url"]:
            continue
        size, seconds = item.get("file_size"), item.get("duration", body.get("duration"))
        return Video(
            url=SignedUrl(item["url"]),
            content_type=_text_or_none(item.get("content_type")),
            file_name=_text_or_none(item.get("file_name")),
            file_size=size if isinstance(size, int) and size > 0 else None,
            duration=figure(seconds),
        )
    return None


def _usage(body: Mapping[str, Any]) -> Usage | None:
    meta = body.get("meta")
    usage = meta.get("usage") if isinstance(meta, dict) else None
    if not isinstance(usage, dict):
        return None
    read = Usage(*(_spent(k, usage.get(k)) for k in ("credits_used", "usd_spent", "tokens_used")))
    return read if read.to_json() else None


def _spent(name: str, value: Any) -> float | None:
    """A figure that can be a cost; one that cannot is unknown, and never frees money."""
    number = figure(value)
    if number is not None and number >= 0:
        return number
    if value is not None:
        warn(f"The gateway says {name}={value!r:.40}, which is no cost: what it cost is unknown.")
    return None


def figure(value: Any) -> float | None:
    """A finite number, also as text; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


_KINDS = (
    (
        "moderation",
        r"moderat|polic|sensitive|nsfw|unsafe|safety|prohibit|violat|content.?filter|risk",
    ),
    ("credits", r"credit|insufficient|balance|funds|quota|billing"),
    (
        "input",
        r"invalid|validation|detect.?face|face_detection|unsupported|dimension|resolution|"
        r"aspect|too (large|small|long|short)|format|not (?:a )?valid|missing|required|"
        r"could not (?:read|load|fetch|download)",
    ),
    (
        "provider",
        r"internal|server|timeout|timed out|unavailable|overload|busy|provider|upstream|"
        r"gateway|maintenance|try again|rate.?limit|too many",
    ),
)


def _failure(error: Any) -> Failure:
    """``{name, message}``, ``{detail: [...]}`` or a plain string: one sentence and a kind."""
    name, message = None, ""
    if isinstance(error, str):
        message = error[:_LONGEST]
    elif isinstance(error, dict):
        name = _text_or_none(error.get("name")) or _text_or_none(error.get("type"))
        message = _sentences(error.get("message")) or _sentences(error.get("detail"))
        details = error.get("detail")
        if name is None and isinstance(details, list) and details and isinstance(details[0], dict):
            name = _text_or_none(details[0].get("type"))
    name = one_line(name) if name else None
    text = f"{name or ''} {message}"
    kind = next(
        (kind for kind, words in _KINDS if re.search(words, text, re.IGNORECASE)), "unknown"
    )
    return Failure(message=one_line(message) or "the gateway gave no reason", name=name, kind=kind)


def _sentences(value: Any, depth: int = 3) -> str:
    """Text out of a string, a list of strings, or FastAPI-like details ``{loc, msg, type}``.

    At most _LONGEST characters, out of at most ``depth`` levels: a reply can nest without end.
    """
    if isinstance(value, str):
        return value[:_LONGEST]
    if depth and isinstance(value, list):
        parts = (_sentences(item, depth - 1) for item in value[:5])
        return "; ".join(filter(None, parts))[:_LONGEST]
    if depth and isinstance(value, dict):
        return _sentences(value.get("msg") or value.get("message"), depth - 1)
    return ""


def explain(reply: Reply) -> str:
    """What an HTTP error says, out of either envelope; never a page of HTML."""
    body = json_object(reply)
    nested = body.get("error")
    message = (
        _sentences(body.get("message"))
        or _sentences(nested)
        or _sentences(body.get("detail"))
        or _sentences(body.get("title"))
    )
    hints = body.get("errors") or (nested.get("data") if isinstance(nested, dict) else None)
    extra = _sentences(hints)
    if extra and extra not in message:
        message = f"{message}: {extra}" if message else extra
    return one_line(message) or describe(reply)


def error_kind(reply: Reply) -> str:
    error = json_object(reply).get("error")
    data = error.get("data") if isinstance(error, dict) else None
    kind = data.get("kind") if isinstance(data, dict) else None
    return kind if isinstance(kind, str) else ""


def describe(reply: Reply) -> str:
    kind = (
        one_line(reply.headers.get("content-type", "").partition(";")[0])[:60] or "no content type"
    )
    return f"HTTP {reply.status}, {kind}, {len(reply.body):,} bytes"


# Links whose query may be a signature, in any spelling: capitals, JSON's escapes, percent codes.
_LINK = re.compile(r"(https?:\\?/\\?/[^\s?\"'<>]*)\?[^\s\"'<>]*|https?%3a%2f%2f\S*", re.IGNORECASE)


def one_line(text: str) -> str:
    """One line of at most 500 characters that steers no terminal and ends without a full stop.

    Signed query strings go: they open the video to every reader.
    """
    # Cut first, then look: a reply can be of any size.
    text = text[:_LONGEST]
    if "?" in text or "%" in text:  # hundreds of links without either take milliseconds
        text = _LINK.sub(lambda link: f"{link[1] or '…'}?…", text)
    text = printable(" ".join(text.split()))
    return (text[:500] + "…" if len(text) > 500 else text).rstrip(".")
