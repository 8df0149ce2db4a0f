"""Videos are encoded at the first download, in a thread of their own, and then kept in memory.

Equal scenes share one file, across all sandboxes of a process: encoding is by far the most
expensive thing that a sandbox does.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .encode import encode, file_size
from .ready_made import NOTE, ready_made
from .scene import Scene

MAX_BYTES = 32 * 2**20

Key = tuple[str, tuple[int, int], int]  # the scene's digest, frame size, frames per second


class VideoCache:
    """The videos that were asked for last, at most `max_bytes` of them (but always one).

    Safe to share between threads.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._videos: OrderedDict[Key, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> bytes | None:
        with self._lock:
            if key in self._videos:
                self._videos.move_to_end(key)
            return self._videos.get(key)

    def put(self, key: Key, data: bytes) -> None:
        with self._lock:
            self._size += len(data) - len(self._videos.pop(key, b""))
            self._videos[key] = data
            while self._size > self._max_bytes and len(self._videos) > 1:
                self._size -= len(self._videos.popitem(last=False)[1])


_process_cache = VideoCache()


class VideoFiles:
    """The videos of one sandbox, of one frame size and rate.

    Used by one event loop only; `close()` ends an encoding that is under way.
    """

    def __init__(
        self,
        size: tuple[int, int],
        fps: int,
        log: Callable[[str], None],
        cache: VideoCache = _process_cache,
    ) -> None:
        self._size, self._fps, self._log, self._cache = size, fps, log, cache
        self.note: str | None = None  # that videos are not what was asked for, and why
        self._under_way: dict[Key, asyncio.Future[bytes]] = {}
        self._closing = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kling-sandbox-video")

    def close(self) -> None:
        self._closing = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def file_size(self, scene: Scene) -> int:
        """Bytes, known before the encoding."""
        return file_size(scene, self._size, self._fps)

    async def data(self, scene: Scene) -> bytes:
        """The MP4; a ready-made one where none can be encoded, which `note` and the log say once.

        Raises EncodingStoppedError when the sandbox closes.
        """
        key = (scene.digest(), self._size, self._fps)
        if (cached := self._cache.get(key)) is not None:
            return cached
        if key not in self._under_way:
            self._under_way[key] = asyncio.get_running_loop().run_in_executor(
                self._pool,
                lambda: encode(scene, self._size, self._fps, lambda: self._closing),
            )
        try:
            # Shielded: a client that disconnects must not end the encoding for the others.
            data = await asyncio.shield(self._under_way[key])
        except ImportError:
            if self.note is None:
                self.note = NOTE
                self._log(NOTE)
            return ready_made(scene, self._size, self._fps)
        finally:
            if key in self._under_way and self._under_way[key].done():
                del self._under_way[key]
        self._cache.put(key, data)
        return data
