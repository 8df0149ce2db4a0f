"""What routes have in common: the paths of the video calls, and how the free calls are served."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ..access import refuse_key
from ..faulty_responses import json_response
from ..state import SandboxState

VIDEO_PATHS = ("/v2/video/generations", "/v2/generate/video/kling/generation")


async def serve_free_call(
    state: SandboxState,
    request: web.Request,
    moment: str,
    body: dict[str, Any],
    headers: Mapping[str, str] | None = None,
    *,
    needs_key: bool = True,
) -> web.StreamResponse:
    """The response of a call that costs nothing: counted, 401 without a key, subject to faults."""
    state.records.count(moment)
    if needs_key and (refusal := refuse_key(request)) is not None:
        return refusal
    fault = state.faults.take(moment)
    known = {"x-request-id": os.urandom(8).hex(), **(headers or {})}
    return await json_response(request, fault, 200, body, known)
