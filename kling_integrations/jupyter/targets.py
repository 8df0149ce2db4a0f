"""Where a video of the notebook goes: named, checked before it is paid for, cleared at the end.

Two things are never replaced: a file of the user's own (unless asked to), and the only copy of
another paid video, which moves aside and stays known to its record.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..commands import is_foreign, refused
from ..core import settings
from ..core.errors import DownloadError, InvalidRequestError, LedgerError, NextStep, Verb
from ..core.generation import Saved
from ..core.storage import file_names, safe_files, saved_files
from ..core.storage.file_names import SEPARATORS, default_file_name
from ..core.storage.ledger import Ledger
from ..core.storage.target_lock import TargetLock, resolved


@dataclass(frozen=True)
class Target:
    """A file or a folder as a cell names it; ``file`` None is the folder of the options.

    ``folder`` is that of the notebook, ``output_dir`` the folder in it where nothing is named.
    ``file`` may hold {slug}, {id}, {date} and {take}. ``overwrite`` lets it replace a file of the
    user's own.
    """

    folder: Path
    output_dir: str
    file: str | None = None
    overwrite: bool = False

    def path(self, prompt: str | None, generation_id: str, take: int) -> Path:
        """The file of one generation: as the user named it, else readable and unique."""
        name = default_file_name(prompt, generation_id)
        if not self.file:
            return self.folder / self.output_dir / name
        stem, _, tag = name.removesuffix(".mp4").rpartition("_")
        fields = {
            "{slug}": stem,
            "{id}": tag,
            "{date}": time.strftime("%Y%m%d"),
            "{take}": str(take),
        }
        file = self.file
        for field, value in fields.items():
            file = file.replace(field, value)
        target = self.folder / Path(file).expanduser()
        if file.endswith(SEPARATORS) or target.is_dir():
            return target / name
        return target if target.suffix else target.with_suffix(".mp4")

    def file_before(self, prompt: str | None, take: int, generation_id: str | None) -> Path | None:
        """The file, where it is known before the generation: None for a folder, and where the
        name holds the id of one that is not there yet."""
        if not self.file:
            return None
        path = self.path(prompt, generation_id or "-", take)
        if generation_id is None and path != self.path(prompt, "--", take):
            return None
        return path

    def check(
        self, ledger: Ledger, prompt: str | None, take: int, generation_id: str | None
    ) -> None:
        """Raises InvalidRequestError where the video cannot go, before anything is paid.

        ``generation_id`` is that of the request's earlier generation, where it has one. A name
        that holds the id is free until there is one.
        """
        try:
            path = self.path(prompt, generation_id or "-", take)
            if "\0" in str(path):
                raise ValueError("it holds a NUL character")
            str(path).encode()
            is_free = self.file_before(prompt, take, generation_id) is None
        except (OSError, ValueError, RuntimeError) as error:  # no Unicode, an unknown user
            raise InvalidRequestError(
                f"{str(self.file)[:200]!r} cannot name a file: {error}. Nothing was submitted.",
                next_steps=[NextStep(Verb.SET_OUTPUT)],
            ) from None
        file_names.check_folder(path.parent)
        if not self.file or is_free:
            return
        safe_files.check_target(path)
        if not self.overwrite and is_foreign(ledger, path, generation_id):
            raise refused(path)

    def clear(self, ledger: Ledger, path: Path, generation_id: str) -> tuple[Path, str]:
        """Makes room at ``path``; where the video goes then, and what the user should know.

        Another paid video moves aside. A file of the user's own that came there after the check is
        left as it is: the video gets a name beside it. Raises DownloadError when the folder cannot
        be made.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DownloadError(
                f"The folder {path.parent} cannot be made: {error.strerror}.",
                generation_id=generation_id,
                hint="The video is kept.",
                next_steps=[NextStep(Verb.SET_OUTPUT)],
            ) from None
        if not self.file or not safe_files.is_foreign(path):
            return path, ""
        own = saved_files.beside(path, generation_id)
        try:
            if not self.overwrite and is_foreign(ledger, path, generation_id):
                return own, f"{path} exists by now and was not made here: the video is in {own}"
            moved = saved_files.keep_aside(path, generation_id, ledger.at(path))
        except LedgerError as error:  # whose file it is cannot be known: it stays
            return own, f"{error.message} {path} is left as it is: the video is in {own}"
        if moved is None:
            return path, ""
        entry, aside = moved
        saved = Saved(aside, entry.size or 0, entry.sha256 or "", None)
        with suppress(LedgerError):
            ledger.saved(entry.base_url, entry.generation_id or "", saved)
        return path, f"{path} was the video of another generation: kept as {aside}"


class Reservations:
    """The files that the jobs of this process are going to write, each held against other ones.

    Jobs of one process may name the same file: the videos of all are kept, the last one there. A
    shell, or another notebook, that names it meanwhile is refused before anything is paid, unless
    it makes the same video.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[Path, tuple[TargetLock, int]] = {}

    def take(self, path: Path, *names: str) -> Reservation:
        """Holds the file for one job more. ``names`` are those of its video.

        Raises InvalidRequestError where another process is going to write the file.
        """
        path = resolved(path)
        with self._guard:
            lock, count = self._held.get(path, (None, 0))
            if lock is None:
                lock = TargetLock(settings.home(), path)
                lock.acquire(*names)
            else:
                lock.add(*names)
            if lock.is_held:
                self._held[path] = (lock, count + 1)
        return Reservation(self, lock)

    def give_back(self, lock: TargetLock) -> None:
        """One job less needs it."""
        with self._guard:
            held, count = self._held.get(lock.target, (None, 0))
            if held is not lock:
                return
            if count > 1:
                self._held[lock.target] = (lock, count - 1)
            else:
                del self._held[lock.target]
                lock.release()


class Reservation:
    """One job's part of it."""

    def __init__(self, of: Reservations, lock: TargetLock) -> None:
        self._of = of
        self._lock: TargetLock | None = lock
        self._named = False

    def name(self, generation_id: str | None) -> None:
        """The video has an id by now, or not yet."""
        if self._lock is not None and generation_id and not self._named:
            self._named = True
            self._lock.add(generation_id)

    def release(self) -> None:
        """The job has ended; without effect the second time."""
        lock, self._lock = self._lock, None
        if lock is not None:
            self._of.give_back(lock)
