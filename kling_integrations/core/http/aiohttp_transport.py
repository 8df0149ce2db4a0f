"""Carrying one call with ``aiohttp``: whatever happens comes back as an Outcome."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequestError
from ..payloads import MAX_BODY_BYTES, Reply
from ..protocol import Call, Outcome, Sent, Trouble
from . import network
from .network import CONNECT_TIMEOUT

if TYPE_CHECKING:
    import aiohttp


class _Progress:
    """Of one exchange: ``sent``, whether it got past connecting; ``before``, asked before that."""

    __slots__ = ("before", "sent")

    def __init__(self, before: Callable[[], None] | None) -> None:
        self.before = before
        self.sent = False

    def leave(self) -> None:
        """The connection stands: from here on a byte of the request may have left."""
        if self.before:
            self.before()
        self.sent = True


_progress: ContextVar[_Progress | None] = ContextVar("progress", default=None)


@cache
def _connector() -> type[aiohttp.TCPConnector]:
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        async def connect(self, *args: Any, **options: Any) -> Any:
            connection = await super().connect(*args, **options)
            if (progress := _progress.get()) is not None:
                try:
                    progress.leave()
                except BaseException:
                    connection.close()
                    raise
            return connection

    return Connector


def new_session(connections: int, fresh: bool = False) -> aiohttp.ClientSession:
    """A session for the running loop, which reads no environment: ``network`` does."""
    import aiohttp

    keep_alive = {} if fresh else {"keepalive_timeout": 75.0}
    connector = _connector()(limit=connections, force_close=fresh, **keep_alive)  # type: ignore[arg-type]
    # Not trust_env: it would also read ~/.netrc, and then refuse our Authorization header.
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # an encoding that was not asked for could hide any size
    )


async def exchange(
    session: aiohttp.ClientSession,
    call: Call,
    timeout: float,  # noqa: ASYNC109
) -> Outcome:
    """One exchange within ``timeout`` seconds. Redirects are not followed: the key stays here.

    Before a POST leaves ``network.BEFORE_POST`` is called.
    """
    import aiohttp
    from yarl import URL

    url = URL(call.url, encoded=True)  # ids are quoted already, and must arrive as they are
    limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_TIMEOUT, timeout))
    reply: aiohttp.ClientResponse | None = None
    body = bytearray()
    progress = _Progress(network.BEFORE_POST.get() if call.method == "POST" else None)
    token = _progress.set(progress)
    try:
        secure: Any = network.ssl_context() if url.scheme == "https" else True
        proxy = network.proxy_for(call.url)
    except InvalidRequestError as error:
        _progress.reset(token)
        return Trouble(network.reason(error, None), Sent.NO)
    try:
        async with session.request(
            call.method,
            url,
            proxy=proxy,
            ssl=secure,
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
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        if reply is None:
            # While connecting (refused, DNS, proxy, TLS handshake) not a byte of it has left.
            sent = Sent.MAYBE if progress.sent else Sent.NO
            return Trouble(
                network.reason(error, timeout if progress.sent else None, call.url), sent
            )
        # Cut while reading: what came is judged as it is, the headers may name the id.
    finally:
        _progress.reset(token)
    # aiohttp's headers are found by their names in lower case as well as in any other.
    return Reply(reply.status, reply.headers, bytes(body))
