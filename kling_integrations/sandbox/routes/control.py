"""The sandbox's own calls: its records and faults over HTTP, for tests and for users."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from ..faults import Fault
from ..jobs import shorten
from ..payloads import parse_object
from ..responses import response
from ..state import SandboxState


class Control:
    def __init__(self, state: SandboxState) -> None:
        self.state = state

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
        records = self.state.records
        lines = [
            "SANDBOX: this is not the AI/ML API gateway. No key, no money, made-up videos.",
            f"base URL  {self.state.base_url}",
            f"speed     {self.state.clock.speed:g} gateway seconds per second",
            f"jobs      {len(records.jobs)} accepted, {len(records.posts)} submits",
            "records   GET _jobs; faults: GET, POST, DELETE _faults",
        ]
        return response(200, "\n".join(lines) + "\n", content_type="text/plain; charset=utf-8")

    async def show_jobs(self, request: web.Request) -> web.Response:
        return response(200, snapshot(self.state))

    async def show_faults(self, request: web.Request) -> web.Response:
        return response(200, {"faults": [fault.to_json() for fault in self.state.faults.armed()]})

    async def arm_fault(self, request: web.Request) -> web.Response:
        """``{"fault": "poll:503:2"}`` or ``{"moment": …, "kind": …, "times": …, options}``."""
        body = parse_object(await request.read())
        if body is None:
            return response(400, {"message": "send a JSON object"})
        try:
            if "fault" in body:
                fault = Fault.parse(str(body["fault"]))
            else:
                fault = Fault(
                    str(body.pop("moment", "")),
                    str(body.pop("kind", "")),
                    body.pop("times", 1),
                    body,
                )
        except (ValueError, TypeError) as problem:
            return response(400, {"message": str(problem)})
        return response(200, shorten(self.state.faults.arm(fault).to_json()))

    async def clear_faults(self, request: web.Request) -> web.Response:
        self.state.faults.clear()
        return response(200, {"faults": []})


def snapshot(state: SandboxState) -> dict[str, Any]:
    """All records as JSON."""
    records = state.records
    with records.changed:
        return {
            "sandbox": True,
            "base_url": state.base_url,
            "speed": state.clock.speed,
            "now": time.time(),
            "paid": len(records.jobs),
            "leaked_keys": records.leaked_keys,
            "connections": records.connections,
            "requests": dict(records.requests),
            "jobs": [job.to_json() for job in records.jobs.values()],
            "posts": [post.to_json() for post in records.posts],
        }
