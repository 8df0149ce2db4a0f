"""Several jobs in one cell: one grid that fills up, and a board above it while they run."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from html import escape
from typing import Any

from ...core.errors import InvalidRequestError
from ..frontend import NOTHING, Bundle, choose_ui, publish, showing
from ..job import Job
from .board import Board
from .grid import Cell, grid, total_line
from .live_html import LiveHtml
from .log_lines import LogLines
from .markup import AGAIN, BESIDE_WIDGET

_REDRAW = 0.8  # seconds between two redraws: each job calls for one every second
_MOST_BYTES = 1_000_000  # a second: a grid of 100 videos has megabytes


class GridView:
    """The board goes on by itself, the grid is drawn when a state has changed: each time, its
    players start afresh. A large grid is drawn the less often, and at the end in any case."""

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        prompt: str | None,
        embed: str | None = None,
        width: int | None = None,
    ) -> None:
        """``prompt`` is what all share: the same words, or the pattern of them."""
        self._cells = cells
        self._prompt = prompt
        self._embed, self._width = embed, width
        self._ui = choose_ui()
        self._handle: Any = None
        self._drawn: tuple[object, ...] = ()
        self._board: Board | None = None
        self._live: LiveHtml | None = None
        self._grid_at = 0.0  # when it is due again, monotonic
        self._text = LogLines(self._ui)
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Shows the jobs and follows them."""
        with showing():
            self._begin()
        for job in self._jobs:
            job.listen(self.update)
        with showing():
            self.update()

    def _begin(self) -> None:
        if self._ui.has_cards and not self._is_refused:
            if not self._ui.lines and not all(job.done() for job in self._jobs):
                self._board = Board(self._cells)
                self._live = LiveHtml(self._ui, self._board.html, least=_REDRAW)
                self._live.show(self._board.key)
            self._drawn = self._key()
            self._handle = publish(self._bundle(), update_later=True)

    @property
    def _jobs(self) -> list[Job]:
        return [cell.job for cell in self._cells if cell.job]

    def update(self, _: Job | None = None) -> None:
        """Called by the watcher's thread."""
        with self._lock:
            for number, job in enumerate(self._jobs, 1):
                self._text.add(job, number, len(self._cells))
            if not self._ui.own_thread:
                self._draw()

    def _draw(self) -> None:
        self._draw_board()
        key, now = self._key(), time.monotonic()
        over = all(job.status.is_over for job in self._jobs)
        if self._handle is None or key == self._drawn or (now < self._grid_at and not over):
            return
        self._drawn = key
        data, metadata = self._bundle()
        size = sum(len(each) for each in data.values())
        self._grid_at = now + max(_REDRAW, size / _MOST_BYTES)
        self._handle.update(data, raw=True, metadata=metadata)

    def _draw_board(self) -> None:
        if self._board is None or self._live is None:
            return
        if self._board.is_over:
            words = f"{total_line(self._cells)}. {AGAIN}"
            self._live.end(f"<span>{escape(words)}</span>", spoken=words)
            self._live = None
        else:
            self._live.draw(self._board.key)

    def _key(self) -> tuple[object, ...]:
        return tuple((job.status, job.id) for job in self._jobs)

    @property
    def _is_refused(self) -> bool:
        """Whether none was taken: the cell's error says why, and no grid repeats it."""
        return all(
            isinstance(job.error, InvalidRequestError) and job.id is None for job in self._jobs
        )

    def _bundle(self) -> Bundle:
        if self._is_refused:
            return NOTHING
        data, metadata = grid(
            self._cells,
            prompt=self._prompt,
            total=total_line(self._cells),
            embed=self._embed,
            width=self._width,
        )
        if self._live is not None and self._live.widget is not None:
            data["text/html"] += BESIDE_WIDGET
        return data, metadata

    def show_news(self) -> None:
        """As that of JobView."""
        over = all(job.done() for job in self._jobs)
        if self._ui.own_thread:
            with self._lock:
                self._draw()
        self._text.show(over=over)
