"""The contact sheet of a batch, out of its table of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequestError, NextStep, Verb
from ..media import contact_sheet
from ..media.contact_sheet import Tile
from ..storage import file_names, safe_files
from . import cells
from .results import result_column

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def make(
    rows: Iterable[Mapping[str, Any]],
    target: Path | None = None,
    *,
    columns: int | None = None,
    width: int | None = None,
    overwrite: bool = False,
) -> Image:
    """The sheet of these rows of results; saved at ``target`` in the format of its name.

    ``width`` in pixels. Raises InvalidRequestError, before any video is read, for a target that is
    neither a .jpg nor a .png, or is a file of the user's own (unless ``overwrite``); for no rows.
    """
    if target is not None:
        _check(target, overwrite)
    sheet = contact_sheet.contact_sheet(tiles(rows), columns=columns, width=width)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        data = contact_sheet.encoded(sheet, _FORMATS[target.suffix.lower()])
        safe_files.write(target, data)
    return sheet


def _check(target: Path, overwrite: bool) -> None:
    if target.suffix.lower() not in _FORMATS:
        raise InvalidRequestError(f"A contact sheet is a .jpg or a .png, not {target.name!r}.")
    file_names.check_file(target)
    is_there = safe_files.is_foreign(target)
    if is_there and not overwrite and not contact_sheet.is_contact_sheet(target):
        raise InvalidRequestError(
            f"{str(target)[:200]!r} exists and was not made here: it is left as it is, and nothing "
            "was done.",
            next_steps=[NextStep(Verb.SET_OUTPUT)],
        )


def tiles(rows: Iterable[Mapping[str, Any]], folder: Path | None = None) -> list[Tile]:
    """A tile for each row: its number and prompt, or what became of it.

    ``rows`` are lines of a results table, as they were read or as they are; ``folder`` is where
    relative paths start.
    """
    made = []
    for number, row in enumerate(rows, 1):
        path = cells.plain_text(_of(row, "path"))
        status = cells.plain_text(_of(row, "status")) or ""
        label = cells.plain_text(_of(row, "row")) or str(number)
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
            return cells.plain_text(value) or ""
    return ""
