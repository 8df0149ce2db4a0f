"""A file while it is incomplete: beside its target, private, hashed, gone unless it is finished."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from ..errors import DownloadError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed: a lock of its own kind
    fcntl = None  # type: ignore[assignment]

HEAD = 12  # bytes that tell a video from anything else
# Up to here, beyond every documented video, a file is on the disk before it gets its name. With
# a larger one a busy disk could hold up the caller for a long while: that is left to the system.
_WAIT_FOR_DISK = 2**26

_BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx styp udta uuid meta pdin emsg prft".split()
)


class PartialFile:
    """What is there so far; ``error`` words the trouble that the disk makes.

    It is locked while it is written, so that the next success can tell the leftovers of a killed
    run, which hold no lock, from the work of a live one.
    """

    def __init__(self, target: Path, error: Callable[[str], DownloadError]) -> None:
        self.target = target
        self.size = 0
        self.head = b""
        self._error = error
        self._sha = hashlib.sha256()
        self._prefix = f".{target.name.encode()[:150].decode(errors='ignore')}."
        self._path = Path()
        self._file: FileIO | None = None
        self._mode = 0o600

    def open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with self._disk():
            while self._file is None:
                path = self.target.with_name(f"{self._prefix}{secrets.token_hex(8)}.part")
                # Made as the finished file will be, which applies the umask without touching it
                # (it belongs to the whole process); private from the first byte on.
                self._file = FileIO(os.open(path, flags, 0o644), "r+")
                self._path = path
                self._mode = stat.S_IMODE(os.fstat(self._file.fileno()).st_mode)
                self._set_mode(0o600)
                _lock(self._file)
                if os.fstat(self._file.fileno()).st_nlink == 0:
                    self._file.close()  # swept away by another run before the lock was held
                    self._file = None

    def append(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        with self._disk():
            while rest:
                rest = rest[self._opened.write(rest) :]
        if len(self.head) < HEAD:
            self.head = (self.head + chunk[:HEAD])[:HEAD]
        self._sha.update(chunk)  # some 0.8 ms a megabyte: a thread for it would gain nothing
        self.size += len(chunk)

    def restart(self) -> None:
        if not self.size:
            return
        with self._disk():
            self._opened.seek(0)
            self._opened.truncate()
        self._sha = hashlib.sha256()
        self.size, self.head = 0, b""

    @property
    def looks_like_video(self) -> bool:
        """MP4 and QuickTime (a known first box), or WebM and Matroska (the EBML mark)."""
        return self.head[4:8] in _BOXES or self.head.startswith(b"\x1a\x45\xdf\xa3")

    def boxes_are_whole(self) -> bool | None:
        """Whether the MP4's outermost boxes end where the file ends; None where they do not tell.

        Each box begins with its length (32 bits, or 1 and 64 bits after the type) and its type
        (ISO/IEC 14496-12, section 4.2).
        """
        seen = set()
        offset = 0
        with self._disk():
            while offset + 8 <= self.size:
                self._opened.seek(offset)
                header = self._opened.read(16)
                length, kind = int.from_bytes(header[:4], "big"), header[4:8]
                if length == 1 and len(header) == 16:
                    length = int.from_bytes(header[8:], "big")
                elif length == 0:
                    length = self.size - offset
                if kind not in _BOXES or length < 8:
                    return None
                seen.add(kind)
                offset += length
            self._opened.seek(self.size)
        return offset == self.size and b"moov" in seen

    def finish(self, *, overwrite: bool) -> str:
        """Put the file in place; returns its SHA-256. Leftovers of killed runs go with it."""
        digest = self._sha.hexdigest()
        with self._disk():
            if self.size <= _WAIT_FOR_DISK:
                os.fsync(self._opened.fileno())
            self._set_mode(self._mode)
            if os.name == "nt":
                self._opened.close()  # an open file cannot be renamed there
            if overwrite:
                os.replace(self._path, self.target)
            else:
                self._move_without_overwriting()
            _sweep(self.target.parent, self._prefix)
        return digest

    def _move_without_overwriting(self) -> None:
        with contextlib.suppress(OSError):
            os.link(self._path, self.target)  # fails if the target exists, in one step
            return
        if os.path.lexists(self.target):
            raise self._error(f"{self.target} exists already")
        os.replace(self._path, self.target)  # a file system without hard links

    def discard(self) -> None:
        """Close; remove what was not finished."""
        if self._file is not None:
            self._file.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # after `finish` there is no such name any more

    @property
    def _opened(self) -> FileIO:
        assert self._file is not None
        return self._file

    def _set_mode(self, mode: int) -> None:
        with contextlib.suppress(OSError):  # some mounts know no permissions
            os.chmod(self._path, mode)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as trouble:  # ValueError: a NUL in the name
            problem = getattr(trouble, "strerror", None) or str(trouble)
        else:
            return
        raise self._error(f"the disk refuses {self.target}: {problem}")


def _lock(file: FileIO) -> None:
    if fcntl:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)


# Folders of thousands of videos, and how many more are saved there before the next look.
_LARGE, _SKIPPED = 1000, 200
_skipping: dict[Path, int] = {}


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what killed runs left of the same target; what is locked belongs to a live one.

    In a folder of a batch with thousands of videos only now and then: to list it takes longer than
    to save one.
    """
    left = _skipping.pop(folder, 0)
    if left:
        _skipping[folder] = left - 1
        return
    with contextlib.suppress(OSError):
        names = os.listdir(folder)
        if len(names) > _LARGE:
            _skipping[folder] = _SKIPPED
        for name in names:
            # The cheap look first: a batch has thousands of videos in one folder.
            if not name.startswith(prefix):
                continue
            if not re.fullmatch(r"[0-9a-f]{16}\.part", name.removeprefix(prefix)):
                continue
            path = folder / name
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(OSError), open(path, "rb+") as leftover:
                    if fcntl:
                        fcntl.flock(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    else:
                        leftover.close()
                    path.unlink()
