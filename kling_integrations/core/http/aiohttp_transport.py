"""Carrying one call with ``aiohttp``: whatever happens comes back as an Outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

from .. import settings
from ..payloads import MAX_BODY_BYTES, Reply
from ..protocol import Call, Outcome, Sent, Trouble

if TYPE_CHECKING:
    import aiohttp

CONNECT_TIMEOUT = 10.0


def new_session(connections: int, fresh: bool = False) -> aiohttp.ClientSession:
    import aiohttp

    keep_alive = {} if fresh else {"keepalive_timeout": 75.0}
    connector = aiohttp.TCPConnector(limit=connections, force_close=fresh, **keep_alive)  # type: ignore[arg-type]
    # Not trust_env: it would also read ~/.netrc, and then refuse our Authorization header.
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # an encoding that was not asked for could hide any size
    )


def _proxy_for(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a host (HTTPS_PROXY and NO_PROXY)."""
    if settings.is_loopback(f"{scheme}://{host}") or proxy_bypass(host):
        return None  # a proxy's loopback would be another machine's
    return getproxies().get(scheme)


async def exchange(session: aiohttp.ClientSession, call: Call, timeout: float) -> Outcome:  # noqa: ASYNC109
    """One exchange within ``timeout`` seconds. Redirects are not followed: the key stays here."""
    import aiohttp
    from yarl import URL

    url = URL(call.url, encoded=True)  # ids are quoted already, and must arrive as they are
    limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_TIMEOUT, timeout))
    reply: aiohttp.ClientResponse | None = None
    body = bytearray()
    try:
        async with session.request(
            call.method,
            url,
            proxy=_proxy_for(url.scheme, url.host_subcomponent or ""),
            headers=call.headers,
            data=call.body,
            allow_redirects=False,
            timeout=limits,
        ) as reply:
            while chunk := await reply.content.readany():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    reply.close()
                    break
    except (
        aiohttp.ClientConnectorError,
        aiohttp.ConnectionTimeoutError,
        aiohttp.ClientHttpProxyError,  # a proxy that refuses the tunnel
        aiohttp.InvalidURL,
    ) as error:
        # Raised while connecting (refused, DNS, TLS handshake): not a byte of the request left.
        return Trouble(_reason(error, timeout), Sent.NO)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        if reply is None:
            return Trouble(_reason(error, timeout), Sent.MAYBE)
        # Cut while reading: what came is judged as it is, the headers may name the id.
    # aiohttp's headers are found by their names in lower case as well as in any other.
    return Reply(reply.status, reply.headers, bytes(body))


def _reason(error: BaseException, timeout: float) -> str:
    """Why there is no reply, in a few words without a URL."""
    inner = getattr(error, "os_error", None) or error
    name = type(error).__name__
    if isinstance(inner, ConnectionRefusedError):
        return "connection refused"
    if "DNS" in name:
        return "the host's name does not resolve"
    if "ConnectionTimeout" in name:
        return "no connection in time"
    if isinstance(error, TimeoutError):
        return f"no reply within {timeout:g} s"
    if "SSL" in name or "Certificate" in name:
        return f"TLS failed ({type(inner).__name__})"
    return f"connection lost ({type(inner).__name__})"
