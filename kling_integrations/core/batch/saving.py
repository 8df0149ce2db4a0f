"""A row's video in the folder of its batch: found there, copied, or downloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from ..generation import Generation, Saved
from ..http.async_client import AsyncKlingClient
from ..storage import file_names, saved_files
from ..submission import Entry, State
from .rows import Row

Saver = Callable[[AsyncKlingClient, Row, Generation, Entry | None], Awaitable[tuple[str, Saved]]]
"""Saves the video of a row; where it is now, and what. ``Entry`` is an earlier run's record.

Raises DownloadError.
"""


def save_in(folder: Path) -> Saver:
    """Saves into a folder, under names made of the row's key or prompt and its generation."""

    async def save(
        client: AsyncKlingClient, row: Row, done: Generation, entry: Entry | None
    ) -> tuple[str, Saved]:
        target = folder / file_name(row, done)
        saved = await asyncio.to_thread(_reused, entry, target) if entry else None
        saved = saved or await client.save(done, target, prompt=row.prompt)
        return str(saved.path), saved

    return save


def file_name(row: Row, done: Generation) -> str:
    """``a-red-panda_a248abc5d1e2f304.mp4``"""
    return file_names.default_file_name(row.key or row.prompt, done.id)


def _reused(entry: Entry, target: Path) -> Saved | None:
    """The file of an earlier run, where the record names one that is still as it was."""
    if entry.state is not State.COMPLETED or entry.path is None:
        return None
    if entry.path.parent == target.parent.resolve():
        return saved_files.saved_file(entry, by_size=True)
    return saved_files.reuse(entry, target)
