"""API keys in a sandbox: any word is one, and some words stand for a key that is refused."""

from __future__ import annotations

import hashlib

from aiohttp import web

from .responses import error_response


def key_of(request: web.Request) -> str | None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def fingerprint(request: web.Request) -> str:
    """Distinguishes the keys of requests without keeping them."""
    return hashlib.sha256((key_of(request) or "").encode()).hexdigest()[:12]


def refuse_key(request: web.Request) -> web.Response | None:
    """The 401 for a request without a key or with a bad one; None when the key is accepted."""
    key = key_of(request)
    return None if key and "bad" not in key else error_response(request, 401)


def is_out_of_credits(request: web.Request) -> bool:
    return "broke" in (key_of(request) or "")
