"""The bodies that the gateway answers with: by era, for errors, for a generation's end.

The reply to one and the same call has changed over time and differs by model; a client must read
all of it. Each `Era` is one documented format. Sources: the sample outputs and OpenAPI files of the
gateway's documents from 2025 to August 2026, its pages on errors and on request tracing.
"""

from __future__ import annotations

import json
import random
import string
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

CREDITS_PER_USD = 2_000_000
NANOID = string.ascii_letters + string.digits + "_-"


@dataclass(frozen=True)
class Era:
    """The reply format of one time. Make a variant with `dataclasses.replace(ERAS[…], …)`."""

    name: str
    submit_code: int = 200
    id_key: str = "id"  # at submit; "id" or "generation_id"
    ids: str = "nanoid"  # uuid (":model" behind it), decimal, nanoid, dash (nanoid with - first)
    video: str = "url"  # file, url, duration, array
    usage: tuple[str, ...] = ("credits_used",)  # also usd_spent, tokens_used
    usage_at_submit: bool = False
    nulls: bool = True  # video and error are null while there is none, rather than absent
    placeholder_error: bool = False  # completed, with an error object that says nothing
    model: bool = False
    errors: str = "problem"  # or legacy
    words: Mapping[str, str] = field(default_factory=dict)  # other words for the four states


ERAS: Mapping[str, Era] = {
    era.name: era
    for era in (
        Era("2025", 201, ids="uuid", video="file", usage=(), nulls=False, errors="legacy"),
        Era("2025-11", 201, "generation_id", video="duration", usage=("tokens_used",)),
        Era("2026-01", ids="decimal", usage=("credits_used",)),
        Era(
            "2026-08",
            ids="dash",
            video="array",
            usage=("credits_used", "usd_spent"),
            usage_at_submit=True,
            placeholder_error=True,
            model=True,
        ),
    )
}
_FAMILY_ERAS = {
    "v1": "2025-11",
    "v1.5": "2025-11",
    "v1.6": "2025-11",
    "v2": "2025",
    "v2.1": "2025",
    "v2.5": "2025",
    "v2.6": "2026-01",
    "o1": "2026-01",
}


def era_of(family: str | None) -> Era:
    """The era of a model family; models beyond the catalogue answer in the newest format."""
    return ERAS[_FAMILY_ERAS.get(family or "", "2026-08")]


def new_id(shape: str, model: str, rng: random.Random) -> str:
    """An id of one of the documented shapes."""
    if shape == "uuid":
        return f"{uuid.UUID(int=rng.getrandbits(128), version=4)}:{model}"
    if shape == "decimal":
        return str(rng.randrange(7 * 10**17, 9 * 10**17))
    text = "".join(rng.choices(NANOID, k=21))
    return "-" + text[1:] if shape == "dash" else text.lstrip("-").ljust(21, "k")


def could_be_id(text: str) -> bool:
    """Whether the gateway could have given out this id. (A malformed one is not echoed.)"""
    head, _, tail = text.partition(":")
    if tail:
        try:
            uuid.UUID(head)
        except ValueError:
            return False
        return True
    return text.isdigit() or (len(text) == 21 and all(letter in NANOID for letter in text))


