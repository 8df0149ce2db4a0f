"""Submit and poll, on both URL forms: the calls that cost prices."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from kling_integrations.core.catalog import Model
from kling_integrations.sandbox import payloads, prices, validation
from kling_integrations.sandbox.faults import Fault
from kling_integrations.sandbox.faulty_responses import answer, error
from kling_integrations.sandbox.jobs import Job, Post
from kling_integrations.sandbox.payloads import Era
from kling_integrations.sandbox.state import (
    VIDEO_PATHS,
    World,
    is_broke,
    key_of,
    mark_of,
    parse,
    refuse_key,
    usual_seconds,
)

CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
FAIL_WORD = re.compile(r"\[fail:([a-z_]+)\]")
# Faults that leave the poll's news intact: with these the client could know of the end.
HONEST = ("slow", "wrong-type", "id-changes", "no-id")


class Generations:
    def __init__(self, world: World) -> None:
        self.world = world

    def routes(self, prefix: str) -> list[web.RouteDef]:
        posts = [web.post(prefix + path, self.submit) for path in VIDEO_PATHS]
        return posts + [web.get(prefix + p, self.poll, allow_head=False) for p in VIDEO_PATHS]

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
        payload = parse(raw)
        post.body = raw.decode("utf-8", "replace") if payload is None else payload
        self._record(post)
        if (refusal := refuse_key(request)) is not None:
            return self._close(post, refusal)

        text = _prompt(payload)
        fault = self.world.faults.take("submit", text)
        if fault is not None:
            post.fault = fault.kind
            self.world.log(f"fault at submit: {fault.kind}")
            if fault.kind == "slow" and not fault.accepts:
                await answer(request, fault, 200, {}, {})
                fault = None
            elif not fault.accepts:
                return self._close(post, await answer(request, fault, 200, self._mock(), {}))
        if (refusal := self._refuse(request, payload)) is not None:
            return self._close(post, refusal)
        assert payload is not None
        job = self._accept(request, payload, post)
        body = payloads.submitted(job.era, job.id, job.model)
        headers = self._headers(job)
        return self._close(post, await answer(request, fault, job.era.submit_code, body, headers))

    def _record(self, post: Post) -> None:
        with self.world.records.changed:
            self.world.records.posts.append(post)
            self.world.records.requests["submit"] += 1
            self.world.records.changed.notify_all()

    def _close(self, post: Post, response: web.StreamResponse) -> web.StreamResponse:
        # A dropped connection carries no status.
        post.status = response.status if isinstance(response, web.Response) else None
        self.world.records.touch()
        return response

    def _mock(self) -> dict[str, Any]:
        """The reply that an unaccepted submit would have had."""
        return {"id": payloads.new_id("nanoid", "", self.world.rng), "status": "queued"}

    def _refuse(self, request: web.Request, payload: dict[str, Any] | None) -> web.Response | None:
        """The gateway's own objections to a submit, in its order: body, model, values, prices."""
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
        if model is None and not self.world.habits.unknown_models:
            return error(request, 404, f"Model {name!r} not found.", style=era.errors)
        if model is not None:
            if model.deprecated:
                return error(request, 404, f"Model {name!r} is withdrawn.", style=era.errors)
            if model.output != "video":
                hint = f"model: Expected a video model, received {name!r}"
                return error(request, 400, ["Body validation error!", hint], style=era.errors)
            if hints := validation.problems(payload, model):
                return error(request, 400, ["Body validation error!", *hints], style=era.errors)
        if is_broke(request) or not self.world.can_pay(prices.cost(model, payload)):
            return error(
                request,
                403,
                "You've run out of credits. Please top up your balance or update your payment "
                "method. (This is a sandbox: nothing was charged.)",
                kind=payloads.OUT_OF_CREDITS,
            )
        return None

    def _accept(self, request: web.Request, payload: dict[str, Any], post: Post) -> Job:
        name = payload["model"]
        model = validation.find_model(name)
        era = self._era(model)
        fail = self._fail(name, payload)
        spelling = next(iter(model.spellings), model.id) if model else name
        # The decimal and nanoid shapes may collide in theory; a job must never be overwritten.
        id = payloads.new_id(era.ids, spelling, self.world.rng)
        while id in self.world.records.jobs:
            id = payloads.new_id(era.ids, spelling, self.world.rng)
        job = Job(
            id=id,
            model=name,
            payload=payload,
            client_request_id=post.client_request_id,
            request_id=os.urandom(8).hex(),
            key_mark=mark_of(key_of(request)),
            era=era,
            clock=self.world.clock,
            start=self.world.clock.now(),
            seconds=self._seconds(model, payload, fail),
            fail=fail,
            usd=prices.cost(model, payload),
            slug="sandbox-" + hashlib.sha256(id.encode()).hexdigest()[:16],
        )
        with self.world.records.changed:
            self.world.records.jobs[id] = job
            self.world.slugs[job.slug] = job
            self.world.held += job.usd
            post.accepted, post.generation_id = True, id
            self.world.records.changed.notify_all()
        if math.isfinite(job.seconds):
            # Waiters may be waiting for this very end; a hair later, the clock has surely passed.
            wait = job.seconds / self.world.clock.speed + 0.001
            asyncio.get_running_loop().call_later(wait, self.world.records.touch)
        self.world.log(
            f"accepted {name}: {id}, done in {job.seconds / self.world.clock.speed:.1f} s"
        )
        return job

    def _era(self, model: Model | None) -> Era:
        return self.world.habits.era or payloads.era_of(model.family if model else None)

    def _fail(self, name: str, payload: dict[str, Any]) -> str | None:
        if found := FAIL_WORD.search(_prompt(payload)):
            kind: str | None = found[1]
        else:
            fail = self.world.habits.fail
            kind = fail(name, payload) if callable(fail) else fail
        if kind is not None and kind not in payloads.FAILURES:
            kind = "provider"
        return kind

    def _seconds(self, model: Model | None, payload: dict[str, Any], fail: str | None) -> float:
        chosen = self.world.habits.seconds
        if callable(chosen):
            return float(chosen(payload["model"], payload))
        if chosen is not None:
            return float(chosen)
        spread = min(max(math.exp(self.world.rng.gauss(0, 0.06)), 0.85), 1.25)
        usual = usual_seconds(model, round(prices.seconds_of(payload)))
        # Refusals by content and by input come early.
        return usual * spread * (0.06 if fail in ("moderation", "face_detection") else 1)

    async def poll(self, request: web.Request) -> web.StreamResponse:
        id = request.query.get("generation_id", "")
        job = self.world.records.jobs.get(id)
        now = self.world.clock.now()
        state = job.state(now) if job else ""
        with self.world.records.changed:
            self.world.records.requests["poll"] += 1
            if job:
                job.polls += 1
            self.world.records.changed.notify_all()
        if (refusal := refuse_key(request)) is not None:
            return refusal
        aim = "pending" if state in ("queued", "generating") else state
        fault = self.world.faults.take("poll", job.prompt if job else "", aim)
        if fault is not None:
            self.world.log(f"fault at poll: {fault.kind}")
        if job is None:
            return await self._poll_of_nothing(request, id, fault)
        body = self._poll_body(job, state)
        headers = self._headers(job, done=aim != "pending")
        response = await answer(request, fault, 200, body, headers)
        if aim != "pending" and job.seen is None and (fault is None or fault.kind in HONEST):
            with self.world.records.changed:
                job.seen = self.world.clock.now()
                self.world.records.changed.notify_all()
            self.world.log(f"{state} {job.id}, noticed {job.lateness:.1f} gateway seconds later")
        return response

    def _poll_body(self, job: Job, state: str) -> dict[str, Any]:
        if state == "error":
            assert job.fail is not None
            word, problem = payloads.failure(job.fail, job.payload)
            return payloads.polled(
                job.era, job.id, state, model=job.model, error=problem, word=word
            )
        video: dict[str, Any] | None = None
        if state == "completed":
            video = {
                "url": self.world.videos.url(job, self.world.cdn_origin),
                "content_type": "video/mp4",
                "file_name": "sandbox_output.mp4",
                "file_size": self.world.videos.size_of(job),
                "duration": prices.seconds_of(job.payload),
            }
        return payloads.polled(job.era, job.id, state, model=job.model, video=video, usd=job.usd)

    async def _poll_of_nothing(
        self, request: web.Request, id: str, fault: Fault | None
    ) -> web.StreamResponse:
        if not id:
            message = "invalid params, task_id cannot by empty"  # the gateway's own words
            body = {"id": "", "status": "unknown", "error": {"name": "Error", "message": message}}
            return await answer(request, fault, 200, body, {})
        if fault is not None:
            return await answer(request, fault, 404, {"message": "Inference not found"}, {})
        headers = {"x-inference-id": id} if payloads.could_be_id(id) else {}
        return error(request, 404, "Inference not found", headers=headers)

    def _headers(self, job: Job, done: bool = False) -> dict[str, str]:
        headers = {"x-inference-id": job.id, "x-request-id": os.urandom(8).hex()}
        if job.client_request_id:
            headers["x-client-request-id"] = job.client_request_id
        if done and job.era.model:
            usd = 0.0 if job.fail else job.usd
            headers["x-aimlapi-credits-used"] = str(round(usd * payloads.CREDITS_PER_USD))
            headers["x-aimlapi-usd-spent"] = f"{usd:.9f}"
        return headers


def _client_request_id(request: web.Request) -> str | None:
    """The caller's mark; one outside the alphabet is dropped in silence, as documented."""
    value = request.headers.get("X-Client-Request-Id", "")
    return value if CLIENT_REQUEST_ID.fullmatch(value) else None


def _prompt(payload: Mapping[str, Any] | None) -> str:
    if payload is None:
        return ""
    shots = payload.get("multi_prompt") or []
    return " ".join([str(payload.get("prompt") or ""), str(shots) if shots else ""]).strip()
