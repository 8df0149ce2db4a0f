"""One network for both transports: what is trusted, which proxy leads there, and what went wrong.

``requests`` and ``aiohttp`` read the environment each in its own way: behind a company's proxy one
could pay and the other not ask. So neither reads it: what counts is read here, as ``curl`` and
``requests`` do.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from .. import settings
from ..errors import InvalidRequestError

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection, of which there may be several addresses to try."""

BEFORE_POST: ContextVar[Callable[[], None] | None] = ContextVar("before_post", default=None)
"""Called once the connection for a POST stands: what it raises is raised, and nothing has left."""

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # the first that is set counts, alone
_OPENSSL = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # each stands for its half of the system's


# --- trust -----------------------------------------------------------------------------------


def ssl_context() -> ssl.SSLContext:
    """What connections trust: one context for all of a process, made anew when a setting changes.

    A file or folder of certificates that ``REQUESTS_CA_BUNDLE`` or ``CURL_CA_BUNDLE`` names, else
    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, else the system's and certifi's. Making one takes some
    25 ms. Raises InvalidRequestError where a variable names what cannot be read.
    """
    return _context(*((name, value, _changed_at(value)) for name, value in _named()))


def _named() -> list[tuple[str, str]]:
    """The variables that count, with what they name."""
    given = {name: os.environ.get(name, "").strip() for name in (*_BUNDLES, *_OPENSSL)}
    for name in _BUNDLES:
        if given[name]:
            return [(name, given[name])]
    return [(name, given[name]) for name in _OPENSSL if given[name]]


def _changed_at(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


@lru_cache(maxsize=4)
def _context(*named: tuple[str, str, int | None]) -> ssl.SSLContext:
    # One of the bundles is all that is trusted; OpenSSL's own variables are read by the default.
    alone = any(name in _BUNDLES for name, _, _ in named)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if alone else ssl.create_default_context()
    if not named:
        import certifi

        context.load_verify_locations(certifi.where())
    for name, path, _ in named:
        folder = name == "SSL_CERT_DIR" or os.path.isdir(path)
        try:
            if folder:
                if not any(map(os.path.isdir, path.split(os.pathsep))):
                    raise FileNotFoundError(2, "No such folder")
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except (OSError, ValueError) as error:  # an SSLError is an OSError: it holds no certificate
            why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error
            why = why.strerror if isinstance(why, OSError) and why.strerror else why
            raise InvalidRequestError(
                f"{name}={path!r}, which shall say what certificates are trusted, cannot be read: "
                f"{why}."
            ) from None
    return context


def _trusted() -> str:
    names = " and ".join(name for name, _ in _named())
    if names:
        return f"what counts is what {names} names"
    return "a company's own authority is named by REQUESTS_CA_BUNDLE or SSL_CERT_FILE"


# --- proxies ---------------------------------------------------------------------------------


def proxy_for(url: str) -> str | None:
    """The address of the proxy on the way to ``url``, with its credentials; None: straight there.

    ``HTTPS_PROXY`` or ``HTTP_PROXY`` by the scheme of the URL, else ``ALL_PROXY``, each with or
    without ``http://``, lower case first; ``NO_PROXY`` lists names, addresses and networks, with
    or without a port. Without any of these, what macOS and Windows have set. Loopback is never
    reached by a proxy, whose loopback is another machine's. Raises InvalidRequestError for a
    proxy that no transport can use.
    """
    if settings.is_loopback(url):
        return None
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)
    proxies = getproxies()
    named = (proxies.get(parts.scheme) or proxies.get("all") or "").strip()
    if not named or _goes_straight(host, port, proxies.get("no", "")):
        return None
    text = named if "://" in named else f"http://{named.lstrip('/')}"
    variable = _variable(parts.scheme)
    try:
        proxy = urlsplit(text)
        usable = bool(proxy.hostname) and proxy.port != 0 and not set(text) & set("\"' ")
    except ValueError:
        usable = False
    if not usable:
        raise InvalidRequestError(
            f"{variable} is not the address of a proxy, such as http://proxy.example:3128 (special "
            "characters of a password are written as %23)."
        )
    scheme = proxy.scheme.lower()
    if scheme not in ("http", "https"):
        raise InvalidRequestError(
            f"{variable} names a {scheme} proxy, and only http and https ones can be used: name "
            f"one in {parts.scheme.upper()}_PROXY, or the host {host} in NO_PROXY."
        )
    return f"{scheme}://{proxy.netloc}"


