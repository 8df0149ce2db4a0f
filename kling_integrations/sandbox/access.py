"""Who may call a sandbox: programs of this machine with a key, and no web page.

Any word is a key, and some words stand for one that is refused.

A page that any browser of this machine shows can send requests to loopback. With a name of its own
that leads to 127.0.0.1 it could read the prompts, too, and arm faults (DNS rebinding). Browsers
name the host that they were asked for, and the page that asks.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from .jobs import Records
from .responses import error_response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def own_callers_only(
    cdn_host: str, records: Records
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A middleware that refuses a foreign ``Host`` and an ``Origin`` other than the sandbox's.

    Any port will do in them: a tunnel may lead to the sandbox's.
    """

    @web.middleware
    async def refuse_others(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        origins = request.headers.getall("Origin", [])
        if len(hosts) == 1 and _is_own(hosts[0], cdn_host):
            if all(origin == f"http://{hosts[0]}" for origin in origins):
                return await handler(request)
            message = "SANDBOX: a web page may not call it (Origin)."
        else:
            message = "SANDBOX: it has another name (Host)."
        records.count("other")
        return error_response(request, 403, message)

    return refuse_others


def _is_own(host: str, cdn_host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    if name in ("localhost", cdn_host):
        return True
    try:
        return ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False


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
