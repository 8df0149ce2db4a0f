"""Where a video goes: names that are readable, harmless and unique."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ..errors import DownloadError, NextStep, Verb

_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv")


def resolve_target(
    target: str | os.PathLike[str] | None,
    *,
    file_name: str | None,
    generation_id: str,
    prompt: str | None = None,
) -> Path:
    """The file to save to, its folder made. ``target`` is a file or a folder.

    A folder is what exists as one or ends in a slash; None is the current one. In a folder, the
    server's ``file_name`` is made safe and distinguished from the same name of another generation
    by a short tag of ``generation_id``, so that the same generation always has the same name;
    without a ``file_name`` the ``prompt`` names the file. Raises DownloadError when the folder
    cannot be made.
    """
    named = os.fspath(target) if target is not None else "."
    folder = named.endswith(tuple(filter(None, ("/", os.sep, os.altsep))))
    try:
        path = Path(named).expanduser()
        if folder or os.path.isdir(path):
            path = path / _file_name(file_name, generation_id, prompt)
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RuntimeError) as trouble:  # a NUL in the name, an unknown user
        raise DownloadError(
            f"The folder of {named!r} cannot be made: "
            f"{getattr(trouble, 'strerror', None) or trouble}.",
            generation_id=generation_id,
            hint="The video is kept.",
            next_steps=[NextStep(Verb.DOWNLOAD, generation_id)],
        ) from None
    return path


def _file_name(server_says: str | None, generation_id: str, prompt: str | None) -> str:
    fallback = default_file_name(prompt, generation_id)
    if not server_says or not server_says.strip():
        return fallback
    stem, suffix = os.path.splitext(safe_file_name(server_says, fallback))
    if suffix.lower() not in _SUFFIXES:
        suffix = ".mp4"  # whatever a server calls it, a video must not become a page or a script
    stem = stem.encode()[:200].decode(errors="ignore")  # names end at 255 bytes, not characters
    tag = hashlib.sha256(generation_id.encode()).hexdigest()[:8]
    return f"{stem}{suffix}" if stem.endswith(f"_{tag}") else f"{stem}_{tag}{suffix}"


def safe_file_name(name: str, fallback: str = "video.mp4") -> str:
    """Any text as one harmless file name: no folders, no leading dot or dash."""
    name = re.split(r"[/\\]", name.replace("\0", ""))[-1]
    name = re.sub(r"[^\w.()+ -]+", "_", name).strip(" .-_")
    stem, dot, suffix = name.rpartition(".")
    name = f"{stem[:100]}{dot}{suffix[:10]}" if dot else name[:100]
    reserved = {"con", "prn", "aux", "nul"}
    return fallback if not name or name.split(".")[0].lower() in reserved else name


def default_file_name(prompt: str | None, generation_id: str) -> str:
    """``a-white-raccoon-running_a248abc5.mp4``: readable, and unique by the id's hash."""
    slug = "-".join(re.findall(r"\w+", (prompt or "video").lower()))[:40].strip("-")
    tag = hashlib.sha256(generation_id.encode()).hexdigest()[:8]
    return safe_file_name(f"{slug or 'video'}_{tag}.mp4")
