"""The account: balance and the log of requests."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ..access import fingerprint, is_out_of_credits
from ..jobs import SandboxJob
from ..payloads import CREDITS_PER_USD, iso
from ..responses import error_response
from ..state import SandboxState
from ._shared import serve_free_call

LOG_CALLS, LOG_WINDOW = 200, 60.0  # calls, gateway seconds


class Account:
    def __init__(self, state: SandboxState) -> None:
        self.state = state
        self._log_calls: deque[float] = deque()

    def routes(self, prefix: str) -> list[web.RouteDef]:
        return [
            web.get(f"{prefix}/v2/billing", self.billing),
            web.get(f"{prefix}/v1/billing/balance", self.balance),
            web.get(f"{prefix}/v2/logs", self.logs),
        ]

    async def billing(self, request: web.Request) -> web.StreamResponse:
        body = {"current_balance": round(self._left(request), 6), "currency": "USD"}
        return await serve_free_call(self.state, request, "billing", body)

    async def balance(self, request: web.Request) -> web.StreamResponse:
        credits = round(self._left(request) * CREDITS_PER_USD)
        body = {
            "balance": credits,
            "lowBalance": credits < 10_000,
            "lowBalanceThreshold": 10_000,
            "lastUpdated": iso(),
            "autoDebitStatus": "disabled",
            "status": "current",
            "statusExplanation": "Balance of the sandbox: not real money",
        }
        return await serve_free_call(self.state, request, "billing", body)

    def _left(self, request: web.Request) -> float:
        return 0.0 if is_out_of_credits(request) else self.state.available()

    async def logs(self, request: web.Request) -> web.StreamResponse:
        now = self.state.clock.now()
        while self._log_calls and self._log_calls[0] < now - LOG_WINDOW:
            self._log_calls.popleft()
        if len(self._log_calls) >= LOG_CALLS:
            self.state.records.count("logs")
            return error_response(request, 429)
        self._log_calls.append(now)
        try:
            page = self._log_page(request)
        except ValueError as problem:
            self.state.records.count("logs")
            return error_response(request, 400, str(problem))
        return await serve_free_call(self.state, request, "logs", page)

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
        owner, now = fingerprint(request), self.state.clock.now()
        rows = []
        for job in reversed(self.state.records.jobs.values()):
            done = job.end <= now
            status = "failed" if done and job.fail else "succeeded"
            if (
                job.key_fingerprint == owner
                and (done or self.state.options.logs_show_running)
                and first <= job.created <= last
                and (not statuses or status in statuses)
                and (not models or {job.model, job.model.partition("/")[2]} & set(models))
            ):
                rows.append(_row(job, status, job.usd if done and not job.fail else 0.0))
        return {
            "data": rows[offset : offset + limit],
            "pagination": {
                "limit": limit,
                "offset": offset,
                "total": len(rows),
                "has_more": offset + limit < len(rows),
            },
        }


def _row(job: SandboxJob, status: str, usd: float) -> dict[str, Any]:
    return {
        "created": iso(job.created),
        "status": status,
        "origin": "api",
        "model": job.model,
        "cost": {"usd": usd, "credits": round(usd * CREDITS_PER_USD)},
        "tokens": {"input": 0, "output": 0, "total": 0},
        "request_id": job.request_id,
        "inference_id": job.id,
        "client_request_id": job.client_request_id,
    }


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
        first, last = _unix_time("start", start or ""), _unix_time("end", end or "")
        if last < first:
            raise ValueError("end: Expected a time not earlier than start")
    if last - first > 92 * 86_400 + 1:
        raise ValueError("Expected a window of at most 92 days")
    return first, last


def _unix_time(name: str, text: str) -> float:
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name}: Expected an ISO-8601 time, received {text!r}") from None
    # Without an offset it is UTC, by the documents.
    return (time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp()
