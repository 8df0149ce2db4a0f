"""Faulty responses, written byte by byte where the server library would send correct ones."""

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

from .faults import Fault
from .payloads import new_id, page
from .responses import MARKER, encoded, error_response, response

MEGABYTE = 2**20
REDIRECT_PATH = "/sandbox-elsewhere"
GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # deflate, no flags, no time, any system


class RawResponse(web.StreamResponse):
    """The given bytes (or none), then the end of the connection."""

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
        raise ConnectionResetError("the fault ends the connection")


def cut_response(code: int, body: bytes, headers: Mapping[str, str], at: int | None) -> RawResponse:
    """Headers that promise the whole body, `at` bytes of it (default: half), the end."""
    sent = len(body) // 2 if at is None else min(at, len(body) - 1)
    lines = [f"HTTP/1.1 {code} Cut", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in {**MARKER, **headers}.items()]
    return RawResponse("\r\n".join(lines).encode() + b"\r\n\r\n" + body[: max(0, sent)])


async def faulty_response(
    request: web.Request, fault: Fault, headers: Mapping[str, str]
) -> web.StreamResponse | None:
    """The response of a fault that ignores what was requested.

    None: the fault changes the right response, or has only delayed it.
    """
    match fault.kind:
        case "status" | "status-after":
            return _status_response(request, fault, headers)
        case "drop-before" | "drop-after":
            return RawResponse(reset=bool(fault["reset"]))
        case "slow":
            await asyncio.sleep(float(fault["seconds"]))
        case "hang" | "hang-after":
            await asyncio.Event().wait()  # cancelled when the client disconnects
        case "garbage":
            return response(200, os.urandom(int(fault["bytes"])), headers)
        case "not-http":
            return RawResponse(b"\x15\x03" + os.urandom(200))
        case "html":
            return response(200, page("Just a moment..."), headers, "text/html")
        case "empty":
            return response(200, b"", headers)
        case "redirect":
            port = request.url.port
            target = fault["to"] or f"http://localhost:{port}{REDIRECT_PATH}{request.path}"
            return response(int(fault["code"]), b"", {**headers, "Location": str(target)})
        case "reply":
            return response(int(fault["code"]), fault["body"], headers, str(fault["type"]))
    return None


def _status_response(
    request: web.Request, fault: Fault, headers: Mapping[str, str]
) -> web.Response:
    known = dict(headers) if fault["header"] else {}
    if fault["retry_after"] is not None:
        known["Retry-After"] = str(fault["retry_after"])
    return error_response(
        request, int(fault["code"]), fault["message"], envelope=fault["envelope"], headers=known
    )


async def json_response(
    request: web.Request,
    fault: Fault | None,
    code: int,
    body: dict[str, Any],
    headers: Mapping[str, str],
) -> web.StreamResponse:
    """A JSON response, changed or replaced by the fault if there is one."""
    if fault is None:
        return response(code, body, headers)
    if (replacement := await faulty_response(request, fault, headers)) is not None:
        return replacement
    match fault.kind:
        case "cut":
            return cut_response(code, encoded(body), headers, fault["at"])
        case "cut-json":
            data = encoded(body)
            return response(code, data[: len(data) // 2], headers)
        case "wrong-type":
            return response(code, body, headers, fault["type"] or "text/plain")
        case "oversized":
            return await _oversized(request, code, body, headers, int(fault["mb"]))
        case "bomb":
            loop = asyncio.get_running_loop()
            text = json.dumps(body)
            data = await loop.run_in_executor(None, gzip_bomb, text, int(fault["mb"]))
            return response(code, data, {**headers, "Content-Encoding": "gzip"})
        case "no-id":
            headers = {k: v for k, v in headers.items() if k != "x-inference-id"}
    return response(code, _changed(body, fault), headers)


def _changed(body: dict[str, Any], fault: Fault) -> dict[str, Any]:
    """The body with what the fault alters in it."""
    match fault.kind:
        case "no-id":
            return {k: v for k, v in body.items() if k not in ("id", "generation_id")}
        case "odd-status":
            return {**body, "status": fault["word"]}
        case "id-changes":
            other = "decimal" if not str(body.get("id", "")).isdigit() else "nanoid"
            return {**body, "id": new_id(other, "", random.Random())}
        case "no-video":
            return {**body, "video": fault["video"]}
    return body


async def _oversized(
    request: web.Request, code: int, body: dict[str, Any], headers: Mapping[str, str], mb: int
) -> web.StreamResponse:
    """The response with megabytes of padding, streamed so that only the client has to hold it."""
    head = encoded({**body, "padding": ""})[:-2]
    stream = web.StreamResponse(
        status=code, headers={**MARKER, **headers, "Content-Type": "application/json"}
    )
    stream.content_length = len(head) + mb * MEGABYTE + 2
    try:
        await stream.prepare(request)
        await stream.write(head)
        for _ in range(mb):
            await stream.write(b"a" * MEGABYTE)
        await stream.write(b'"}')
        await stream.write_eof()
    except ConnectionError:
        return RawResponse()
    return stream


@functools.lru_cache(maxsize=4)
def gzip_bomb(text: str, mb: int) -> bytes:
    """A gzip stream of that JSON object and of so many megabytes of spaces inside it."""
    head, padding, tail = text[:-1].encode(), b" " * MEGABYTE, b"}"
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush equal input gives equal output: one megabyte is packed for all of them.
    middle = packer.compress(padding) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(tail) + packer.flush()
    checksum = 0
    for part in (head, *[padding] * mb, tail):
        checksum = zlib.crc32(part, checksum)
    size = (len(head) + mb * MEGABYTE + len(tail)) % 2**32
    trailer = struct.pack("<II", checksum, size)
    return GZIP_HEADER + start + middle * mb + end + trailer
