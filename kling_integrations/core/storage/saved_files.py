"""Videos that are on this disk already: found, copied, and kept from being overwritten."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import InvalidRequestError
from ..generation import Saved
from ..submission import Entry
from . import safe_files


def saved_file(entry: Entry | None) -> Saved | None:
    """The video's file, where it still is as it was saved; None otherwise."""
    if entry is None or entry.path is None:
        return None
    try:
        if entry.path.stat().st_size != entry.size:
            return None
    except OSError:
        return None
    return Saved(entry.path, entry.size or 0, entry.sha256 or "", None)


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
    for entry in others:
        other = entry.generation_id
        if other is None or other == generation_id or saved_file(entry) is None:
            continue
        tag = hashlib.sha256(other.encode()).hexdigest()[:8]
        aside = target.with_name(f"{target.stem}_{tag}{target.suffix}")
        with suppress(OSError):
            os.replace(target, aside)
            return entry, aside
    return None


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