def parse_object(raw: bytes) -> dict[str, Any] | None:
    """The JSON object in a request's body; None when it is something else."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


# --- a generation ------------------------------------------------------------------------------


def submitted(era: Era, id: str, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {era.id_key: id, "status": era.words.get("queued", "queued")}
    if era.model:
        body["model"] = model
    if era.usage_at_submit:
        body["meta"] = {"usage": usage(era, 0.0)}
    return body


def polled(
    era: Era,
    id: str,
    state: str,
    *,
    model: str,
    video: Mapping[str, Any] | None = None,
    error: Any = None,
    usd: float = 0.0,
    word: str | None = None,
) -> dict[str, Any]:
    """The reply to a poll. `video` has url, content_type, file_name, file_size, duration."""
    body: dict[str, Any] = {"id": id, "status": word or era.words.get(state, state)}
    if era.model:
        body["model"] = model
    if era.nulls:
        body["video"] = None
        body["error"] = None
    if video is not None:
        keys = {
            "file": ("url", "content_type", "file_name", "file_size"),
            "duration": ("url", "duration"),
        }.get(era.video, ("url",))
        value = {key: video[key] for key in keys}
        body["video"] = [value] if era.video == "array" else value
        if era.video == "duration":
            body["duration"] = video["duration"]
        if era.placeholder_error:
            # A sample of the documents shows just this beside "completed".
            body["error"] = {"name": "text", "message": "text"}
    if state == "error":
        body["error"] = error
    if state in ("completed", "error") and era.usage:
        body["meta"] = {"usage": usage(era, usd)}
    return body


def usage(era: Era, usd: float) -> dict[str, float]:
    figures = {
        "credits_used": round(usd * CREDITS_PER_USD),
        "usd_spent": round(usd, 6),
        "tokens_used": round(usd * CREDITS_PER_USD),
    }
    return {name: figures[name] for name in era.usage}


# How a generation can fail: the status word and the `error` of the body.
FAILURES: Mapping[str, tuple[str, Any]] = {
    "moderation": (
        "error",
        {
            "name": "Error",
            "message": "Failure to pass the risk control system: content policy violation",
        },
    ),
    "face_detection": (
        "error",
        {
            "detail": [
                {
                    "loc": ["body", "image_url"],
                    "msg": "Could not detect face in the image",
                    "type": "face_detection_error",
                    "input": "",
                }
            ]
        },
    ),
    "provider": (
        "error",
        {
            "name": "Error",
            "message": "Something wrong with the server. Please, try again later.",
        },
    ),
    "credits": (
        "error",
        {
            "name": "OutOfFundsException",
            "message": "You've run out of funds.",
            "data": {"kind": "err_insufficent_credits"},
        },
    ),
    "string": ("error", "Generation failed"),
    "null": ("error", None),
    "failed": ("failed", {"name": "Error", "message": "The generation failed"}),
}


def failure(kind: str, payload: Mapping[str, Any]) -> tuple[str, Any]:
    """Status word and error of that failure; it quotes the input where the gateway does."""
    word, error = FAILURES[kind]
    if kind == "face_detection":
        error = {"detail": [{**error["detail"][0], "input": payload.get("image_url", "")}]}
    return word, error


# --- HTTP errors -------------------------------------------------------------------------------

# title, exception name, message
_ERRORS: Mapping[int, tuple[str, str, str]] = {
    400: ("Bad Request", "BadRequestException", "Body validation error!"),
    401: (
        "Unauthorized",
        "UnauthorizedException",
        "This request requires a valid API key. This is a sandbox: any word will do as a key.",
    ),
    403: ("Forbidden", "ForbiddenException", "You've run out of credits."),
    404: ("Not Found", "NotFoundException", "The resource was not found."),
    405: ("Method Not Allowed", "MethodNotAllowedException", "Method not allowed."),
    413: ("Payload Too Large", "PayloadTooLargeException", "request entity too large"),
    429: ("Too Many Requests", "ThrottlerException", "Too Many Requests"),
    500: ("Internal Server Error", "InternalServerErrorException", "Internal server error"),
    502: ("Bad Gateway", "BadGatewayException", "Bad Gateway"),
    503: ("Service Unavailable", "ServiceUnavailableException", "Service unavailable"),
    504: ("Gateway Timeout", "GatewayTimeoutException", "Generation timeout"),
    524: ("A Timeout Occurred", "TimeoutException", "A timeout occurred"),
}
OUT_OF_CREDITS = "err_insufficent_credits"  # the gateway's own spelling


def error_body(
    envelope: str,
    code: int,
    path: str,
    request_id: str,
    message: str | list[str] | None = None,
    kind: str | None = None,
) -> tuple[Any, str]:
    """An error in one of four envelopes (problem, legacy, html, empty), and its content type.

    The body is JSON to be, or text for the last two.
    """
    title, name, text = _ERRORS.get(code, (f"Error {code}", "HttpException", f"Error {code}"))
    shown = text if message is None else message
    if envelope == "empty":
        return "", "text/plain"
    if envelope == "html":
        return page(f"{code}: {title}"), "text/html"
    if envelope == "legacy":
        flat = shown if isinstance(shown, str) else "; ".join(shown)
        return {
            "message": flat,
            "path": path,
            "requestId": request_id,
            "statusCode": str(code),
            "timestamp": iso(),
        }, "application/json"
    error: dict[str, Any] = {
        "name": "OutOfFundsException" if kind == OUT_OF_CREDITS else name,
        "message": shown if isinstance(shown, str) else shown[0],
    }
    if kind:
        error["data"] = {"kind": kind}
    return {
        "title": title,
        "status": code,
        "instance": path,
        "message": shown,
        "requestId": request_id,
        "timestamp": iso(),
        "error": error,
    }, "application/problem+json"


def page(title: str) -> str:
    return (
        f"<!DOCTYPE html><html><head><title>{title}</title></head>"
        f"<body><center><h1>{title}</h1></center><hr><center>SANDBOX</center></body></html>"
    )


def iso(unix: float | None = None) -> str:
    """UTC with milliseconds and a Z, as the gateway writes times."""
    moment = datetime.now(UTC) if unix is None else datetime.fromtimestamp(unix, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
