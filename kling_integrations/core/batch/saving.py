"""A row's video in the folder of its batch: found there, copied, or downloaded."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..generation import Generation, Saved
from ..http.async_client import AsyncKlingClient
from ..storage import file_names, saved_files
from ..submission import Entry, State
from .rows import Row


async def save(
    client: AsyncKlingClient, folder: Path, row: Row, done: Generation, entry: Entry | None
) -> Saved:
    """The video as a file that is named after the row's key or prompt, and its generation.

    ``entry`` is the record of an earlier run. Raises DownloadError.
    """
    target = folder / file_names.default_file_name(row.key or row.prompt, done.id)
    saved = await asyncio.to_thread(_reused, entry, target) if entry else None
    return saved or await client.save(done, target, prompt=row.prompt)


def _reused(entry: Entry | None, target: Path) -> Saved | None:
    """The file of an earlier run, where the record names one that is still as it was."""
    if entry is None or entry.state is not State.COMPLETED or entry.path is None:
        return None
    if entry.path.parent == target.parent.resolve():
        return saved_files.saved_file(entry, by_size=True)
    return saved_files.reuse(entry, target)
