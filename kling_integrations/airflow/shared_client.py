"""One AsyncKlingClient, and so one aiohttp session, per event loop and connection.

A triggerer runs thousands of triggers in one loop. A session each would cost memory, handshakes
and file descriptors; here the users of a session are counted, and the last one closes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .hooks import Access, access_async

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ..core.http.async_client import AsyncKlingClient


@dataclass(slots=True)
class _Shared:
    client: AsyncKlingClient
    users: int = 0


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Access, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_client(kling_conn_id: str) -> AsyncIterator[AsyncKlingClient]:
    """The loop's client for this connection. A changed key or address makes another one."""
    access = await access_async(kling_conn_id)
    clients = _of_loop.setdefault(asyncio.get_running_loop(), {})
    shared = clients.get(access)
    if shared is None:
        shared = clients[access] = _Shared(access.async_client())
        log.debug("One session for all triggers of the connection %s.", kling_conn_id)
    shared.users += 1
    try:
        yield shared.client
    finally:
        shared.users -= 1
        if shared.users == 0:
            # Removed before the first await: a trigger that comes meanwhile opens a new one.
            del clients[access]
            await shared.client.close()
