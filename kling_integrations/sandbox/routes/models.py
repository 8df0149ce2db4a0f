"""The list of models with its prices, and how long they take."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from aiohttp import web

from kling_integrations.core import catalog
from kling_integrations.sandbox import payloads, prices
from kling_integrations.sandbox.state import VIDEO_PATHS, World, usual_seconds


class Listing:
    def __init__(self, world: World) -> None:
        self.world = world

    def routes(self, prefix: str) -> list[web.RouteDef]:
        return [
            web.get(f"{prefix}/v1/models", self.models),
            web.get(f"{prefix}/models/metrics", self.metrics),
        ]

    async def models(self, request: web.Request) -> web.StreamResponse:
        include = _words(request.query.getall("include", []))
        wanted = _words(request.query.getall("id", []))
        data = []
        for model in catalog.models():
            if wanted and not wanted & {name.lower() for name in (model.id, *model.spellings)}:
                continue
            entry: dict[str, Any] = {
                "id": model.id,
                "aliases": list(model.spellings),
                "type": model.output,
                "info": {"name": f"{model.alias} {model.task} (sandbox)", "developer": "Kling AI"},
                "tags": [f"playground:{model.output}", "sandbox"],
            }
            if include & {"pricing", "all"}:
                entry["pricing"] = prices.pricing(model)
            if include & {"capabilities", "all"}:
                entry["capabilities"] = [model.task.replace("-", "_")]
            if include & {"modalities", "all"}:
                given = model.task.partition("-to-video")[0]
                takes = [word for word in ("image", "video", "audio") if word in given]
                entry["modalities"] = {"input": ["text", *takes], "output": [model.output]}
            data.append(entry)
        body = {"object": "list", "data": data, "note": prices.NOTE}
        etag = f'W/"{hashlib.sha256(json.dumps(body).encode()).hexdigest()[:24]}"'
        if request.headers.get("If-None-Match") == etag:
            self.world.records.count("models")
            return web.Response(status=304, headers={"ETag": etag})
        return await self.world.serve(request, "models", lambda: body, {"ETag": etag}, key=False)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Percentiles in gateway time: of the jobs that ended here, else of what one would take."""
        wanted = set(request.query.getall("aliases", []))
        models = []
        for model in catalog.models():
            if model.output != "video" or (wanted and not wanted & {model.id, *model.spellings}):
                continue
            now = self.world.clock.now()
            done = sorted(
                job.seconds
                for job in self.world.records.jobs.values()
                if job.model == model.id and job.end <= now and not job.fail
            )
            if not done:
                if callable(self.world.habits.seconds):
                    continue
                usual = self.world.habits.seconds or usual_seconds(model, None)
                if math.isinf(usual):
                    continue
                done = [usual * factor for factor in (0.95, 1.0, 1.04, 1.08, 1.15)]
            ranks = {"p50": 0.50, "p75": 0.75, "p90": 0.90, "p99": 0.99}
            figures = {
                name: round(done[min(int(rank * len(done)), len(done) - 1)] * 1000)
                for name, rank in ranks.items()
            }
            models.append(
                {
                    "alias": model.id,
                    "endpoint": VIDEO_PATHS[0],
                    "metrics": {"duration_ms": figures},
                }
            )
        body = {"window_seconds": 300, "generated_at": payloads.iso(), "models": models}
        return await self.world.serve(request, "models", lambda: body, key=False)


def _words(values: list[str]) -> set[str]:
    return {word.strip().lower() for value in values for word in value.split(",") if word.strip()}
