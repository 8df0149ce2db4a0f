"""Where the videos lie: another path (and, when asked, another host name) than the gateway's.

It answers Range requests and refuses, and counts, every API key that is sent to it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from aiohttp import web

from kling_integrations.sandbox.faults import Fault
from kling_integrations.sandbox.faulty_responses import (
    ELSEWHERE,
    MARK,
    Raw,
    anywhere,
    cut,
    error,
    reply,
)
from kling_integrations.sandbox.state import World
from kling_integrations.sandbox.video.cache import CDN_PATH
from kling_integrations.sandbox.video.encode import RenderStoppedError


class Cdn:
    def __init__(self, world: World) -> None:
        self.world = world

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{CDN_PATH}/{{name}}", self.download),
            web.route("*", ELSEWHERE, self.elsewhere),
            web.route("*", f"{ELSEWHERE}/{{rest:.*}}", self.elsewhere),
        ]

    def _leak(self, request: web.Request) -> bool:
        """Whether the request carries a key; it has no business here."""
        if "Authorization" not in request.headers:
            return False
        with self.world.records.changed:
            self.world.records.leaked_keys += 1
            self.world.records.changed.notify_all()
        self.world.log(f"an API key was sent to {request.path}: refused")
        return True

    async def elsewhere(self, request: web.Request) -> web.Response:
        """Where redirects lead: nobody may bring a key along."""
        self._leak(request)
        self.world.records.count("elsewhere")
        return reply(404, "SANDBOX: nothing is here", content_type="text/plain")

    async def download(self, request: web.Request) -> web.StreamResponse:
        self.world.records.count("download")
        if self._leak(request):
            return error(request, 400, "Only one way of authorization is allowed.", style="html")
        name = request.match_info["name"]
        job = self.world.slugs.get(name.removesuffix(".mp4"))
        if job is None:
            return error(request, 404, style="html")
        fault = self.world.faults.take("download", job.prompt)
        if fault is not None:
            self.world.log(f"fault at download: {fault.kind}")
            if fault.kind == "expired":
                return error(request, 403, style="html")
            if (spoilt := await anywhere(request, fault, {})) is not None:
                return spoilt
        if not self.world.videos.allows(name, request.query):
            return error(request, 403, style="html")
        try:
            data = await self.world.videos.bytes_of(job)
        except RenderStoppedError:
            return Raw()
        except ImportError as missing:
            hint = f"{missing}: pip install 'kling-integrations[sandbox]'"
            self.world.log(f"no video can be rendered: {hint}")
            return error(request, 500, hint)
        return await self._send(request, data, fault)

    async def _send(
        self, request: web.Request, data: bytes, fault: Fault | None
    ) -> web.StreamResponse:
        kind = fault.kind if fault else ""
        if fault and kind == "short":
            data = data[: -(fault["by"] or len(data) // 2)]
        # The encoder's output for equal pictures is not quite always equal: only the content tells
        # whether a file that the cache forgot and that was rendered anew can be resumed.
        etag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"Content-Type": "video/mp4", "ETag": etag}
        if fault and kind == "wrong-type":
            headers["Content-Type"] = fault["type"] or "application/json"
        if fault and kind == "oversized":
            return await self._endless(request, headers, int(fault["mb"]))
        if kind == "no-range":
            span = None
        else:
            headers["Accept-Ranges"] = "bytes"
            span = _span(request, len(data), etag)
        code = 200
        if span is not None:
            start, stop = span
            if start >= stop:
                headers["Content-Range"] = f"bytes */{len(data)}"
                return web.Response(status=416, headers={**MARK, **headers})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            code, data = 206, data[start:stop]
        if fault and kind == "cut":
            return cut(code, data, headers, fault["at"])
        return web.Response(status=code, body=data, headers={**MARK, **headers})

    async def _endless(
        self, request: web.Request, headers: Mapping[str, str], mb: int
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**MARK, **headers})
        try:
            await response.prepare(request)
            for _ in range(mb):
                await response.write(bytes(2**20))
            await response.write_eof()
        except ConnectionError:
            return Raw()
        return response


def _span(request: web.Request, size: int, etag: str) -> tuple[int, int] | None:
    """Start and stop of the bytes that are asked for; None: all of them. Empty: not possible."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if not found or found[0] == "bytes=-" or request.headers.get("If-Range", etag) != etag:
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    start = int(found[1])
    stop = min(size, int(found[2]) + 1) if found[2] else size
    return start, stop
