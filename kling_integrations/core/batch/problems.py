"""Rows that cannot be submitted, and how they are named. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_ALIKE = 4  # rows with the same trouble, from which on they are one line


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be submitted. ``row`` counts from 1; ``column`` is empty where unknown.

    ``line`` is where the row begins in its file, ``index`` what a DataFrame calls it; None where it
    has none.
    """

    row: int
    column: str
    reason: str
    line: int | None = None
    index: str | None = None

    def __str__(self) -> str:
        where = ""
        if self.index is not None:
            where = f" (index {self.index})"
        elif self.line not in (None, self.row):
            where = f" (line {self.line})"
        return f"row {self.row}{self._what}{where}"

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
