"""What a cell shows while its job runs: a card that is updated, a live strip, lines of text.

The card is static and updated through its display id. The strip is an ipywidget, which survives a
page reload, where the card's updates are lost; at its end it offers the player, and is then taken
away by an update that only arrives where the card's updates do.
"""

from __future__ import annotations

import threading
import time
from html import escape
from typing import Any

from ...core.errors import InvalidRequestError
from ..errors import lines_of
from ..frontend import HTML, NOTHING, TEXT, WIDGET, Bundle, choose_ui, publish, widgets
from ..job import Job
from ..options import options
from .cards import SIGNS, job_card
from .log_lines import LogLines
from .markup import progress_bar
from .player import caption

_REDRAW = 0.2  # seconds between two redraws of a strip in which nothing changed


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
        if self._ui.has_cards and not self._is_refused:
            self._drawn = self._key()
            self._card = publish(self._bundle(), update_later=True)
            # A button only works while the kernel is free, so only in the background.
            if self._ui.kind == WIDGET and not self.job.done() and not self._ui.lines:
                self._strip = Strip(self.job, button=self._background)
        self.job.listen(self.update)
        self.update(self.job)  # what happened since

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
        return job_card(
            self.job,
            bar=self._bar,
            with_time=self._bar,
            embed=self._embed,
            width=self._width,
        )

    def show_news(self) -> None:
        """What is new and only the cell's own thread can show: lines of text, all in marimo."""
        over = self.job.done()
        if self._ui.own_thread:
            with self._lock:
                self._draw()
        self._text.show(over=over)


class LiveHtml:
    """HTML that is redrawn while something runs, and leaves nothing behind.

    As a widget it goes on after a reload of the page, where updates of displays are lost.
    """

    def __init__(self, html: str, *, widget: bool) -> None:
        self._widget = widgets().HTML(html) if widget else None
        self._handle = publish(
            _view(self._widget) if widget else ({"text/html": html, "text/plain": ""}, {}),
            update_later=True,
        )

    def draw(self, html: str) -> None:
        if self._widget is not None:
            self._widget.value = html
        else:
            self._handle.update({"text/html": html, "text/plain": ""}, raw=True)

    def end(self) -> None:
        """Takes it away; what a reloaded page still shows is empty."""
        if self._widget is not None:
            self._widget.value = ""
        self._handle.update(NOTHING[0], raw=True)


def _view(widget: Any) -> Bundle:
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    data = {"application/vnd.jupyter.widget-view+json": view, "text/plain": "(live progress)"}
    return data, {}


class Strip:
    """State, elapsed, expected and a bar; for background jobs a button."""

    def __init__(self, job: Job, *, button: bool) -> None:
        self._job = job
        self._widgets = widgets()
        self._over = False
        layout = self._widgets.Layout
        self._text = self._widgets.HTML()
        children = [self._text]
        if button:
            stop = self._widgets.Button(
                description="Stop waiting",
                icon="stop",
                tooltip="The generation goes on at the gateway: there is no cancel",
                layout=layout(width="auto"),
            )
            # Runs in whatever thread the frontend's message arrives in: it only sets an event.
            stop.on_click(lambda _: job.stop_waiting())
            children.append(stop)
        self._box = self._widgets.HBox(children, layout=layout(align_items="center"))
        self._drawn_at = 0.0
        self._drawn: tuple[object, ...] = ()
        self._handle = publish(_view(self._box), update_later=True)
        self.update()

    def update(self) -> None:
        if self._over:
            return
        job = self._job
        if job.status.is_over:
            self._end()
            return
        now, key = time.monotonic(), (job.status, job.note)
        if key == self._drawn and now - self._drawn_at < _REDRAW:
            return
        self._drawn_at, self._drawn = now, key
        words = " · ".join(filter(None, (job.status, job.pace, job.note)))
        self._text.value = (
            f'{progress_bar(job.fraction, "Progress")}<span style="margin:0 8px">'
            f"{escape(words)}</span>"
        )

    def _end(self) -> None:
        """Leaves what is right after a reload, then takes it away where that can be done."""
        self._over = True
        job = self._job
        if job.video:
            load = self._widgets.Button(
                description="Load player", icon="play", layout=self._widgets.Layout(width="auto")
            )
            load.on_click(self._load)
            self._text.value = f'<span style="margin:0 8px">✔ {escape(caption(job.video))}</span>'
            self._box.children = [self._text, load]
        else:
            first = lines_of(job.error)[0] if job.error else job.status
            self._text.value = f"{SIGNS[job.status]} {escape(first)}"
            self._box.children = [self._text]
        self._handle.update(NOTHING[0], raw=True)

    def _load(self, _: Any) -> None:
        video = self._job.video
        if video is not None:
            player = self._widgets.Video.from_file(
                str(video.path), autoplay=False, loop=False, width=str(options().width)
            )
            self._box.children = [player]
