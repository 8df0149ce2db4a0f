"""What a command needs of the place it runs in: a terminal, a pipe, a notebook."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from ..core.progress import Progress, clock_time

if TYPE_CHECKING:
    from ..core.settings import Clock

_SHORT_ID = 8  # characters
OnUpdate = Callable[[Progress], object]

_LINE_EVERY = 30.0  # seconds between two progress lines in which nothing changed


class Console:
    """Plain lines: ``say`` and ``table`` answer, on ``out``; everything else is told on ``err``.

    With ``as_json`` only ``result`` reaches ``out``. The terminal and the notebook override what
    they can show better.
    """

    width: int | None = None  # columns of a table; None: as wide as it gets

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool = False) -> None:
        self.out = out
        self.err = err
        self.as_json = as_json
        self._shown: tuple[object, ...] = ()
        self._shown_at = 0.0

    def note(self, text: str) -> None:
        """Something that the user should know while or beside the answer."""
        with suppress(BrokenPipeError):  # a wait must not end because nobody listens
            _write(self.err, text)

    def say(self, text: str) -> None:
        """The answer, or a part of it: a path, an id, a sentence."""
        _write(self.err if self.as_json else self.out, text)

    def table(self, rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
        """An answer in rows, without columns in which nothing stands.

        What does not fit on the screen is cut at the end of the line.
        """
        kept = [place for place in range(len(headers)) if any(row[place] for row in rows)]
        rows = [[row[place] for place in kept] for row in rows]
        for line in columns(rows, [headers[place] for place in kept], self.width):
            self.say(line)

    def short_id(self, generation_id: str | None) -> str:
        """An id for a table: its beginning will do for all commands, where there is little room."""
        return (generation_id or "")[: None if self.width is None else _SHORT_ID]

    def result(self, outcome: dict[str, Any]) -> None:
        """The answer for a program: once per command, plain JSON values."""
        if self.as_json:
            _write(self.out, json.dumps(outcome))

    def progress(self, progress: Progress) -> None:
        """How a wait stands, at each change."""
        if progress.status.is_terminal:
            return  # what comes next tells more
        now = time.monotonic()
        note = progress.note or (self._shown[-1] if progress.id in self._shown else "")
        shown = (progress.id, progress.status, note)
        if shown != self._shown or now - self._shown_at >= _LINE_EVERY:
            self._shown, self._shown_at = shown, now
            self.note(str(progress))

    def submitting(self) -> AbstractContextManager[None]:
        """Surrounds a submit, which may take a minute and must not be cut short lightly."""
        return _nothing()

    def watching(self, clock: Clock) -> AbstractContextManager[OnUpdate]:
        """Surrounds a wait; gives what takes its Progress."""
        return self._watching()

    @contextmanager
    def _watching(self) -> Iterator[OnUpdate]:
        yield self.progress

    def transfer(self, received: int, total: int | None) -> None:
        """Bytes of a download so far."""


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _write(stream: TextIO, text: str) -> None:
    stream.write(clean(text) + "\n")
    stream.flush()


# --- text ------------------------------------------------------------------------------------


# They turn the direction of everything that follows on the line.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str) -> str:
    """Without control characters: words of others must not steer the terminal.

    What joins emoji or marks the direction of a word stays.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if char in _TURNING or (char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs"))
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
    rows: Sequence[Sequence[object]], headers: Sequence[str], width: int | None = None
) -> list[str]:
    """Rows as aligned lines, headers first."""
    cells = [[one_line("" if cell is None else str(cell)) for cell in row] for row in rows]
    table = [list(headers), *cells]
    widths = [max(display_width(row[place]) for row in table) for place in range(len(headers))]
    right = [
        bool(cells) and all(re.fullmatch(r"[$\d.,:]*", row[place]) for row in cells)
        for place in range(len(headers))
    ]
    lines = []
    for row in table:
        parts = []
        for cell, column, to_right in zip(row, widths, right, strict=True):
            room = " " * (column - display_width(cell))
            parts.append(room + cell if to_right else cell + room)
        line = "  ".join(parts).rstrip()
        lines.append(cut(line, width))
    return lines


def money(usd: float | None) -> str:
    """``$0.50``, or ``$0.0294`` below ten cents; empty when unknown."""
    if usd is None:
        return ""
    return f"${usd:.4f}" if 0 < usd < 0.1 else f"${usd:,.2f}"


def size(count: int | None) -> str:
    """``343 kB`` or ``12.3 MB``; empty when unknown."""
    if count is None:
        return ""
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def ago(seconds: float) -> str:
    """``0:42``, ``3 h`` or ``12 d``: how long ago, shortly."""
    if seconds < 3600:
        return clock_time(seconds)
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} d"
