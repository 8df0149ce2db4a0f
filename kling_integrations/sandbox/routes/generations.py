"""Submit and poll, on both URL forms: the calls that cost money."""

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

from ...core.catalog import Model
from ..access import fingerprint, is_out_of_credits, refuse_key
from ..faults import Fault
from ..faulty_responses import json_response
from ..jobs import Post, SandboxJob, documented_seconds
from ..payloads import (
    CREDITS_PER_USD,
    FAILURES,
    OUT_OF_CREDITS,
    Era,
    could_be_id,
    era_of,
    failure,
    new_id,
    parse_object,
    polled,
    submitted,
)
from ..prices import cost, seconds_of
from ..responses import error_response
from ..state import SandboxState
from ..validation import find_model, problems
from ..video.scene import Scene
from ._shared import VIDEO_PATHS

CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
FAIL_WORD = re.compile(r"\[fail:([a-z_]+)\]")
# With these faults the reply to a poll still reports the status that it should.
READABLE_FAULTS = ("slow", "wrong-type", "no-id")


class Generations:
    def __init__(self, state: SandboxState) -> None:
        self.state = state

    def routes(self, prefix: str) -> list[web.RouteDef]:
        posts = [web.post(prefix + path, self.submit) for path in VIDEO_PATHS]
        return posts + [web.get(prefix + p, self.poll, allow_head=False) for p in VIDEO_PATHS]

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
            return self._answer(post, error_response(request, 413))
        payload = parse_object(raw)
        post.body = raw.decode("utf-8", "replace") if payload is None else payload
        self._record(post)
        if (refusal := refuse_key(request)) is not None:
            return self._answer(post, refusal)

        fault = self.state.faults.take("submit", _prompt(payload))
        if fault is not None:
            post.fault = fault.kind
            self.state.log(f"fault at submit: {fault.kind}")
            if fault.kind == "slow" and not fault.accepts:
                # A delay before the acceptance instead of after it.
                await json_response(request, fault, 200, {}, {})
                fault = None
            elif not fault.accepts:
                body = {"id": new_id("nanoid", "", self.state.rng), "status": "queued"}
                return self._answer(post, await json_response(request, fault, 200, body, {}))
        if (refusal := self._refuse(request, payload)) is not None:
            return self._answer(post, refusal)
        assert payload is not None
        job = self._accept(request, payload, post)
        body = submitted(job.era, job.id, job.model)
        code, headers = job.era.submit_code, self._headers(job)
        return self._answer(post, await json_response(request, fault, code, body, headers))

    def _record(self, post: Post) -> None:
        with self.state.records.changed:
            self.state.records.posts.append(post)
            self.state.records.requests["submit"] += 1
            self.state.records.changed.notify_all()

    def _answer(self, post: Post, response: web.StreamResponse) -> web.StreamResponse:
        # A dropped connection carries no status.
        post.status = response.status if isinstance(response, web.Response) else None
        self.state.records.notify()
        return response

    def _refuse(self, request: web.Request, payload: dict[str, Any] | None) -> web.Response | None:
        """The gateway's own checks of a submit, in its order: body, model, values, money."""
        if payload is None:
            return _invalid(request, "Expected object, received text")
        name = payload.get("model")
        if not isinstance(name, str) or not name:
            received = "undefined" if name is None else repr(name)
            return _invalid(request, f"model: Required. Expected string, received {received}")
        model = find_model(name)
        envelope = self._era(model).errors
        if model is None and not self.state.options.unknown_models:
            return error_response(request, 404, f"Model {name!r} not found.", envelope=envelope)
        if model is not None:
            if model.deprecated:
                message = f"Model {name!r} is withdrawn."
                return error_response(request, 404, message, envelope=envelope)
            if model.output != "video":
                hint = f"model: Expected a video model, received {name!r}"
                return _invalid(request, hint, envelope=envelope)
            if hints := problems(payload, model):
                return _invalid(request, *hints, envelope=envelope)
        if is_out_of_credits(request) or not self.state.can_pay(cost(model, payload)):
            return error_response(
                request,
                403,
                "You've run out of credits. Please top up your balance or update your payment "
                "method. (This is a sandbox: nothing was charged.)",
                kind=OUT_OF_CREDITS,
            )
        return None

    def _accept(self, request: web.Request, payload: dict[str, Any], post: Post) -> SandboxJob:
        job = self._make_job(request, payload, post.client_request_id)
        with self.state.records.changed:
            self.state.add(job)
            post.accepted, post.generation_id = True, job.id
            self.state.records.changed.notify_all()
        real_seconds = job.seconds / self.state.clock.speed
        if math.isfinite(real_seconds):
            # Threads may wait for this very end; a hair later, the clock has surely passed it.
            loop = asyncio.get_running_loop()
            loop.call_later(real_seconds + 0.001, self.state.records.notify)
        self.state.log(f"accepted {job.model}: {job.id}, done in {real_seconds:.1f} s")
        return job

    def _make_job(
        self, request: web.Request, payload: dict[str, Any], client_request_id: str | None
    ) -> SandboxJob:
        name = payload["model"]
        model = find_model(name)
        era = self._era(model)
        fail = self._fail(name, payload)
        spelling = next(iter(model.spellings), model.id) if model else name
        # The decimal and nanoid shapes may collide in theory; a job must never be overwritten.
        id = new_id(era.ids, spelling, self.state.rng)
        while id in self.state.records.jobs:
            id = new_id(era.ids, spelling, self.state.rng)
        return SandboxJob(
            id=id,
            model=name,
            payload=payload,
            client_request_id=client_request_id,
            request_id=os.urandom(8).hex(),
            key_fingerprint=fingerprint(request),
            era=era,
            clock=self.state.clock,
            start=self.state.clock.now(),
            seconds=self._seconds(model, payload, fail),
            fail=fail,
            usd=cost(model, payload),
            slug="sandbox-" + hashlib.sha256(id.encode()).hexdigest()[:16],
        )

    def _era(self, model: Model | None) -> Era:
        return self.state.options.era or era_of(model.family if model else None)

    def _fail(self, name: str, payload: dict[str, Any]) -> str | None:
        if found := FAIL_WORD.search(_prompt(payload)):
            kind: str | None = found[1]
        else:
            fail = self.state.options.fail
            kind = fail(name, payload) if callable(fail) else fail
        if kind is not None and kind not in FAILURES:
            kind = "provider"
        return kind

    def _seconds(self, model: Model | None, payload: dict[str, Any], fail: str | None) -> float:
        chosen = self.state.options.seconds
        if callable(chosen):
            return float(chosen(payload["model"], payload))
        if chosen is not None:
            return float(chosen)
        spread = min(max(math.exp(self.state.rng.gauss(0, 0.06)), 0.85), 1.25)
        usual = documented_seconds(model, round(seconds_of(payload)))
        # Refusals by content and by input come early.
        return usual * spread * (0.06 if fail in ("moderation", "face_detection") else 1)

    # --- poll ----------------------------------------------------------------------------------

    async def poll(self, request: web.Request) -> web.StreamResponse:
        id = request.query.get("generation_id", "")
        job = self.state.records.jobs.get(id)
        status = job.status_at(self.state.clock.now()) if job else ""
        with self.state.records.changed:
            self.state.records.requests["poll"] += 1
            if job:
                job.polls += 1
            self.state.records.changed.notify_all()
        if (refusal := refuse_key(request)) is not None:
            return refusal
        phase = "pending" if status in ("queued", "generating") else status
        fault = self.state.faults.take("poll", job.prompt if job else "", phase)
        if fault is not None:
            self.state.log(f"fault at poll: {fault.kind}")
        if job is None:
            return await self._poll_unknown(request, id, fault)
        body = self._poll_body(job, status)
        headers = self._headers(job, done=phase != "pending")
        response = await json_response(request, fault, 200, body, headers)
        readable = fault is None or fault.kind in READABLE_FAULTS
        if phase != "pending" and job.seen is None and readable:
            with self.state.records.changed:
                job.seen = self.state.clock.now()
                self.state.records.changed.notify_all()
            self.state.log(f"{status} {job.id}, noticed {job.lateness:.1f} gateway seconds later")
        return response

    def _poll_body(self, job: SandboxJob, status: str) -> dict[str, Any]:
        if status == "error":
            assert job.fail is not None
            word, problem = failure(job.fail, job.payload)
            return polled(job.era, job.id, status, model=job.model, error=problem, word=word)
        video: dict[str, Any] | None = None
        if status == "completed":
            finished_at = job.finished_at or time.time()
            video = {
                "url": self.state.signer.url(self.state.cdn_origin, f"{job.slug}.mp4", finished_at),
                "content_type": "video/mp4",
                "file_name": "sandbox_output.mp4",
                "file_size": self.state.videos.file_size(Scene.of(job.model, job.payload)),
                "duration": seconds_of(job.payload),
            }
        return polled(job.era, job.id, status, model=job.model, video=video, usd=job.usd)

    async def _poll_unknown(
        self, request: web.Request, id: str, fault: Fault | None
    ) -> web.StreamResponse:
        if not id:
            message = "invalid params, task_id cannot by empty"  # the gateway's own words
            body = {"id": "", "status": "unknown", "error": {"name": "Error", "message": message}}
            return await json_response(request, fault, 200, body, {})
        if fault is not None:
            return await json_response(request, fault, 404, {"message": "Inference not found"}, {})
        headers = {"x-inference-id": id} if could_be_id(id) else {}
        return error_response(request, 404, "Inference not found", headers=headers)

    def _headers(self, job: SandboxJob, done: bool = False) -> dict[str, str]:
        headers = {"x-inference-id": job.id, "x-request-id": os.urandom(8).hex()}
        if job.client_request_id:
            headers["x-client-request-id"] = job.client_request_id
        if done and job.era.model:
            usd = 0.0 if job.fail else job.usd
            headers["x-aimlapi-credits-used"] = str(round(usd * CREDITS_PER_USD))
            headers["x-aimlapi-usd-spent"] = f"{usd:.9f}"
        return headers


def _invalid(request: web.Request, *hints: str, envelope: str = "problem") -> web.Response:
    message = ["Body validation error!", *hints]
    return error_response(request, 400, message, envelope=envelope)


def _client_request_id(request: web.Request) -> str | None:
    """The id of the request's header; one outside the alphabet is ignored, as documented."""
    value = request.headers.get("X-Client-Request-Id", "")
    return value if CLIENT_REQUEST_ID.fullmatch(value) else None


def _prompt(payload: Mapping[str, Any] | None) -> str:
    if payload is None:
        return ""
    shots = payload.get("multi_prompt") or []
    return " ".join([str(payload.get("prompt") or ""), str(shots) if shots else ""]).strip()
