"""Rows that cannot be submitted, or cannot be meant, and how they are named. No I/O.

A video is paid for, so what is left of a missing value, of a header or of a template is no prompt
until it is said to be.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import catalog
from ..validation import is_missing_text, placeholders
from . import cells
from .results import Result, RowStatus

_ALIKE = 4  # rows with the same trouble, from which on they are one line
_NUMBERED = re.compile(r" \(\d+\)$")  # the second column of the same name
_FIRST_FRAMES = ("image", "image_url")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be submitted. ``row`` counts from 1; ``column`` is empty where unknown.

    ``line`` is where the row begins in its file, ``index`` what a DataFrame calls it; None where it
    has none. ``literal``: it could be meant, and be taken as it is.
    """

    row: int
    column: str
    reason: str
    line: int | None = None
    index: str | None = None
    literal: bool = False

    def __str__(self) -> str:
        where = ""
        if self.index is not None:
            where = f" (index {self.index})"
        elif self.line not in (None, self.row):
            where = f" (line {self.line})"
        return f"row {self.row}{self._what}{where}"

    def result(self) -> Result:
        """The result of the row: it was refused."""
        refused = Result(self.row, "", RowStatus.REFUSED)
        reason = f"{self.column}: {self.reason}" if self.column else self.reason
        refused.end(RowStatus.REFUSED, "input", reason)
        return refused

    @property
    def _what(self) -> str:
        return f"{f', {self.column}' if self.column else ''}: {self.reason}"


def listed(problems: Sequence[Problem], most: int) -> list[str]:
    """A line for each, those with the same trouble together, and at most so many lines."""
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.column, problem.reason), []).append(problem)
    lines: list[str] = []
    for group in alike.values():
        if len(group) < _ALIKE:
            lines += map(str, group)
        else:
            some = ", ".join(str(each.row) for each in group[: _ALIKE - 1])
            more = f" and {len(group) - _ALIKE + 1:,} more"
            lines.append(f"rows {some}{more}{group[0]._what}")
    if len(lines) > most:
        lines[most:] = [f"… and {len(lines) - most:,} more"]
    return lines


class Meant:
    """Whether the cells of a table can be meant. ``columns``: where each parameter is.

    ``names`` are all columns of the table; ``templates`` the parameters whose texts are filled in
    for each row. With ``raw`` whatever a cell says is meant. Every check raises BadCellError.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        columns: Mapping[str, str],
        templates: Collection[str],
        raw: bool,
    ) -> None:
        self._names = names
        self._columns = columns
        self._templates = templates
        self._raw = raw
        self._picture = _picture_column(records, columns)

    def check_header(self, record: Mapping[str, Any]) -> None:
        """Tables that were put one after the other have the header among their rows."""
        column = self._columns.get("prompt")
        if column is None or self._raw:
            return
        said = {name: cell for name, cell in record.items() if not cells.is_blank(cell)}
        if column in said and all(
            isinstance(cell, str) and cell.strip() == _NUMBERED.sub("", name)
            for name, cell in said.items()
        ):
            raise cells.BadCellError(column, "it repeats the header of the table", literal=True)

    def check_text(self, text: str, column: str) -> None:
        """For a prompt, or a key."""
        if not self._raw and is_missing_text(text):
            reason = f"{text.strip()!r} is what is left of a missing value"
            raise cells.BadCellError(column, reason, literal=True)

    def check(self, record: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        """The texts of a row's request, and the picture that it may have lost."""
        if self._raw:
            return
        for name in ("prompt", "negative_prompt"):
            text, column = parameters.get(name), self._columns.get(name)
            if not isinstance(text, str):
                continue
            self.check_text(text, column or name)
            is_own = column is not None and not cells.is_blank(record.get(column))
            found = placeholders(text, self._names)
            if found and (is_own or name not in self._templates):
                reason = f"nothing has filled in {', '.join(found[:3])}"
                raise cells.BadCellError(column or name, reason, literal=True)
        lost = self._picture and cells.is_blank(record.get(self._picture))
        if lost and not parameters.keys() & {*_FIRST_FRAMES} and self._may_have_picture(record):
            reason = "it is blank, where other rows have a picture"
            raise cells.BadCellError(self._picture or "", reason, literal=True)

    def _may_have_picture(self, record: Mapping[str, Any]) -> bool:
        """Unless the row names a model of its own that makes videos of text alone."""
        column = self._columns.get("model")
        model = cells.plain_text(record.get(column)) if column else None
        known = catalog.candidates(model) if model else ()
        return not known or any("image_url" in each.parameters for each in known)


def _picture_column(records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str | None:
    """The column of first frames, where any row has one: a blank cell in it is a picture lost."""
    for column in (columns.get(name) for name in _FIRST_FRAMES):
        if column and any(not cells.is_blank(each.get(column)) for each in records):
            return column
    return None
