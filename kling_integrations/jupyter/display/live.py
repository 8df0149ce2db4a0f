"""What a cell shows while its job runs: a card that is updated, a live strip, lines of text.

The card is static and updated through its display id. The strip is a widget, which survives a
page reload, where the card's updates are lost; at its end it offers the player, and is then taken
away by an update that only arrives where the card's updates do.
"""

from __future__ import annotations

import threading
from typing import Any

from ...core.errors import InvalidRequestError
from .. import marimo_output
from ..frontend import HTML, NOTHING, TEXT, WIDGET, Bundle, choose_ui, publish, showing
from ..job import Job
from .cards import job_card
from .log_lines import LogLines
from .markup import BESIDE_WIDGET
from .strip import Strip


class JobView:
    """One job in one cell."""

    def __init__(
        self,
        job: Job,
        *,
        background: bool = False,
        embed: str | None = None,
        width: int | None = None,
    ) -> None:
        """``background``: the kernel is free meanwhile, so a button works."""
        self.job = job
        self._ui = choose_ui()
        self._bar = self._ui.kind == HTML and not self._ui.lines
        self._embed, self._width = embed, width
        self._background = background
        self._card: Any = None
        self._drawn: tuple[object, ...] = ()
        self._strip: Strip | None = None
        self._text = LogLines(self._ui)
        self._lock = threading.Lock()

    @property
    def in_text(self) -> bool:
        """Whether lines are all that is shown."""
        return self._ui.kind == TEXT

    def begin(self) -> None:
        """Shows the job and follows it."""
        with showing():
            self._begin()
        self.job.listen(self.update)
        with showing():
            self.update(self.job)  # what happened since

    def _begin(self) -> None:
        if self._ui.has_cards and not self._is_refused:
            self._drawn = self._key()
            self._card = publish(self._bundle(), update_later=True)
            # A button only works while the kernel is free, so only in the background.
            if self._ui.kind == WIDGET and not self.job.done() and not self._ui.lines:
                self._strip = Strip(self.job, self._ui, button=self._background)
                self._strip.show()

    def update(self, job: Job) -> None:
        """Called by the watcher's thread: display ids and widgets only, never print."""
        with self._lock:  # the main thread calls it once: an old card must not come last
            if not self._is_refused:
                self._text.add(job)
            if not self._ui.own_thread:
                self._draw()

    def _draw(self) -> None:
        key = self._key()
        if self._card is not None and key != self._drawn:
            self._drawn = key
            data, metadata = self._bundle()
            self._card.update(data, raw=True, metadata=metadata)
        if self._strip is not None:
            self._strip.update()

    def _key(self) -> tuple[object, ...]:
        """What a card shows that can change; with a bar, something does every second."""
        job = self.job
        time_shown = round(job.elapsed) if self._bar and not job.status.is_over else None
        return (job.status, job.id, job.note, job.detached, time_shown)

    @property
    def _is_refused(self) -> bool:
        """Whether the request was not taken: the cell's error says so, and no card repeats it."""
        error = self.job.error
        return (
            isinstance(error, InvalidRequestError) and self.job.id is None and not self._background
        )

    def _bundle(self) -> Bundle:
        if self._is_refused:
            return NOTHING
        data, metadata = job_card(
            self.job,
            bar=self._bar,
            with_time=self._bar,
            embed=self._embed,
            width=self._width,
        )
        if self._ui.kind == WIDGET and not self.job.status.is_over:
            data["text/html"] += BESIDE_WIDGET
        return data, metadata

    def show_news(self) -> None:
        """What is new and only the cell's own thread can show: lines of text, all in marimo."""
        over = self.job.done()
        if self._ui.own_thread:
            with self._lock:
                self._draw()
        self._text.show(over=over)


def element(job: Job) -> Any:
    """What marimo shows of a job: a widget that goes on in the background, else its card."""
    ui = choose_ui()
    if ui.kind == WIDGET and not job.done():
        strip = Strip(job, ui, button=True, alone=True)
        job.listen(lambda _: strip.update())
        strip.begin()
        return strip.widget
    return marimo_output.html(job_card(job)[0])
