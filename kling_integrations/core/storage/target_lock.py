"""One run at a time for one file: the lock of a target, taken before anything is paid for it.

Two runs that are going to write the same file would both pay, and the second video would replace
the first. The lock is the operating system's, so it falls with its holder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from ..errors import InvalidRequestError, LedgerError, NextStep, Verb

_UNDECIDED = 1.0  # real seconds: a holder writes its names right after it took the lock
_INTERVAL = 0.02  # real seconds


def resolved(target: Path) -> Path:
    """The target in one form: symbolic links and ``..`` of its folder are followed.

    A link at the target itself is not: it is replaced and not written through.
    """
    target = target.expanduser()
    return target.parent.resolve() / target.name


class TargetLock:
    """Held by one run from its decision until the file is written.

    ``home`` is the folder of the ledger. Runs that make the same video do not exclude each other:
    they are known by ``names``, the fingerprint of a request and the id of a generation.
    """

    def __init__(self, home: Path, target: Path) -> None:
        from filelock import FileLock  # it loads asyncio, which most commands do not need

        self.target = resolved(target)
        digest = hashlib.sha256(str(self.target).encode(errors="surrogateescape")).hexdigest()
        self._folder = home / "locks"
        self._lock = FileLock(
            self._folder / f"target-{digest[:16]}.lock", thread_local=False, mode=0o600
        )
        # Apart from the lock's own file, which each try to take the lock may empty.
        self._names = self._folder / f"target-{digest[:16]}.json"
        self._held: list[str] = []

    def acquire(self, *names: str) -> None:
        """Takes the lock, or passes it by where the holder makes the video of one of ``names``.

        Without names it is taken for this run alone. Raises InvalidRequestError where another
        run is going to write the file, LedgerError where the folder cannot be written.
        """
        deadline = time.monotonic() + _UNDECIDED
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            same = False
            while not self._take():
                # Looked at twice: the first look may meet the names of a run that was killed.
                before, same = same, bool(set(names) & set(self._holder()))
                if same and before:
                    return
                if time.monotonic() > deadline:
                    raise InvalidRequestError(
                        f"Another run is making a video for {str(self.target)[:200]!r} right now. "
                        "Nothing was done.",
                        next_steps=[NextStep(Verb.SET_OUTPUT)],
                    )
                time.sleep(_INTERVAL)
            self._write(names)
        except OSError as error:
            self.release()
            raise LedgerError(
                f"The ledger's folder cannot be written: {error}.",
                next_steps=[NextStep(Verb.SET_HOME)],
            ) from error

    @property
    def is_held(self) -> bool:
        """Whether this one has it; ``acquire`` may have passed it by."""
        return self._lock.is_locked

    def add(self, *names: str) -> None:
        """Another name of the same video, such as its id once there is one.

        Raises nothing: by then the video is paid for.
        """
        if self.is_held:
            with contextlib.suppress(OSError):
                self._write([*self._held, *names])

    def release(self) -> None:
        """Gives it back; without effect where it is not held."""
        if self.is_held:
            # Otherwise the next holder would go by these names until it has written its own.
            with contextlib.suppress(OSError):
                self._names.unlink(missing_ok=True)
            self._lock.release()

    def _write(self, names: Iterable[str]) -> None:
        self._held = list(names)
        self._names.write_text(json.dumps(self._held), encoding="utf-8")

    def _take(self) -> bool:
        from filelock import Timeout

        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        return True

    def _holder(self) -> list[str]:
        """The names of the run that holds it; empty where they are not written yet."""
        try:
            names = json.loads(self._names.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [str(name) for name in names] if isinstance(names, list) else []
