"""One process at a time for one request, within a machine: both ledgers take it before a POST."""

from __future__ import annotations

from pathlib import Path

from ..errors import LedgerUnreachableError, NextStep, Verb


class RequestLock:
    """Held by one process while it decides about a request and posts it.

    The lock is the operating system's, so it falls with its holder.
    """

    def __init__(self, file: Path) -> None:
        from filelock import FileLock  # it loads asyncio, which a look at the history does not need

        self._lock = FileLock(file, thread_local=False, mode=0o600)

    def try_acquire(self) -> bool:
        """Raises LedgerError where the lock's file cannot be made, or its disk has no locks."""
        from filelock import Timeout

        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            raise LedgerUnreachableError(
                f"The lock {self._lock.lock_file} cannot be taken: {error}.",
                hint="It keeps two processes from paying for the same video, so nothing is "
                "submitted without it.",
                next_steps=[NextStep(Verb.SET_HOME)],
            ) from error
        return True

    def release(self) -> None:
        self._lock.release()
