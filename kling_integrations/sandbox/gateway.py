"""The gateway's calls: submit and poll on both URL forms, billing, logs, models, metrics."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import random
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from kling_integrations.core import catalog
from kling_integrations.core.catalog import Model
from kling_integrations.sandbox import money, replies, validation
from kling_integrations.sandbox.faults import Fault, FaultBoard
from kling_integrations.sandbox.jobs import Clock, Job, Post, Records, shorten
from kling_integrations.sandbox.misbehave import answer, error, reply
from kling_integrations.sandbox.replies import Era
from kling_integrations.sandbox.videos import Videos

VIDEO_PATHS = ("/v2/video/generations", "/v2/generate/video/kling/generation")
UNKNOWN_SECONDS = 170.0  # where the documents state no time
LOG_CALLS, LOG_WINDOW = 200, 60.0
CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
FAIL_WORD = re.compile(r"\[fail:([a-z_]+)\]")
# Faults that leave the poll's news intact: with these the client could know of the end.
HONEST = ("slow", "wrong-type", "id-changes", "no-id")

Seconds = float | Callable[[str, dict[str, Any]], float] | None
Fail = str | Callable[[str, dict[str, Any]], str | None] | None


@dataclass
class Habits:
    """What the caller of the sandbox chose; see Sandbox."""

    seconds: Seconds = None
    fail: Fail = None
    era: Era | None = None
    logs_show_running: bool = False
    unknown_models: bool = False
    balance: float = 1_000_000.0


class Gateway:
    """The handlers; they run on the sandbox's own event loop."""

    def __init__(
        self,
        habits: Habits,
        clock: Clock,
        records: Records,
        faults: FaultBoard,
        videos: Videos,
        rng: random.Random,
        log: Callable[[str], None],
    ) -> None:
        self.habits, self.clock, self.records = habits, clock, records
        self.faults, self.videos, self.rng, self.log = faults, videos, rng, log
        self.base_url = ""  # known once the server listens
        self.cdn_origin = ""
        self.slugs: dict[str, Job] = {}
        self._held = 0.0  # of all jobs, refunds not counted
        self._log_calls: deque[float] = deque()

    def routes(self, prefix: str) -> list[web.RouteDef]:
        routes = [web.get(prefix, self.front), web.get(f"{prefix}/", self.front)]
        for path in VIDEO_PATHS:
            routes += [
                web.post(prefix + path, self.submit),
                web.get(prefix + path, self.poll, allow_head=False),
            ]
        return [
            *routes,
            web.get(f"{prefix}/v2/billing", self.billing),
            web.get(f"{prefix}/v1/billing/balance", self.balance),
            web.get(f"{prefix}/v2/logs", self.logs),
            web.get(f"{prefix}/v1/models", self.models),
            web.get(f"{prefix}/models/metrics", self.metrics),
            web.get(f"{prefix}/_jobs", self.show_jobs),
            web.get(f"{prefix}/_faults", self.show_faults),
            web.post(f"{prefix}/_faults", self.arm_fault),
            web.delete(f"{prefix}/_faults", self.clear_faults),
        ]

    # --- submit --------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.StreamResponse:
        post = Post(
            time=time.time(),
            path=request.path,
            headers={k: v for k, v in request.headers.items() if k.lower() != "authorization"},
            client_request_id=_client_request_id(request),
        )
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            self._record(post)
            return self._close(post, error(request, 413))
        payload = _parse(raw)
        post.body = raw.decode("utf-8", "replace") if payload is None else payload
        self._record(post)
        if (refusal := self._refuse_key(request)) is not None:
            return self._close(post, refusal)

        text = _prompt(payload)
        fault = self.faults.take("submit", text)
        if fault is not None:
            post.fault = fault.kind
            self.log(f"fault at submit: {fault.kind}")
            if fault.kind == "slow" and not fault.accepts:
                await answer(request, fault, 200, {}, {})
                fault = None
            elif not fault.accepts:
                return self._close(post, await answer(request, fault, 200, self._mock(), {}))
        if (refusal := self._refuse(request, payload)) is not None:
            return self._close(post, refusal)
        assert payload is not None
        job = self._accept(request, payload, post)
        body = replies.submitted(job.era, job.id, job.model)
        headers = self._headers(job)
        return self._close(post, await answer(request, fault, job.era.submit_code, body, headers))

    def _record(self, post: Post) -> None:
        with self.records.changed:
            self.records.posts.append(post)
            self.records.requests["submit"] += 1
            self.records.changed.notify_all()

    def _close(self, post: Post, response: web.StreamResponse) -> web.StreamResponse:
        # A dropped connection carries no status.
        post.status = response.status if isinstance(response, web.Response) else None
        self.records.touch()
        return response

    def _mock(self) -> dict[str, Any]:
        """The reply that an unaccepted submit would have had."""
        return {"id": replies.new_id("nanoid", "", self.rng), "status": "queued"}

    def _refuse(self, request: web.Request, payload: dict[str, Any] | None) -> web.Response | None:
        """The gateway's own objections to a submit, in its order: body, model, values, money."""
        if payload is None:
            return error(request, 400, ["Body validation error!", "Expected object, received text"])
        name = payload.get("model")
        if not isinstance(name, str) or not name:
            received = "undefined" if name is None else repr(name)
            return error(
                request,
                400,
                [
                    "Body validation error!",
                    f"model: Required. Expected string, received {received}",
                ],
            )
        model = validation.find_model(name)
        era = self._era(model)
        if model is None and not self.habits.unknown_models:
            return error(request, 404, f"Model {name!r} not found.", style=era.errors)
        if model is not None:
            if model.deprecated:
                return error(request, 404, f"Model {name!r} is withdrawn.", style=era.errors)
            if model.output != "video":
                hint = f"model: Expected a video model, received {name!r}"
                return error(request, 400, ["Body validation error!", hint], style=era.errors)
            if hints := validation.problems(payload, model):
                return error(request, 400, ["Body validation error!", *hints], style=era.errors)
        if "broke" in (_key(request) or "") or not self._can_pay(money.cost(model, payload)):
            return error(
                request,
                403,
                "You've run out of credits. Please top up your balance or update your payment "
                "method. (This is a sandbox: nothing was charged.)",
                kind=replies.OUT_OF_CREDITS,
            )
        return None

    def _accept(self, request: web.Request, payload: dict[str, Any], post: Post) -> Job:
        name = payload["model"]
        model = validation.find_model(name)
        era = self._era(model)
        fail = self._fail(name, payload)
        spelling = next(iter(model.spellings), model.id) if model else name
        # The decimal and nanoid shapes may collide in theory; a job must never be overwritten.
        id = replies.new_id(era.ids, spelling, self.rng)
        while id in self.records.jobs:
            id = replies.new_id(era.ids, spelling, self.rng)
        job = Job(
            id=id,
            model=name,
            payload=payload,
            client_request_id=post.client_request_id,
            request_id=os.urandom(8).hex(),
            key_mark=_mark(_key(request)),
            era=era,
            clock=self.clock,
            start=self.clock.now(),
            seconds=self._seconds(model, payload, fail),
            fail=fail,
            usd=money.cost(model, payload),
            slug="sandbox-" + hashlib.sha256(id.encode()).hexdigest()[:16],
        )
        with self.records.changed:
            self.records.jobs[id] = job
            self.slugs[job.slug] = job
            self._held += job.usd
            post.accepted, post.generation_id = True, id
            self.records.changed.notify_all()
        if math.isfinite(job.seconds):
            # Waiters may be waiting for this very end; a hair later, the clock has surely passed.
            wait = job.seconds / self.clock.speed + 0.001
            asyncio.get_running_loop().call_later(wait, self.records.touch)
        self.log(f"accepted {name}: {id}, done in {job.seconds / self.clock.speed:.1f} s")
        return job

    def _era(self, model: Model | None) -> Era:
        return self.habits.era or replies.era_of(model.family if model else None)

    def _fail(self, name: str, payload: dict[str, Any]) -> str | None:
        if found := FAIL_WORD.search(_prompt(payload)):
            kind: str | None = found[1]
        else:
            fail = self.habits.fail
            kind = fail(name, payload) if callable(fail) else fail
        if kind is not None and kind not in replies.FAILURES:
            kind = "provider"
        return kind

    def _seconds(self, model: Model | None, payload: dict[str, Any], fail: str | None) -> float:
        chosen = self.habits.seconds
        if callable(chosen):
            return float(chosen(payload["model"], payload))
        if chosen is not None:
            return float(chosen)
        spread = min(max(math.exp(self.rng.gauss(0, 0.06)), 0.85), 1.25)
        usual = self._usual_seconds(model, round(money.seconds_of(payload)))
        # Refusals by content and by input come early.
        return usual * spread * (0.06 if fail in ("moderation", "face_detection") else 1)

    def _usual_seconds(self, model: Model | None, duration: int | None) -> float:
        expected = model.expected_seconds(duration) if model else None
        return expected or UNKNOWN_SECONDS

    # --- poll ----------------------------------------------------------------------------------

    async def poll(self, request: web.Request) -> web.StreamResponse:
        id = request.query.get("generation_id", "")
        job = self.records.jobs.get(id)
        now = self.clock.now()
        state = job.state(now) if job else ""
        with self.records.changed:
            self.records.requests["poll"] += 1
            if job:
                job.polls += 1
            self.records.changed.notify_all()
        if (refusal := self._refuse_key(request)) is not None:
            return refusal
        aim = "pending" if state in ("queued", "generating") else state
        fault = self.faults.take("poll", job.prompt if job else "", aim)
        if fault is not None:
            self.log(f"fault at poll: {fault.kind}")
        if job is None:
            return await self._poll_of_nothing(request, id, fault)
        body = self._poll_body(job, state)
        headers = self._headers(job, done=aim != "pending")
        response = await answer(request, fault, 200, body, headers)
        if aim != "pending" and job.seen is None and (fault is None or fault.kind in HONEST):
            with self.records.changed:
                job.seen = self.clock.now()
                self.records.changed.notify_all()
            self.log(f"{state} {job.id}, noticed {job.lateness:.1f} gateway seconds later")
        return response

    def _poll_body(self, job: Job, state: str) -> dict[str, Any]:
        if state == "error":
            assert job.fail is not None
            word, problem = replies.failure(job.fail, job.payload)
            return replies.polled(job.era, job.id, state, model=job.model, error=problem, word=word)
        video: dict[str, Any] | None = None
        if state == "completed":
            video = {
                "url": self.videos.url(job, self.cdn_origin),
                "content_type": "video/mp4",
                "file_name": "sandbox_output.mp4",
                "file_size": self.videos.size_of(job),
                "duration": money.seconds_of(job.payload),
            }
        return replies.polled(job.era, job.id, state, model=job.model, video=video, usd=job.usd)

    async def _poll_of_nothing(
        self, request: web.Request, id: str, fault: Fault | None
    ) -> web.StreamResponse:
        if not id:
            message = "invalid params, task_id cannot by empty"  # the gateway's own words
            body = {"id": "", "status": "unknown", "error": {"name": "Error", "message": message}}
            return await answer(request, fault, 200, body, {})
        if fault is not None:
            return await answer(request, fault, 404, {"message": "Inference not found"}, {})
        headers = {"x-inference-id": id} if replies.could_be_id(id) else {}
        return error(request, 404, "Inference not found", headers=headers)

    def _headers(self, job: Job, done: bool = False) -> dict[str, str]:
        headers = {"x-inference-id": job.id, "x-request-id": os.urandom(8).hex()}
        if job.client_request_id:
            headers["x-client-request-id"] = job.client_request_id
        if done and job.era.model:
            usd = 0.0 if job.fail else job.usd
            headers["x-aimlapi-credits-used"] = str(round(usd * replies.CREDITS_PER_USD))
            headers["x-aimlapi-usd-spent"] = f"{usd:.9f}"
        return headers

    # --- money and logs ------------------------------------------------------------------------

    def _can_pay(self, usd: float) -> bool:
        # Adding up all jobs at each submit would be slow; without refunds it is one subtraction.
        return self.habits.balance - self._held >= usd or self._available() >= usd

    def _available(self) -> float:
        """What is left: a failed job gives its hold back."""
        now = self.clock.now()
        spent = sum(
            job.usd for job in self.records.jobs.values() if not (job.fail and job.end <= now)
        )
        return self.habits.balance - spent

    async def billing(self, request: web.Request) -> web.StreamResponse:
        left = round(self._left(request), 6)
        return await self._serve(
            request, "billing", lambda: {"current_balance": left, "currency": "USD"}
        )

    async def balance(self, request: web.Request) -> web.StreamResponse:
        credits = round(self._left(request) * replies.CREDITS_PER_USD)
        return await self._serve(
            request,
            "billing",
            lambda: {
                "balance": credits,
                "lowBalance": credits < 10_000,
                "lowBalanceThreshold": 10_000,
                "lastUpdated": replies.iso(),
                "autoDebitStatus": "disabled",
                "status": "current",
                "statusExplanation": "Balance of the sandbox: not real money",
            },
        )

    def _left(self, request: web.Request) -> float:
        return 0.0 if "broke" in (_key(request) or "") else self._available()

    async def logs(self, request: web.Request) -> web.StreamResponse:
        now = self.clock.now()
        while self._log_calls and self._log_calls[0] < now - LOG_WINDOW:
            self._log_calls.popleft()
        if len(self._log_calls) >= LOG_CALLS:
            self.records.count("logs")
            return error(request, 429)
        self._log_calls.append(now)
        try:
            page = self._log_page(request)
        except ValueError as problem:
            self.records.count("logs")
            return error(request, 400, str(problem))
        return await self._serve(request, "logs", lambda: page)

    def _log_page(self, request: web.Request) -> dict[str, Any]:
        """One page of requests, newest first. Raises ValueError for what the gateway refuses."""
        query = request.query
        first, last = _window(query)
        limit = _integer(query, "limit", 50, 1, 100)
        offset = _integer(query, "offset", 0, 0, 10**9)
        statuses, models = query.getall("status", []), query.getall("model", [])
        for status in statuses:
            if status not in ("succeeded", "failed"):
                raise ValueError(f"status: Expected succeeded | failed, received {status!r}")
        mark, now = _mark(_key(request)), self.clock.now()
        rows = []
        for job in reversed(self.records.jobs.values()):
            done = job.end <= now
            status = "failed" if done and job.fail else "succeeded"
            if (
                job.key_mark == mark
                and (done or self.habits.logs_show_running)
                and first <= job.created <= last
                and (not statuses or status in statuses)
                and (not models or {job.model, job.model.partition("/")[2]} & set(models))
            ):
                usd = job.usd if done and not job.fail else 0.0
                rows.append(
                    {
                        "created": replies.iso(job.created),
                        "status": status,
                        "origin": "api",
                        "model": job.model,
                        "cost": {"usd": usd, "credits": round(usd * replies.CREDITS_PER_USD)},
                        "tokens": {"input": 0, "output": 0, "total": 0},
                        "request_id": job.request_id,
                        "inference_id": job.id,
                        "client_request_id": job.client_request_id,
                    }
                )
        return {
            "data": rows[offset : offset + limit],
            "pagination": {
                "limit": limit,
                "offset": offset,
                "total": len(rows),
                "has_more": offset + limit < len(rows),
            },
        }

    # --- models --------------------------------------------------------------------------------

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
                entry["pricing"] = money.pricing(model)
            if include & {"capabilities", "all"}:
                entry["capabilities"] = [model.task.replace("-", "_")]
            if include & {"modalities", "all"}:
                given = model.task.partition("-to-video")[0]
                takes = [word for word in ("image", "video", "audio") if word in given]
                entry["modalities"] = {"input": ["text", *takes], "output": [model.output]}
            data.append(entry)
        body = {"object": "list", "data": data, "note": money.NOTE}
        etag = f'W/"{hashlib.sha256(json.dumps(body).encode()).hexdigest()[:24]}"'
        if request.headers.get("If-None-Match") == etag:
            self.records.count("models")
            return web.Response(status=304, headers={"ETag": etag})
        return await self._serve(request, "models", lambda: body, {"ETag": etag}, key=False)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Percentiles in gateway time: of the jobs that ended here, else of what one would take."""
        wanted = set(request.query.getall("aliases", []))
        models = []
        for model in catalog.models():
            if model.output != "video" or (wanted and not wanted & {model.id, *model.spellings}):
                continue
            now = self.clock.now()
            done = sorted(
                job.seconds
                for job in self.records.jobs.values()
                if job.model == model.id and job.end <= now and not job.fail
            )
            if not done:
                if callable(self.habits.seconds):
                    continue
                usual = self.habits.seconds or self._usual_seconds(model, None)
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
        body = {"window_seconds": 300, "generated_at": replies.iso(), "models": models}
        return await self._serve(request, "models", lambda: body, key=False)

    async def _serve(
        self,
        request: web.Request,
        moment: str,
        body: Callable[[], dict[str, Any]],
        headers: Mapping[str, str] | None = None,
        key: bool = True,
    ) -> web.StreamResponse:
        self.records.count(moment)
        if key and (refusal := self._refuse_key(request)) is not None:
            return refusal
        fault = self.faults.take(moment)
        known = {"x-request-id": os.urandom(8).hex(), **(headers or {})}
        return await answer(request, fault, 200, body(), known)

    def _refuse_key(self, request: web.Request) -> web.Response | None:
        key = _key(request)
        if key and "bad" not in key:
            return None
        return error(request, 401)

    # --- for tests and for people --------------------------------------------------------------

    async def front(self, request: web.Request) -> web.Response:
        records = self.records
        lines = [
            "SANDBOX: this is not the AI/ML API gateway. No key, no money, made-up videos.",
            f"base URL  {self.base_url}",
            f"speed     {self.clock.speed:g} gateway seconds per second",
            f"jobs      {len(records.jobs)} accepted, {len(records.posts)} submits",
            "records   GET _jobs; faults: GET, POST, DELETE _faults",
        ]
        return reply(200, "\n".join(lines) + "\n", content_type="text/plain; charset=utf-8")

    async def show_jobs(self, request: web.Request) -> web.Response:
        return reply(200, self.snapshot())

    def snapshot(self) -> dict[str, Any]:
        """All records as JSON."""
        records = self.records
        with records.changed:
            return {
                "sandbox": True,
                "base_url": self.base_url,
                "speed": self.clock.speed,
                "now": time.time(),
                "paid": len(records.jobs),
                "leaked_keys": records.leaked_keys,
                "connections": records.connections,
                "requests": dict(records.requests),
                "jobs": [job.to_json() for job in records.jobs.values()],
                "posts": [post.to_json() for post in records.posts],
            }

    async def show_faults(self, request: web.Request) -> web.Response:
        return reply(200, {"faults": [fault.to_json() for fault in self.faults.armed()]})

    async def arm_fault(self, request: web.Request) -> web.Response:
        """``{"fault": "poll:503:2"}`` or ``{"moment": …, "kind": …, "times": …, options}``."""
        wish = _parse(await request.read())
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
        return reply(200, shorten(self.faults.arm(fault).to_json()))

    async def clear_faults(self, request: web.Request) -> web.Response:
        self.faults.clear()
        return reply(200, {"faults": []})


def _key(request: web.Request) -> str | None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _mark(key: str | None) -> str:
    return hashlib.sha256((key or "").encode()).hexdigest()[:12]


def _client_request_id(request: web.Request) -> str | None:
    """The caller's mark; one outside the alphabet is dropped in silence, as documented."""
    value = request.headers.get("X-Client-Request-Id", "")
    return value if CLIENT_REQUEST_ID.fullmatch(value) else None


