"""Imitates the wire formats of six video services, as far as their clients need it to wait.

Run by waiting.py. Every POST makes a job that ends after a while; what the polls tell is shaped
as the path asks for. ``GET /stats`` counts requests and connections and tells how late the end of
each job was noticed, in seconds on its clock, which runs as many times as fast as the argument
says.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from math import log
from typing import Any

from aiohttp import web

MOMENT = "2026-01-01T00:00:00Z"
VIDEO = "https://cdn.invalid/video.mp4"


def seconds_of(model: str, rng: random.Random) -> float:
    """Of one generation: 170 s with a spread of 20 %, v2-master 330 s with one of 7 %."""
    median, spread = (330.0, 0.07) if "master" in model else (170.0, 0.20)
    return rng.lognormvariate(log(median), spread)


class Services:
    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.rng = random.Random(5)
        self.ends: list[float] = []
        self.late: dict[int, float] = {}
        self.requests = 0

    async def submit(self, request: web.Request) -> web.Response:
        self.requests += 1
        await request.read()
        self.ends.append(time.monotonic() + seconds_of("", self.rng) / self.speed)
        number = len(self.ends) - 1
        return web.json_response(self.shape(request, number, done=False))

    async def poll(self, request: web.Request) -> web.Response:
        self.requests += 1
        number = next(int(part) for part in request.path.split("/") if part.isdigit())
        now = time.monotonic()
        done = now >= self.ends[number]
        if done:
            self.late.setdefault(number, now - self.ends[number])
        return web.json_response(self.shape(request, number, done))

    def shape(self, request: web.Request, number: int, done: bool) -> dict[str, Any]:
        service = request.path.split("/")[1]
        return getattr(self, service)(request, number, done)

    def fal(self, request: web.Request, number: int, done: bool) -> dict[str, Any]:
        if request.method == "POST":
            here = f"{request.scheme}://{request.host}/fal/requests/{number}"
            return {
                "request_id": str(number),
                "response_url": here,
                "status_url": f"{here}/status",
                "cancel_url": f"{here}/cancel",
            }
        if request.path.endswith("/status"):
            return {"status": "COMPLETED" if done else "IN_PROGRESS", "logs": None, "metrics": {}}
        return {"video": {"url": VIDEO}}

    def replicate(self, request: web.Request, number: int, done: bool) -> dict[str, Any]:
        return {
            "id": str(number), "model": "kwaivgi/kling", "version": "hidden", "input": {},
            "status": "succeeded" if done else "processing", "output": VIDEO if done else None,
            "logs": "", "error": None, "metrics": {}, "created_at": MOMENT, "started_at": MOMENT,
            "completed_at": MOMENT if done else None, "urls": {},
        }  # fmt: skip

    def runwayml(self, request: web.Request, number: int, done: bool) -> dict[str, Any]:
        task = {"id": str(number), "createdAt": MOMENT}
        if done:
            return {**task, "status": "SUCCEEDED", "output": [VIDEO], "cost": {"credits": 25}}
        estimate = {"credits": 25}
        return {**task, "status": "RUNNING", "progress": 0.5, "estimatedCost": estimate}

    def lumaai(self, request: web.Request, number: int, done: bool) -> dict[str, Any]:
        return {
            "id": str(number), "state": "completed" if done else "dreaming", "model": "ray-2",
            "created_at": MOMENT, "assets": {"video": VIDEO} if done else None,
        }  # fmt: skip

    def google(self, request: web.Request, number: int, done: bool) -> dict[str, Any]:
        # Polls go to what stands before "/operations/" in the name.
        found: dict[str, Any] = {"name": f"publishers/google/models/{number}/veo/operations/made"}
        if done:
            found |= {"done": True, "response": {"videos": [{"gcsUri": VIDEO}]}}
        return found

    def openai(self, request: web.Request, number: int, done: bool) -> dict[str, Any]:
        return {
            "id": str(number), "object": "video", "model": "sora-2", "seconds": "8",
            "size": "1280x720", "status": "completed" if done else "in_progress",
            "progress": 100 if done else 50, "created_at": 1,
        }  # fmt: skip


async def run(speed: float) -> None:
    services, connections = Services(speed), 0

    async def stats(_: web.Request) -> web.Response:
        late = [speed * each for each in services.late.values()]
        return web.json_response(
            {
                "requests": services.requests,
                "connections": connections,
                "jobs": len(services.ends),
                "late": late,
            }
        )

    app = web.Application()
    app.router.add_get("/stats", stats)
    app.router.add_post("/{path:.*}:fetchPredictOperation", services.poll)
    app.router.add_post("/{path:.*}", services.submit)
    app.router.add_get("/{path:.*}", services.poll)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75)
    await runner.setup()
    assert runner.server is not None
    make = runner.server

    def connection() -> asyncio.Protocol:
        nonlocal connections
        connections += 1
        return make()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(float(sys.argv[1])))
