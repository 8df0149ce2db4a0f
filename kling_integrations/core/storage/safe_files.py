"""Writing files that belong to the user: whole or not at all, and never into something else.

Every file that this package writes for a user goes through here or through ``partial_file``: beside
its target under a random name, private until it is whole, then renamed. A link at the target is
replaced and not written through; a folder, a pipe, a socket or a device is refused.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidRequestError, NextStep, Verb


def check_target(target: Path) -> None:
    """Raises InvalidRequestError where no file can be put, before anything is paid."""
    try:
        mode = target.lstat().st_mode
        if stat.S_ISLNK(mode):  # replaced, unless it stands for something else than a file
            mode = target.stat().st_mode
    except (OSError, ValueError):
        return  # nothing is there, or writing will say what is wrong with the name
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise _refused(target, f"it is {kind}")


def is_foreign(target: Path) -> bool:
    """Whether something is at the target already."""
    return os.path.lexists(target)


@contextlib.contextmanager
def whole_file(target: Path, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """A file to write to, which becomes ``target`` when the block ends without an error.

    Raises InvalidRequestError for a target that is no place for a file, or, unless ``overwrite``,
    exists; OSError from the disk. Nothing half-written stays.
    """
    check_target(target)
    if not overwrite and is_foreign(target):
        raise _refused(target, "it exists already")
    name = f".{target.name.encode()[:150].decode(errors='ignore')}.{secrets.token_hex(8)}.part"
    part = target.with_name(name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    # Made as the finished file will be, which applies the umask; private until it is whole.
    with os.fdopen(os.open(part, flags, 0o644), "wb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        try:
            with contextlib.suppress(OSError):  # some mounts know no permissions
                os.chmod(part, 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(OSError):
                os.chmod(part, mode)
            if overwrite:
                os.replace(part, target)
            else:
                os.link(part, target)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part)


def write(target: Path, data: bytes, *, overwrite: bool = True) -> Path:
    """``whole_file`` for content that is at hand; returns the target."""
    with whole_file(target, overwrite=overwrite) as file:
        file.write(data)
    return target


def copy(source: Path, target: Path, *, overwrite: bool = True) -> Path:
    """A copy of a file at ``target``; the file itself where both are one. Returns the target."""
    with contextlib.suppress(OSError):
        if source.samefile(target) and not target.is_symlink():
            return target
    with source.open("rb") as original, whole_file(target, overwrite=overwrite) as file:
        shutil.copyfileobj(original, file, 2**20)
    return target


def _refused(target: Path, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{str(target)[:200]!r} is no place for a file: {why}.",
        next_steps=[NextStep(Verb.SET_OUTPUT)],
    )