def _parse(raw: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _prompt(payload: Mapping[str, Any] | None) -> str:
    if payload is None:
        return ""
    shots = payload.get("multi_prompt") or []
    return " ".join([str(payload.get("prompt") or ""), str(shots) if shots else ""]).strip()


def _words(values: list[str]) -> set[str]:
    return {word.strip().lower() for value in values for word in value.split(",") if word.strip()}


def _integer(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isdigit() or not low <= int(text) <= high:
        raise ValueError(f"{name}: Expected an integer from {low} to {high}, received {text!r}")
    return int(text)


def _window(query: Mapping[str, str]) -> tuple[float, float]:
    """Start and end in Unix seconds. Raises ValueError as the gateway would refuse."""
    period, start, end = (query.get(name) for name in ("period", "start", "end"))
    if bool(period) == bool(start or end) or bool(start) != bool(end):
        raise ValueError("Expected either period or both start and end")
    if period:
        found = re.fullmatch(r"([1-9]\d*)([hd])", period)
        if not found:
            raise ValueError(f"period: Expected a number and h or d, received {period!r}")
        span = int(found[1]) * (3600 if found[2] == "h" else 86_400)
        last = time.time() + 1
        first = last - span
    else:
        first, last = _moment("start", start or ""), _moment("end", end or "")
        if last < first:
            raise ValueError("end: Expected a time not earlier than start")
    if last - first > 92 * 86_400 + 1:
        raise ValueError("Expected a window of at most 92 days")
    return first, last


def _moment(name: str, text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name}: Expected an ISO-8601 time, received {text!r}") from None
    # Without an offset it is UTC, say the documents.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
