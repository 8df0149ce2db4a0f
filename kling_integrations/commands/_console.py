"""What a command needs of the surface it runs on: a terminal, a pipe, a notebook."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..core.errors import NextStep
from ..core.progress import Progress
from ._hints import hint
from ._text import clean, columns, one_line

if TYPE_CHECKING:
    from ..core.batch.tally import Tally
    from ..core.http.base import OnUpdate
    from ..core.settings import Clock

_SHORT_ID = 8  # characters
_FIRST_COUNT, _COUNT_EVERY = 1.0, 5.0  # seconds to the first line about a batch, and between two
_REPEAT_AFTER = 30.0  # seconds after which an unchanged progress line is printed again


class Console:
    """Plain lines: the answer goes to ``out``, everything else to ``err``.

    With ``as_json`` only ``result`` writes to ``out``. Terminal and notebook override what they
    can show better.
    """

    program = "kling"
    """How the user calls the command; a notebook has ``%kling``."""

    width: int | None = None
    """Columns of a table; None: as wide as it gets."""

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool = False) -> None:
        self.out = out
        self.err = err
        self.as_json = as_json
        self._printed: tuple[object, ...] = ()
        self._printed_at = 0.0
        self._tally: Tally | None = None
        self._counted, self._count_again, self._bad_rows = (0, 0), 0.0, 0

    # --- words -----------------------------------------------------------------------------

    def command(self, words: str) -> str:
        """``kling jobs``: a command as the user types it."""
        return f"{self.program} {words}"

    def hint(self, step: NextStep) -> str:
        """A next step as a sentence, with the command as the user types it."""
        return hint(step, self.program)

    def short_id(self, generation_id: str | None) -> str:
        """An id for a table: where width is scarce, its beginning, which all commands take."""
        return (generation_id or "")[: None if self.width is None else _SHORT_ID]

    def short_path(self, path: Path) -> str:
        """A file for a table: where width is scarce, without the current folder."""
        short = self.width is not None and path.is_relative_to(Path.cwd())
        return str(path.relative_to(Path.cwd()) if short else path)

    # --- output ----------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """What the user should know while or beside the answer."""
        # A wait must not end because its reader is gone, its terminal closed or a disk full.
        with suppress(OSError, ValueError):
            _write(self.err, text)

    def say(self, text: str) -> None:
        """The answer, or a part of it: a path, an id, a sentence."""
        if self.as_json:
            Console.note(self, text)
        else:
            _write(self.out, text)

    def facts(self, pairs: Iterable[tuple[str, object]]) -> None:
        """An answer as names and values, a line each, without the values that are empty."""
        known = [(name, one_line(str(value))) for name, value in pairs if value not in (None, "")]
        widest = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            self.say(f"{name:<{widest}}  {value}")

    def table(self, rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
        """An answer in rows, without the columns that are empty."""
        used = [number for number in range(len(headers)) if any(row[number] for row in rows)]
        for line in columns(
            [[row[number] for number in used] for row in rows],
            [headers[number] for number in used],
            self.width,
        ):
            self.say(line)

    def result(self, answer: dict[str, Any]) -> None:
        """The answer for a program: once per command, plain JSON values."""
        if self.as_json:
            _write(self.out, json.dumps(answer))

    # --- what takes time -------------------------------------------------------------------

    def progress(self, progress: Progress) -> None:
        """How a wait stands, at each change."""
        if progress.status.is_terminal:
            return  # the result follows
        now = time.monotonic()
        note = progress.note or (self._printed[-1] if progress.id in self._printed else "")
        state = (progress.id, progress.status, note)
        if state != self._printed or now - self._printed_at >= _REPEAT_AFTER:
            self._printed, self._printed_at = state, now
            self.note(str(progress))

    def submitting(self) -> AbstractContextManager[None]:
        """Surrounds a submit, which may take a minute and must not be cut short lightly."""
        return nullcontext()

    def watching(self, clock: Clock) -> AbstractContextManager[OnUpdate]:
        """Surrounds a wait; gives the function that takes its Progress."""
        return nullcontext(self.progress)

    def counting(self) -> AbstractContextManager[Callable[[Tally], None]]:
        """Surrounds a batch; gives the function that takes its Tally after each change."""
        return nullcontext(self.tally)

    def tally(self, tally: Tally) -> None:
        """How a batch stands: each row without a video at once, the counts in ``count``."""
        self.bad_rows(tally)
        self._tally = tally

    def count(self) -> None:
        """Notes how the batch stands, once in a while; called again and again meanwhile."""
        tally, now = self._tally, time.monotonic()
        if tally is None:
            return
        state = (tally.ended.total(), tally.running)
        if not self._count_again:  # by then the first ones are submitted
            self._count_again = now + _FIRST_COUNT
        elif state != self._counted and now >= self._count_again:
            self._counted, self._count_again = state, now + _COUNT_EVERY
            self.note(tally.line())

    def bad_rows(self, tally: Tally) -> None:
        """Notes the rows that have ended without a video since the last call."""
        new = tally.failed - self._bad_rows
        self._bad_rows = tally.failed
        for result in list(tally.bad)[-new:] if 0 < new <= len(tally.bad) else ():
            if result.error_kind not in ("budget", "stopped", "interrupted"):
                self.note(
                    f"row {result.row}: {result.status} ({result.error_kind}): {result.error}"
                )

    def transfer(self, received: int, total: int | None) -> None:
        """Bytes of a download so far; ``total`` is None where it is unknown."""


def _write(stream: TextIO, text: str) -> None:
    stream.write(clean(text) + "\n")
    stream.flush()
