"""A saved video as HTTP: from any object storage, a part at a time, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from airflow.providers.common.compat.sdk import ObjectStoragePath
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from ..object_storage import local_path

CHUNK = 256 * 1024
_BLOCK = 2**20  # what a store's driver reads ahead
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


class NotAVideo(Exception):  # noqa: N818
    """What is at the path is no regular file, or no MP4."""


@dataclass(slots=True)
class OpenFile:
    """An open file of ``size`` bytes; ``etag`` is another one after each change."""

    file: BinaryIO
    size: int
    etag: str

    @classmethod
    def video(cls, path: str) -> OpenFile:
        """An MP4. Raises NotAVideo, and what the store's driver raises."""
        opened = cls.at(path)
        try:
            if opened.file.read(12)[4:8] != b"ftyp":
                raise NotAVideo
        except BaseException:
            opened.close()
            raise
        return opened

    @classmethod
    def at(cls, path: str) -> OpenFile:
        """Raises NotAVideo for what is no regular file, and what the store's driver raises."""
        target: Any = ObjectStoragePath(path)
        local = local_path(target)
        file: Any
        if local is not None:
            # Not blocking: a pipe would hold a thread for ever.
            file = os.fdopen(os.open(local, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
            info = os.fstat(file.fileno())
            is_file, size, version = stat.S_ISREG(info.st_mode), info.st_size, str(info.st_mtime_ns)
        else:
            about = target.fs.info(target.path)
            is_file, size = about.get("type") == "file", int(about["size"])
            version = str([about.get(name) for name in ("ETag", "LastModified", "mtime")])
            file = target.fs.open(target.path, "rb", block_size=_BLOCK)
        if not is_file:
            file.close()
            raise NotAVideo
        # The same in every process of the API server.
        digest = hashlib.sha256(f"{path}\0{size}\0{version}".encode()).hexdigest()[:32]
        return cls(file, size, f'"{digest}"')

    def close(self) -> None:
        self.file.close()

    async def part(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to and without ``end``; closes the file, come what may."""
        try:
            await run_in_threadpool(self.file.seek, start)
            while start < end:
                chunk = await run_in_threadpool(self.file.read, min(CHUNK, end - start))
                if not chunk:
                    return
                start += len(chunk)
                yield chunk
        finally:
            self.close()


def response(video: OpenFile, headers: Any, name: str) -> Response:
    """The whole video, the part that ``headers`` ask for (206), 304 or 416."""
    sent = {
        "Accept-Ranges": "bytes",
        "ETag": video.etag,
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'inline; filename="{re.sub(r"[^A-Za-z0-9._-]", "_", name)}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if headers.get("if-none-match") == video.etag:
        video.close()
        return Response(status_code=304, headers=sent)
    asked = headers.get("range")
    if asked and headers.get("if-range", video.etag) == video.etag:
        found = byte_range(asked, video.size)
        if found is None:
            video.close()
            return Response(status_code=416, headers={"Content-Range": f"bytes */{video.size}"})
        start, end = found
        if (start, end) != (0, video.size) or asked.startswith("bytes="):
            sent["Content-Range"] = f"bytes {start}-{end - 1}/{video.size}"
            return _stream(video, start, end, 206, sent)
    return _stream(video, 0, video.size, 200, sent)


def _stream(
    video: OpenFile, start: int, end: int, status: int, headers: dict[str, str]
) -> StreamingResponse:
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(video.part(start, end), status, headers, media_type="video/mp4")


def byte_range(asked: str, size: int) -> tuple[int, int] | None:
    """From where up to where (without it); None for what cannot be satisfied (416).

    A list of ranges, and what is none at all, is answered with the whole (RFC 9110 allows it).
    """
    match = _RANGE.match(asked.strip())
    if not match or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if not last else min(int(last) + 1, size)
    return (start, end) if start < end else None
