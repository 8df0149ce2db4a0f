"""Records as files in a folder, on one's own disk or on one that several machines share."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import LedgerError, warn
from ..records import checked, dump, load, unreachable
from . import probes
from .sqlite_file import may_be_of_others

_ENDING = ".json"


class FolderRecords:
    """A file per record below ``folder``, which is made with the first one.

    A file appears under its name by a hard link, which exactly one of several processes can make,
    over NFS too; where a disk of this machine has no links, by exclusive creation. A mount without
    links that other machines may have, too, is refused: there that holds within one mount only.

    What is made below gets the mode and the group of ``folder`` where that is one of several users.
    ``shared``: it is meant for colleagues; where they would be locked out a warning says so.
    """

    def __init__(self, folder: str | Path, *, shared: bool = False) -> None:
        self.folder = Path(folder)
        self._shared = shared

    def __str__(self) -> str:
        return str(self.folder)

    def read(self, name: str) -> dict[str, Any] | None:
        file = self._file(name)
        try:
            stored = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreachable(str(self), error) from error
        return load(stored, str(file))

    def read_many(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        values = ((name, self.read(name)) for name in names)
        return {name: value for name, value in values if value is not None}

    def create(self, name: str, value: Mapping[str, Any]) -> bool:
        file = self._file(name)
        try:
            # First what is there: who may only read picks up what a colleague has paid for.
            if os.path.lexists(file):
                return False
            if self._shared:
                self._warn_of_a_private_folder()
            part = self._written(file, value)
            try:
                return _linked(part, file)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise unreachable(str(self), error) from error

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        file = self._file(name)
        try:
            part = self._written(file, value)
            try:
                part.replace(file)
                _sync(file.parent)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise unreachable(str(self), error) from error

    def names(self, prefix: str = "") -> dict[str, str]:
        found: dict[str, str] = {}
        start = self.folder / prefix.rpartition("/")[0]
        try:
            folders = [start]
            while folders:
                folder = folders.pop()
                with suppress(FileNotFoundError), os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir():
                            folders.append(Path(entry.path))
                        elif entry.name.endswith(_ENDING) and not entry.name.startswith("."):
                            name = Path(entry.path).relative_to(self.folder).as_posix()
                            found[name.removesuffix(_ENDING)] = _version(entry)
        except OSError as error:
            raise unreachable(str(self), error) from error
        return {
            name: found[name] for name in sorted(found) if name.startswith(prefix) and found[name]
        }

    def _file(self, name: str) -> Path:
        return self.folder / f"{checked(name)}{_ENDING}"

    def _written(self, file: Path, value: Mapping[str, Any]) -> Path:
        """The value on the disk under a name of its own: a reader never sees a part of it."""
        several = self._of_several()
        _make(file.parent, several)
        part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
        # As the umask says, not private: colleagues share it. KLING_HOME itself is private.
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        _share(part, several, stat.S_IMODE(several.st_mode) & 0o666 if several else 0)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(dump(value))
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part

    def _of_several(self) -> os.stat_result | None:
        """The folder that says how colleagues share what is below; None where it is one user's.

        That is the folder itself, else the nearest one above with the mark of a group (setgid).
        """
        for folder in (self.folder, *self.folder.parents):
            try:
                found = folder.stat()
            except FileNotFoundError:
                continue
            own = folder == self.folder and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            return found if own or found.st_mode & stat.S_ISGID else None
        return None

    def _warn_of_a_private_folder(self) -> None:
        """Once a month on a machine, before the first payment."""
        key = probes.key_of(str(self.folder))
        if os.name == "nt" or probes.was_tried(key):
            return
        probes.remember(key, str(self.folder))
        if self._of_several() is None:
            warn(
                f"Records in {self.folder} can be written by this user alone. For colleagues of a "
                "group, make that folder theirs before it is used (chgrp, then mode 2770)."
            )


def _make(folder: Path, several: os.stat_result | None) -> None:
    """Makes a folder and those above it, each shared as the records' own is."""
    if folder.is_dir():
        return
    _make(folder.parent, several)
    try:
        folder.mkdir()
    except FileExistsError:
        return
    _share(folder, several, stat.S_IMODE(several.st_mode) & ~stat.S_ISVTX if several else 0)


def _share(path: Path, several: os.stat_result | None, mode: int) -> None:
    if several is None:
        return
    with suppress(OSError):  # a group that this user is not in, a disk without modes
        if path.stat().st_gid != several.st_gid:
            os.chown(path, -1, several.st_gid)
    with suppress(OSError):
        path.chmod(mode)


def _linked(part: Path, file: Path) -> bool:
    try:
        os.link(part, file)
    except FileExistsError:
        # Over NFS the reply to a link that was made can be lost, and its repetition fails.
        return os.path.samefile(part, file)
    except OSError as error:  # no links, or a disk that refuses all: creating tells which
        if kind := may_be_of_others(file):
            raise LedgerError(
                f"Records cannot be kept in {file.parent}: it is on a mount ({kind}) without "
                f"hard links ({error.strerror}), where two machines could each create the same "
                "record and pay for the same video. Nothing was submitted.",
                hint="A bucket is named by its own address (s3://, gs://, abfs://).",
            ) from None
        return _created(part, file)
    _sync(file.parent)
    return True


def _created(part: Path, file: Path) -> bool:
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as stream:
        stream.write(part.read_bytes())
        stream.flush()
        os.fsync(stream.fileno())
    _sync(file.parent)
    return True


def _sync(folder: Path) -> None:
    """Makes a new name survive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _version(entry: os.DirEntry[str]) -> str:
    try:
        stat = entry.stat()
    except FileNotFoundError:
        return ""
    return f"{stat.st_mtime_ns:x}-{stat.st_ino:x}-{stat.st_size:x}"
