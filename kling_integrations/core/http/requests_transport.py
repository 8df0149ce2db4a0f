"""Carrying one call with ``requests``: whatever happens comes back as an Outcome.

What matters most is whether a byte of the request may have left: a POST that surely never did
may be repeated, any other may have been paid.
"""

from __future__ import annotations

import io
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..errors import InvalidRequestError
from ..payloads import MAX_BODY_BYTES, Reply
from ..protocol import Call, Outcome, Sent, Trouble
from . import network
from .network import CONNECT_TIMEOUT

# Of this thread's exchange: .sent, whether it got past connecting; .before, what is asked before
# that; .deadline, monotonic seconds.
_progress = threading.local()


class _Reader(socket.SocketIO):
    """Reads until the deadline of the exchange: a reply that drips in trips no socket timeout."""

    _sock: socket.socket

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "r")
        self._each = sock.gettimeout()

    def readinto(self, buffer: Any) -> int | None:
        left = getattr(_progress, "deadline", math.inf) - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        limit = min(left, self._each or math.inf)
        self._sock.settimeout(limit if limit < math.inf else None)
        return super().readinto(buffer)


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if isinstance(sock, socket.socket):
            self.fp.close()
            sock._io_refs += 1  # type: ignore[attr-defined]  # as makefile does: close() counts back
            self.fp = io.BufferedReader(_Reader(sock))


def _leave() -> None:
    """The connection stands: from here on a byte of the request may have left."""
    if before := getattr(_progress, "before", None):
        before()
    _progress.sent = True


class _PlainConnection(HTTPConnection):
    response_class = _Response

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        _leave()
        super().request(*args, **kwargs)


class _TLSConnection(HTTPSConnection):
    response_class = _Response

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        _leave()
        super().request(*args, **kwargs)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    """What is trusted is what ``network`` says; requests would load a list of its own into it."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy not in self.proxy_manager:
            kwargs["proxy_ssl_context"] = network.ssl_context()  # of an https proxy
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TLSPool}
        return manager

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        url = urlsplit(request.url)
        proxy = select_proxy(request.url, proxies)
        manager = self.proxy_manager_for(proxy) if proxy else self.poolmanager
        trust = {"ssl_context": network.ssl_context()} if url.scheme == "https" else {}
        return manager.connection_from_host(url.hostname, url.port, url.scheme, pool_kwargs=trust)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        if url.lower().startswith("https"):
            conn.cert_reqs, conn.ca_certs, conn.ca_cert_dir = "CERT_REQUIRED", None, None


class _Session(requests.Session):
    def get_redirect_target(self, resp: Any) -> str | None:
        """Nowhere: even when told not to follow, requests would read the body, of any size."""
        return None


def new_session(pool_size: int = 20) -> requests.Session:
    """A pooled session that reads no environment: neither ~/.netrc, in place of the key, nor
    proxies and certificates, which ``network`` knows."""
    session = _Session()
    session.trust_env = False
    session.headers.clear()
    session.auth = lambda prepared: prepared
    adapter = _Adapter(pool_connections=pool_size, pool_maxsize=pool_size)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bounds all reading of this thread's replies together, where the session is one of these."""
    _progress.deadline = time.monotonic() + seconds
    try:
        yield
    finally:
        _progress.deadline = math.inf


def proxies_for(url: str) -> dict[str, str]:
    """The proxy on the way to ``url`` as requests takes it. Raises as ``network.proxy_for``."""
    proxy = network.proxy_for(url)
    return dict.fromkeys(("http", "https"), proxy) if proxy else {}


def exchange(session: requests.Session, call: Call, timeout: float) -> Outcome:
    """One exchange within ``timeout`` seconds. Redirects are not followed: the key stays here.

    Before a POST leaves ``network.BEFORE_POST`` is called.
    """
    with deadline(timeout):
        _progress.before = network.BEFORE_POST.get() if call.method == "POST" else None
        try:
            return _exchange(session, call, timeout)
        finally:
            _progress.before = None


def _exchange(session: requests.Session, call: Call, timeout: float) -> Outcome:
    _progress.sent = False
    try:
        network.check(call.url)
        response = session.request(
            call.method,
            call.url,
            headers=dict(call.headers),
            data=call.body,
            timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
            proxies=proxies_for(call.url),
            allow_redirects=False,
            stream=True,
        )
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
        ValueError,
        InvalidRequestError,
    ) as error:
        sent = Sent.MAYBE if _progress.sent else Sent.NO
        return Trouble(network.reason(error, timeout if _progress.sent else None, call.url), sent)
    with response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        body = bytearray()
        try:
            # Not decoded: an encoding that was not asked for could hide any size.
            for chunk in response.raw.stream(65536, decode_content=False):
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    response.raw.close()
                    break
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            response.raw.close()  # cut: what came is judged as it is, headers may name the id
        return Reply(response.status_code, headers, bytes(body))
