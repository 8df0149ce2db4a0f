"""Videos that are on this disk already: found, copied, and kept from being overwritten."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ..errors import InvalidRequestError
from ..generation import Saved
from ..submission import Entry
from . import safe_files
from .file_names import tag_of


def saved_file(entry: Entry | None, *, by_size: bool = False) -> Saved | None:
    """The video's file, where it still is as it was saved; None otherwise.

    Its content is read and compared, once per process and change. ``by_size`` only looks at its
    size, for lists of many.
    """
    if entry is None or entry.path is None:
        return None
    try:
        found = entry.path.stat()
        if found.st_size != entry.size or not stat.S_ISREG(found.st_mode):
            return None
        known = by_size or not entry.sha256
        if not known and _sha256(entry.path, found.st_size, found.st_mtime_ns) != entry.sha256:
            return None
    except (OSError, ValueError):
        return None
    return Saved(entry.path, entry.size or 0, entry.sha256 or "", None)


def is_video_of(path: Path, entry: Entry) -> bool:
    """Whether the file at ``path`` is the video of this record, wherever that was saved.

    Without a checksum in the record only the file that it names is.
    """
    if entry.sha256:
        return has_content(path, entry.sha256)
    return entry.path is not None and saved_file(entry) is not None and entry.path == path.resolve()


def has_content(path: Path, sha256: str) -> bool:
    """Whether the file has this content; False where there is no such file."""
    try:
        found = path.stat()
        regular = stat.S_ISREG(found.st_mode)
        return regular and _sha256(path, found.st_size, found.st_mtime_ns) == sha256
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, changed: int) -> str:
    """Of a file's content; size and time of change (ns) say when it must be read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reuse(entry: Entry | None, target: Path | None) -> Saved | None:
    """The video of an earlier download, also at ``target``: the file itself or a copy of it.

    ``target`` None: wherever it is. None where there is no such file any more, or where the copy
    did not succeed: a download is due then, and says what is wrong with the disk.
    """
    saved = saved_file(entry)
    if saved is None or target is None or is_same_file(saved.path, target):
        return saved
    return replace(saved, path=target) if _copy(saved, target) else None


def is_same_file(one: Path, other: Path) -> bool:
    """Whether both names lead to one file that exists."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def keep_aside(
    target: Path, generation_id: str, others: Iterable[Entry]
) -> tuple[Entry, Path] | None:
    """Moves another paid video out of the way of ``target``.

    ``others`` are the records of the videos saved there. Returns whose it was and where it is
    now, for the record and the user; None where nothing had to move.
    """
    there = [entry for entry in others if is_video_of(target, entry)]
    if any(entry.generation_id == generation_id for entry in there):
        return None
    for entry in there:
        other = entry.generation_id
        if other is None:
            continue
        aside = beside(target, other)
        with suppress(OSError):
            os.replace(target, aside)
            return entry, aside
    return None


def beside(target: Path, generation_id: str) -> Path:
    """``clip_a248abc5d1e2f304.mp4`` for ``clip.mp4``: a name that is this generation's own."""
    return target.with_name(f"{target.stem}_{tag_of(generation_id)}{target.suffix}")


def _copy(source: Saved, target: Path) -> bool:
    """Whether the target is now a copy of the file that was downloaded then."""
    digest = hashlib.sha256()
    try:
        with source.path.open("rb") as original, safe_files.whole_file(target) as file:
            while chunk := original.read(2**20):
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != source.sha256:
                raise OSError("the file has changed")
    except (OSError, InvalidRequestError):
        return False
    return True
