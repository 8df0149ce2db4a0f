"""The list of models with its prices, and how long their generations take."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from aiohttp import web

from ...core import catalog
from ...core.catalog import Model
from ..jobs import documented_seconds
from ..payloads import iso
from ..prices import NOTE, pricing
from ..state import SandboxState
from ._shared import VIDEO_PATHS, serve_free_call

RANKS = {"p50": 0.50, "p75": 0.75, "p90": 0.90, "p99": 0.99}


class Models:
    def __init__(self, state: SandboxState) -> None:
        self.state = state

    def routes(self, prefix: str) -> list[web.RouteDef]:
        return [
            web.get(f"{prefix}/v1/models", self.models),
            web.get(f"{prefix}/models/metrics", self.metrics),
        ]

    async def models(self, request: web.Request) -> web.StreamResponse:
        include = _words(request.query.getall("include", []))
        wanted = _words(request.query.getall("id", []))
        data = [
            _entry(model, include)
            for model in catalog.models()
            if not wanted or wanted & {name.lower() for name in (model.id, *model.spellings)}
        ]
        body = {"object": "list", "data": data, "note": NOTE}
        etag = f'W/"{hashlib.sha256(json.dumps(body).encode()).hexdigest()[:24]}"'
        if request.headers.get("If-None-Match") == etag:
            self.state.records.count("models")
            return web.Response(status=304, headers={"ETag": etag})
        return await serve_free_call(
            self.state, request, "models", body, {"ETag": etag}, needs_key=False
        )

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Percentiles in gateway time: of the jobs that ended here, else of what one would take."""
        wanted = set(request.query.getall("aliases", []))
        models = []
        for model in catalog.models():
            if model.output != "video" or (wanted and not wanted & {model.id, *model.spellings}):
                continue
            if seconds := self._finished(model) or self._expected(model):
                figures = {
                    name: round(seconds[min(int(rank * len(seconds)), len(seconds) - 1)] * 1000)
                    for name, rank in RANKS.items()
                }
                metrics = {"duration_ms": figures}
                models.append({"alias": model.id, "endpoint": VIDEO_PATHS[0], "metrics": metrics})
        body = {"window_seconds": 300, "generated_at": iso(), "models": models}
        return await serve_free_call(self.state, request, "models", body, needs_key=False)

    def _finished(self, model: Model) -> list[float]:
        """The gateway seconds of the jobs that have succeeded here, sorted."""
        now = self.state.clock.now()
        return sorted(
            job.seconds
            for job in self.state.records.jobs.values()
            if job.model == model.id and job.end <= now and not job.fail
        )

    def _expected(self, model: Model) -> list[float]:
        """Gateway seconds that jobs would take, sorted; empty when that cannot be known."""
        chosen = self.state.options.seconds
        if callable(chosen):
            return []
        usual = chosen or documented_seconds(model, None)
        factors = (0.95, 1.0, 1.04, 1.08, 1.15)
        return [] if math.isinf(usual) else [usual * factor for factor in factors]


def _entry(model: Model, include: set[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": model.id,
        "aliases": list(model.spellings),
        "type": model.output,
        "info": {"name": f"{model.alias} {model.task} (sandbox)", "developer": "Kling AI"},
        "tags": [f"playground:{model.output}", "sandbox"],
    }
    if include & {"pricing", "all"}:
        entry["pricing"] = pricing(model)
    if include & {"capabilities", "all"}:
        entry["capabilities"] = [model.task.replace("-", "_")]
    if include & {"modalities", "all"}:
        given = model.task.partition("-to-video")[0]
        takes = [word for word in ("image", "video", "audio") if word in given]
        entry["modalities"] = {"input": ["text", *takes], "output": [model.output]}
    return entry


def _words(values: list[str]) -> set[str]:
    return {word.strip().lower() for value in values for word in value.split(",") if word.strip()}