def _variable(scheme: str) -> str:
    names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name)), "The system's setting")


def _goes_straight(host: str, port: int, exceptions: str) -> bool:
    shown = f"[{host}]" if ":" in host else host
    if proxy_bypass(f"{shown}:{port}"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in map(str.strip, exceptions.lower().split(",")):
        if entry.startswith("*.") and host.endswith(entry[1:]):
            return True
        try:
            if address is not None and address in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def check(url: str) -> None:
    """Raises InvalidRequestError where the environment's settings lead to no connection."""
    if urlsplit(url).scheme == "https":
        ssl_context()
    proxy_for(url)


# --- what went wrong -------------------------------------------------------------------------


def reason(error: BaseException, timeout: float | None, url: str | None = None) -> str:
    """Why there is no reply, in a few words without a URL; no ``timeout``: while connecting.

    ``url`` is where the call should have gone: a proxy on the way is named.
    """
    if isinstance(error, InvalidRequestError):  # of ``check``
        return error.message.rstrip(".")
    chain = _chain(error)
    names = " ".join(type(item).__name__ for item in chain)
    # requests: an OSError; aiohttp: with a status
    refused = re.search(r"Tunnel connection failed: (\d{3}[^'\")]*)", f"{error} {chain[-1]}")
    status = next((getattr(e, "status", 0) for e in chain if "HttpProxy" in type(e).__name__), 0)
    if refused or status:
        said = refused[1].strip() if refused else str(status)
        asks = ", it wants a name and a password" if said.startswith("407") else ""
        return f"the proxy {_shown_proxy(url)} refused ({said}){asks}"
    why = _why(chain, names, timeout)
    if "ProxyError" in names or "ProxyConnection" in names:
        return f"the proxy {_shown_proxy(url)} cannot be reached: {why}"
    return why


def _why(chain: list[BaseException], names: str, timeout: float | None) -> str:
    last = chain[-1]
    if isinstance(last, ConnectionRefusedError):
        return "connection refused"
    if any(word in names for word in ("NameResolutionError", "gaierror", "DNS")):
        return "the host's name does not resolve"
    for item in chain:
        if isinstance(item, ssl.SSLCertVerificationError):
            said = getattr(item, "verify_message", "") or "it cannot be verified"
            return f"TLS failed: the certificate is not trusted ({said}); {_trusted()}"
    if "Timeout" in names:
        return f"no reply within {timeout:g} s" if timeout else "no connection in time"
    if "SSL" in names or "Certificate" in names:
        return f"TLS failed ({type(last).__name__})"
    return f"connection lost ({type(last).__name__})"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what is inside it, the cause last."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        first = cause.args[0] if cause.args else None
        nested = [getattr(cause, "reason", None), first, *cause.args[1:2]]
        nested += [cause.__cause__, cause.__context__]
        cause = next((item for item in nested if isinstance(item, BaseException)), None)
    return chain


def _shown_proxy(url: str | None) -> str:
    """Host and port, without credentials, and the variable."""
    try:
        proxy = proxy_for(url) if url else None
    except InvalidRequestError:
        proxy = None
    if proxy is None or url is None:
        return "on the way"
    return f"{proxy.rpartition('@')[2].rpartition('/')[2]} ({_variable(urlsplit(url).scheme)})"
