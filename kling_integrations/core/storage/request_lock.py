"""One process at a time for one request, within a machine: both ledgers take it before a POST."""

from __future__ import annotations

from pathlib import Path


class RequestLock:
    """Held by one process while it decides about a request and posts it.

    The lock is the operating system's, so it falls with its holder.
    """

    def __init__(self, file: Path) -> None:
        from filelock import FileLock  # it loads asyncio, which a look at the history does not need

        self._lock = FileLock(file, thread_local=False, mode=0o600)

    def try_acquire(self) -> bool:
        from filelock import Timeout

        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        self._lock.release()
