"""Text for a terminal: harmless, in columns, and figures as people read them."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Sequence

from ..core import cost

# They reverse the direction of everything that follows on the line.
_DIRECTION_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str) -> str:
    """Text without control characters: a prompt or a server's message must not steer the terminal.

    What joins emoji or marks the direction of a word stays.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if char in _DIRECTION_OVERRIDES
        or (char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs"))
        else char
        for char in text
    )


def one_line(text: str | None, most: int | None = None) -> str:
    """Any text in one line, of at most ``most`` columns."""
    return cut(" ".join(clean(text or "").split()), most)


def cut(line: str, most: int | None) -> str:
    """A line that fits into ``most`` columns, with an ellipsis where it did not."""
    if most is None or display_width(line) <= most:
        return line
    kept, used = [], 0
    for char in line:
        used += display_width(char)
        if used > most - 1:
            break
        kept.append(char)
    return "".join(kept).rstrip() + "…"


def display_width(text: str) -> int:
    """Columns of a terminal: East Asian characters and emoji take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(char) or char in "\u200d\ufe0f"
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )


def columns(
    rows: Sequence[Sequence[object]],
    headers: Sequence[str] | None = None,
    width: int | None = None,
) -> list[str]:
    """Rows as aligned lines, the headers first; figures to the right.

    A line longer than ``width`` columns is cut at its end.
    """
    cells = [[one_line("" if cell is None else str(cell)) for cell in row] for row in rows]
    table = [list(headers), *cells] if headers else cells
    widths = [max(map(display_width, column)) for column in zip(*table, strict=True)]
    figures = [
        all(re.fullmatch(r"[$\d.,:]*", cell) for cell in column)
        for column in zip(*cells, strict=True)
    ] or [False] * len(widths)
    lines = []
    for row in table:
        parts = []
        for cell, column_width, to_right in zip(row, widths, figures, strict=True):
            padding = " " * (column_width - display_width(cell))
            parts.append(padding + cell if to_right else cell + padding)
        lines.append(cut("  ".join(parts).rstrip(), width))
    return lines


def money(usd: float | None) -> str:
    """``$0.50``, or ``$0.0294`` below ten cents; empty when unknown."""
    return "" if usd is None else cost.dollars(usd)


def size(count: int | None) -> str:
    """Bytes as ``343 kB`` or ``12.3 MB``; empty when unknown."""
    if count is None:
        return ""
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def iso_time(moment: float) -> str:
    """Unix seconds as ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
