"""HTTP responses as the gateway sends them, marked as the sandbox's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from .payloads import error_body

MARKER = {"x-kling-sandbox": "1"}


def encoded(body: Any) -> bytes:
    """Bytes and text as they are, anything else as JSON."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    return json.dumps(body, ensure_ascii=False).encode()


def response(
    code: int,
    body: Any,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> web.Response:
    return web.Response(
        status=code,
        body=encoded(body),
        headers={**MARKER, **(headers or {}), "Content-Type": content_type},
    )


def error_response(
    request: web.Request,
    code: int,
    message: str | list[str] | None = None,
    *,
    envelope: str = "problem",
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An HTTP error in one of the envelopes of `error_body`."""
    request_id = os.urandom(8).hex()
    body, content_type = error_body(envelope, code, request.path, request_id, message, kind)
    return response(
        code,
        body,
        {"x-request-id": request_id, **(headers or {})},
        f"{content_type}; charset=utf-8",
    )
