"""Records as files in a folder, on one's own disk or on one that several machines share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..records import checked, dump, load, unreachable

_ENDING = ".json"


class FolderRecords:
    """A file per record below ``folder``, which is made with the first one.

    A file appears under its name by a hard link, which exactly one of several processes can make,
    over NFS too; where a disk has no links, by exclusive creation.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

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
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
        # As the umask says, not private: colleagues share it. KLING_HOME itself is private.
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(dump(value))
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part


def _linked(part: Path, file: Path) -> bool:
    try:
        os.link(part, file)
    except FileExistsError:
        # Over NFS the reply to a link that was made can be lost, and its repetition fails.
        return os.path.samefile(part, file)
    except OSError:  # a disk without links, or one that refuses all: creating tells which
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
