"""The tiles of a batch's contact sheet, out of its table of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..media.contact_sheet import Tile
from . import cells
from .results import result_column
from .rows import plain_text


def tiles(rows: Iterable[Mapping[str, Any]], folder: Path | None = None) -> list[Tile]:
    """A tile for each row: its number and prompt, or what became of it.

    ``rows`` are lines of a results table, as they were read or as they are; ``folder`` is where
    relative paths start.
    """
    made = []
    for number, row in enumerate(rows, 1):
        path, status = plain_text(_of(row, "path")), plain_text(_of(row, "status")) or ""
        label = plain_text(_of(row, "row")) or str(number)
        words = _words(row) if path else status.replace("_", " ")
        where = None if path is None else (folder or Path()) / path
        made.append(Tile(f"{label.removesuffix('.0')} {words}", where))
    return made


def _of(row: Mapping[str, Any], name: str) -> Any:
    """A result column, whatever it had to be called beside the table's own."""
    column = result_column(row, name)
    return None if column is None else row[column]


def _words(row: Mapping[str, Any]) -> str:
    for name, value in row.items():
        if cells.folded(str(name)) in ("key", "prompt", "text", "name", "title"):
            return plain_text(value) or ""
    return ""
