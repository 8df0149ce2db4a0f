"""What the gateway has not: records and faults over HTTP, for tests and for people."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from kling_integrations.sandbox.faults import Fault
from kling_integrations.sandbox.faulty_responses import reply
from kling_integrations.sandbox.jobs import shorten
from kling_integrations.sandbox.state import World, parse


class Control:
    def __init__(self, world: World) -> None:
        self.world = world

    def routes(self, prefix: str) -> list[web.RouteDef]:
        return [
            web.get(prefix, self.front),
            web.get(f"{prefix}/", self.front),
            web.get(f"{prefix}/_jobs", self.show_jobs),
            web.get(f"{prefix}/_faults", self.show_faults),
            web.post(f"{prefix}/_faults", self.arm_fault),
            web.delete(f"{prefix}/_faults", self.clear_faults),
        ]

    async def front(self, request: web.Request) -> web.Response:
        records = self.world.records
        lines = [
            "SANDBOX: this is not the AI/ML API gateway. No key, no money, made-up videos.",
            f"base URL  {self.world.base_url}",
            f"speed     {self.world.clock.speed:g} gateway seconds per second",
            f"jobs      {len(records.jobs)} accepted, {len(records.posts)} submits",
            "records   GET _jobs; faults: GET, POST, DELETE _faults",
        ]
        return reply(200, "\n".join(lines) + "\n", content_type="text/plain; charset=utf-8")

    async def show_jobs(self, request: web.Request) -> web.Response:
        return reply(200, self.snapshot())

    def snapshot(self) -> dict[str, Any]:
        """All records as JSON."""
        records = self.world.records
        with records.changed:
            return {
                "sandbox": True,
                "base_url": self.world.base_url,
                "speed": self.world.clock.speed,
                "now": time.time(),
                "paid": len(records.jobs),
                "leaked_keys": records.leaked_keys,
                "connections": records.connections,
                "requests": dict(records.requests),
                "jobs": [job.to_json() for job in records.jobs.values()],
                "posts": [post.to_json() for post in records.posts],
            }

    async def show_faults(self, request: web.Request) -> web.Response:
        return reply(200, {"faults": [fault.to_json() for fault in self.world.faults.armed()]})

    async def arm_fault(self, request: web.Request) -> web.Response:
        """``{"fault": "poll:503:2"}`` or ``{"moment": …, "kind": …, "times": …, options}``."""
        wish = parse(await request.read())
        if wish is None:
            return reply(400, {"message": "send a JSON object"})
        try:
            if "fault" in wish:
                fault = Fault.parse(str(wish["fault"]))
            else:
                fault = Fault(
                    str(wish.pop("moment", "")),
                    str(wish.pop("kind", "")),
                    wish.pop("times", 1),
                    wish,
                )
        except (ValueError, TypeError) as problem:
            return reply(400, {"message": str(problem)})
        return reply(200, shorten(self.world.faults.arm(fault).to_json()))

    async def clear_faults(self, request: web.Request) -> web.Response:
        self.world.faults.clear()
        return reply(200, {"faults": []})
