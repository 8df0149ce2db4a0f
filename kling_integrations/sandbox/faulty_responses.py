"""Faulty replies, made by hand where the server library would rather make good ones."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import socket
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from kling_integrations.sandbox import payloads
from kling_integrations.sandbox.faults import Fault

MARK = {"x-kling-sandbox": "1"}
MEGABYTE = 2**20
ELSEWHERE = "/sandbox-elsewhere"


class Raw(web.StreamResponse):
    """Bytes of our own (or none), then the end of the connection."""

    def __init__(self, data: bytes = b"", *, reset: bool = False) -> None:
        super().__init__()
        self._data = data
        self._reset = reset

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        transport = request.transport
        if transport is not None:
            if self._data:
                transport.write(self._data)
            if self._reset:
                # Zero linger: closing sends RST instead of FIN.
                connection = transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
            else:
                transport.close()
        raise ConnectionResetError("as asked")


def reply(
    code: int,
    body: Any,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> web.Response:
    """JSON (or text, or bytes) with the sandbox's mark."""
    return web.Response(
        status=code,
        body=encode(body),
        headers={**MARK, **(headers or {}), "Content-Type": content_type},
    )


def encode(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    return json.dumps(body, ensure_ascii=False).encode()


def error(
    request: web.Request,
    code: int,
    message: str | list[str] | None = None,
    *,
    style: str = "problem",
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An HTTP error in the envelope of choice."""
    request_id = os.urandom(8).hex()
    body, content_type = payloads.error_body(style, code, request.path, request_id, message, kind)
    return reply(
        code,
        body,
        {"x-request-id": request_id, **(headers or {})},
        f"{content_type}; charset=utf-8",
    )


def cut(code: int, body: bytes, headers: Mapping[str, str], at: int | None) -> Raw:
    """A head that promises the whole body, `at` bytes of it (default: half), the end."""
    sent = len(body) // 2 if at is None else min(at, len(body) - 1)
    lines = [f"HTTP/1.1 {code} Cut", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in {**MARK, **headers}.items()]
    return Raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body[: max(0, sent)])


async def anywhere(
    request: web.Request, fault: Fault, headers: Mapping[str, str]
) -> web.StreamResponse | None:
    """The faulty reply where it does not matter what was asked; None: go on with the answer."""
    match fault.kind:
        case "status" | "status-after":
            extra = {} if fault["retry_after"] is None else {"Retry-After": fault["retry_after"]}
            known = headers if fault["header"] else {}
            return error(
                request,
                int(fault["code"]),
                fault["message"],
                style=fault["envelope"],
                headers={**known, **{name: str(value) for name, value in extra.items()}},
            )
        case "drop-before" | "drop-after":
            return Raw(reset=bool(fault["reset"]))
        case "slow":
            await asyncio.sleep(float(fault["seconds"]))
            return None
        case "hang" | "hang-after":
            await asyncio.Event().wait()  # cancelled when the client leaves
        case "garbage":
            return reply(200, os.urandom(int(fault["bytes"])), headers)
        case "not-http":
            return Raw(b"\x15\x03" + os.urandom(200))
        case "html":
            return reply(200, payloads.page("Just a moment..."), headers, "text/html")
        case "empty":
            return reply(200, b"", headers)
        case "redirect":
            port = request.url.port
            target = fault["to"] or f"http://localhost:{port}{ELSEWHERE}{request.path}"
            return reply(int(fault["code"]), b"", {**headers, "Location": str(target)})
        case "reply":
            return reply(int(fault["code"]), fault["body"], headers, str(fault["type"]))
    return None


async def answer(
    request: web.Request,
    fault: Fault | None,
    code: int,
    body: dict[str, Any],
    headers: Mapping[str, str],
) -> web.StreamResponse:
    """A JSON answer, spoilt by the fault if there is one."""
    if fault is None:
        return reply(code, body, headers)
    if (spoilt := await anywhere(request, fault, headers)) is not None:
        return spoilt
    match fault.kind:
        case "cut":
            return cut(code, encode(body), headers, fault["at"])
        case "cut-json":
            data = encode(body)
            return reply(code, data[: len(data) // 2], headers)
        case "no-id":
            body = {k: v for k, v in body.items() if k not in ("id", "generation_id")}
            headers = {k: v for k, v in headers.items() if k != "x-inference-id"}
        case "odd-status":
            body = {**body, "status": fault["word"]}
        case "id-changes":
            other = "decimal" if not str(body.get("id", "")).isdigit() else "nanoid"
            body = {**body, "id": payloads.new_id(other, "", random.Random())}
        case "no-video":
            body = {**body, "video": fault["video"]}
        case "wrong-type":
            return reply(code, body, headers, fault["type"] or "text/plain")
        case "oversized":
            return await _oversized(request, code, body, headers, int(fault["mb"]))
        case "bomb":
            loop = asyncio.get_running_loop()
            text = json.dumps(body)
            data = await loop.run_in_executor(None, bomb, text, int(fault["mb"]))
            return reply(code, data, {**headers, "Content-Encoding": "gzip"})
    return reply(code, body, headers)


async def _oversized(
    request: web.Request, code: int, body: dict[str, Any], headers: Mapping[str, str], mb: int
) -> web.StreamResponse:
    """The answer with megabytes of padding, streamed so that only the client has to hold it."""
    head = encode({**body, "padding": ""})[:-2]
    response = web.StreamResponse(
        status=code, headers={**MARK, **headers, "Content-Type": "application/json"}
    )
    response.content_length = len(head) + mb * MEGABYTE + 2
    try:
        await response.prepare(request)
        await response.write(head)
        for _ in range(mb):
            await response.write(b"a" * MEGABYTE)
        await response.write(b'"}')
        await response.write_eof()
    except ConnectionError:
        return Raw()
    return response


@functools.lru_cache(maxsize=4)
def bomb(text: str, mb: int) -> bytes:
    """A gzip stream of that JSON object and of so many megabytes of spaces inside it."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(text[:-1].encode())]
    parts += [packer.compress(b" " * MEGABYTE) for _ in range(mb)]
    return b"".join([*parts, packer.compress(b"}"), packer.flush()])
