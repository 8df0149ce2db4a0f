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

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..payloads import MAX_BODY_BYTES, Reply
from ..protocol import Call, Outcome, Sent, Trouble
from ..settings import is_loopback

CONNECT_TIMEOUT = 10.0

# Of this thread's exchange: .sent, whether it got past connecting; .deadline, monotonic seconds.
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


class _PlainConnection(HTTPConnection):
    response_class = _Response

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        _progress.sent = True
        super().request(*args, **kwargs)


class _TLSConnection(HTTPSConnection):
    response_class = _Response

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        _progress.sent = True
        super().request(*args, **kwargs)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TLSPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TLSPool}
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: Any) -> str | None:
        """Nowhere: even when told not to follow, requests would read the body, of any size."""
        return None


def new_session(pool_size: int = 20) -> requests.Session:
    """A pooled session that never takes credentials from ~/.netrc in place of the key."""
    session = _Session()
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


def exchange(session: requests.Session, call: Call, timeout: float) -> Outcome:
    """One exchange within ``timeout`` seconds. Redirects are not followed: the key stays here."""
    with deadline(timeout):
        return _exchange(session, call, timeout)


def _exchange(session: requests.Session, call: Call, timeout: float) -> Outcome:
    _progress.sent = False
    # A proxy's loopback would be another machine's.
    proxies: Any = dict.fromkeys(("http", "https", "all")) if is_loopback(call.url) else None
    try:
        response = session.request(
            call.method,
            call.url,
            headers=dict(call.headers),
            data=call.body,
            timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
            proxies=proxies,
            allow_redirects=False,
            stream=True,
        )
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        sent = Sent.MAYBE if _progress.sent else Sent.NO
        return Trouble(reason(error, timeout if _progress.sent else None), sent)
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


def reason(error: BaseException, timeout: float | None) -> str:
    """Why there is no reply, in a few words without a URL; no ``timeout``: while connecting."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        inner = getattr(cause, "reason", None)
        first = cause.args[0] if cause.args else None
        nested = [inner, first, *cause.args[1:2], cause.__cause__, cause.__context__]
        cause = next((item for item in nested if isinstance(item, BaseException)), None)
    names = [type(item).__name__ for item in chain]
    last = chain[-1]
    if isinstance(last, ConnectionRefusedError):
        return "connection refused"
    if any(name in ("NameResolutionError", "gaierror") for name in names):
        return "the host's name does not resolve"
    if any("Timeout" in name for name in names):
        return f"no reply within {timeout:g} s" if timeout else "no connection in time"
    if any("SSL" in name for name in names):
        return f"TLS failed ({type(last).__name__})"
    return f"connection lost ({type(last).__name__})"
