"""The files of finished generations: what they show, their signed addresses, the rendering.

A video is rendered when somebody downloads it, in a thread of its own, once per scene; the
finished ones stay in a cache of bounded size.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

from kling_integrations.sandbox import prices
from kling_integrations.sandbox.jobs import Job
from kling_integrations.sandbox.validation import find_model
from kling_integrations.sandbox.video import encode as render
from kling_integrations.sandbox.video.scene import Scene

CDN_PATH = "/sandbox-cdn"
DAYS = 30  # signed addresses of native Kling videos live that long
CACHE_BYTES = 96 * 2**20


class Videos:
    """Used by one event loop only; `close()` ends a rendering that is under way."""

    def __init__(self, size: tuple[int, int], fps: int) -> None:
        self.size, self.fps = size, fps
        self._secret = secrets.token_bytes(16)
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._under_way: dict[str, asyncio.Future[bytes]] = {}
        self._closing = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kling-sandbox-render")

    def close(self) -> None:
        self._closing = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def size_of(self, job: Job) -> int:
        """Bytes, known before the rendering."""
        return render.file_size(scene_of(job), self.size, self.fps)

    async def bytes_of(self, job: Job) -> bytes:
        scene = scene_of(job)
        key = scene.key()
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        if key not in self._under_way:
            self._under_way[key] = asyncio.get_running_loop().run_in_executor(
                self._pool,
                lambda: render.render(scene, self.size, self.fps, lambda: self._closing),
            )
        try:
            # Shielded: a client that leaves must not end the rendering for the others.
            data = await asyncio.shield(self._under_way[key])
        finally:
            if key in self._under_way and self._under_way[key].done():
                del self._under_way[key]
        self._cache[key] = data
        while sum(map(len, self._cache.values())) > CACHE_BYTES and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return data

    def url(self, job: Job, origin: str) -> str:
        """A signed address that says when it ends, as the gateway's own do: ksTime, hex."""
        name = f"{job.slug}.mp4"
        finished = job.finished_at or time.time()
        expiry = format(int(finished) + DAYS * 86_400, "x")
        query = urlencode({"ksTime": expiry, "signature": self._sign(name, expiry)})
        return f"{origin}{CDN_PATH}/{name}?{query}"

    def allows(self, name: str, query: Mapping[str, str]) -> bool:
        """Whether the signature is ours and has not run out."""
        expiry = query.get("ksTime", "")
        try:
            alive = int(expiry, 16) > time.time()
        except ValueError:
            return False
        return alive and hmac.compare_digest(
            self._sign(name, expiry).encode(), query.get("signature", "").encode()
        )

    def _sign(self, name: str, expiry: str) -> str:
        return hmac.new(self._secret, f"{name}?{expiry}".encode(), hashlib.sha256).hexdigest()[:32]


def scene_of(job: Job) -> Scene:
    payload = job.payload
    return Scene(
        model=job.model,
        shots=_shots(payload),
        seconds=prices.seconds_of(payload),
        ratio=_ratio(payload.get("aspect_ratio")),
        image=_image(payload),
        audio=prices.has_audio(find_model(job.model), payload),
    )


def _shots(payload: Mapping[str, Any]) -> tuple[str, ...]:
    shots = payload.get("multi_prompt")
    if isinstance(shots, list) and shots:
        texts = [shot.get("prompt") if isinstance(shot, Mapping) else shot for shot in shots]
        return tuple(str(text) for text in texts)
    return (str(payload.get("prompt") or payload.get("effect_scene") or ""),)


def _ratio(text: Any) -> float | None:
    try:
        width, height = str(text).split(":")
        return float(width) / float(height)
    except (ValueError, ZeroDivisionError):
        return None


def _image(payload: Mapping[str, Any]) -> str | None:
    for name in ("image_url", "image_list", "image_urls"):
        value = payload.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str) and value:
            return value
    return None
