"""The CDN of the videos: another path (and, with `cdn_host`, another host) than the gateway's.

It serves ranges, and refuses and counts every API key that is sent to it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from aiohttp import web

from ..faults import Fault
from ..faulty_responses import (
    MEGABYTE,
    REDIRECT_PATH,
    RawResponse,
    cut_response,
    faulty_response,
)
from ..responses import MARKER, error_response, response
from ..signed_urls import CDN_PATH
from ..state import SandboxState
from ..video.encode import EncodingStoppedError
from ..video.scene import Scene


class Cdn:
    def __init__(self, state: SandboxState) -> None:
        self.state = state

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{CDN_PATH}/{{name}}", self.download),
            web.route("*", REDIRECT_PATH, self.redirect_target),
            web.route("*", f"{REDIRECT_PATH}/{{rest:.*}}", self.redirect_target),
        ]

    def _leaks_key(self, request: web.Request) -> bool:
        """Whether the request carries a key, which belongs to the gateway alone."""
        if "Authorization" not in request.headers:
            return False
        with self.state.records.changed:
            self.state.records.leaked_keys += 1
            self.state.records.changed.notify_all()
        self.state.log(f"an API key was sent to {request.path}: refused")
        return True

    async def redirect_target(self, request: web.Request) -> web.Response:
        """Where the fault `redirect` leads: a client must not bring its key along."""
        self._leaks_key(request)
        self.state.records.count("elsewhere")
        return response(404, "SANDBOX: nothing is here", content_type="text/plain")

    async def download(self, request: web.Request) -> web.StreamResponse:
        self.state.records.count("download")
        if self._leaks_key(request):
            message = "Only one way of authorization is allowed."
            return error_response(request, 400, message, envelope="html")
        name = request.match_info["name"]
        job = self.state.jobs_by_slug.get(name.removesuffix(".mp4"))
        if job is None:
            return error_response(request, 404, envelope="html")
        fault = self.state.faults.take("download", job.prompt)
        if fault is not None:
            self.state.log(f"fault at download: {fault.kind}")
            if fault.kind == "expired":
                return error_response(request, 403, envelope="html")
            if (replacement := await faulty_response(request, fault, {})) is not None:
                return replacement
        if not self.state.signer.is_valid(name, request.query):
            return error_response(request, 403, envelope="html")
        try:
            data = await self.state.videos.data(Scene.of(job.model, job.payload))
        except EncodingStoppedError:
            return RawResponse()
        return await self._send(request, data, fault)

    async def _send(
        self, request: web.Request, data: bytes, fault: Fault | None
    ) -> web.StreamResponse:
        kind = fault.kind if fault else ""
        if fault and kind == "short":
            data = data[: -(fault["by"] or len(data) // 2)]
        # The encoder's output for equal frames is not quite always equal: only a hash of the bytes
        # shows whether the rest of a file that was encoded anew fits the part that a client has.
        etag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"Content-Type": "video/mp4", "ETag": etag}
        if fault and kind == "wrong-type":
            headers["Content-Type"] = fault["type"] or "application/json"
        if fault and kind == "oversized":
            return await _endless(request, headers, int(fault["mb"]))
        span = None
        if kind != "no-range":
            headers["Accept-Ranges"] = "bytes"
            span = _span(request, len(data), etag)
        code = 200
        if span is not None:
            start, stop = span
            if start >= stop:
                headers["Content-Range"] = f"bytes */{len(data)}"
                return web.Response(status=416, headers={**MARKER, **headers})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            code, data = 206, data[start:stop]
        if fault and kind == "cut":
            return cut_response(code, data, headers, fault["at"])
        return web.Response(status=code, body=data, headers={**MARKER, **headers})


async def _endless(request: web.Request, headers: Mapping[str, str], mb: int) -> web.StreamResponse:
    """Megabytes of zeros without a Content-Length."""
    stream = web.StreamResponse(headers={**MARKER, **headers})
    try:
        await stream.prepare(request)
        for _ in range(mb):
            await stream.write(bytes(MEGABYTE))
        await stream.write_eof()
    except ConnectionError:
        return RawResponse()
    return stream


def _span(request: web.Request, size: int, etag: str) -> tuple[int, int] | None:
    """Start and stop of the requested bytes. None: all of them; start >= stop: none of them."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if not found or found[0] == "bytes=-" or request.headers.get("If-Range", etag) != etag:
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    start = int(found[1])
    stop = min(size, int(found[2]) + 1) if found[2] else size
    return start, stop
