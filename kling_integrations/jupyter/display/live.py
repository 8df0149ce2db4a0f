"""What a cell shows while its jobs run: cards that are updated, a live strip, lines of text.

The card is static and updated through its display id. The strip is an ipywidget, which survives a
page reload, where the card's updates are lost; at its end it offers the player, and is then taken
away by an update that only arrives where the card's updates do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from html import escape
from typing import Any

from ..errors import lines_of
from ..frontend import HTML, TEXT, WIDGET, Bundle, choose_ui, publish, widgets
from ..job import Job
from ..options import options
from .cards import SIGNS, job_card, job_line
from .grid import Cell, grid, total_line
from .player import caption, short_path

_MOST_LINES = 1000  # of text that a main thread which never asks leaves behind
_REDRAW = 0.2  # seconds between two redraws of a strip in which nothing changed


class _Lines:
    """Lines of text from the watcher's thread, to be printed by the main thread."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._waiting: deque[str] = deque(maxlen=_MOST_LINES)
        self._last: dict[int, tuple[object, ...]] = {}

    def add(self, job: Job, number: int = 1, of: int = 1) -> None:
        """The job's line, if something changed since the last one."""
        state = (job.status, job.id, job.note)
        if self._wanted and state != self._last.get(number):
            self._last[number] = state
            self._waiting.append(f"{number}/{of} {text_line(job)}" if of > 1 else text_line(job))

    def take(self) -> list[str]:
        """All that came in; the watcher may add meanwhile."""
        return [self._waiting.popleft() for _ in range(len(self._waiting))]


def text_line(job: Job) -> str:
    """A job in one line of a log."""
    if job.video:
        return f"✔ {caption(job.video, reused=job.reused)} · {short_path(job.video.path)}"
    line = job_line(job)
    line += f" · id {job.id}" if job.id else ""
    return f"{line} · {job.note}" if job.note else line


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
        self._text = _Lines(wanted=self._ui.lines)
        self._lock = threading.Lock()

    @property
    def in_text(self) -> bool:
        """Whether lines are all that is shown."""
        return self._ui.kind == TEXT

    def begin(self) -> None:
        """Shows the job and follows it."""
        if self._ui.kind != TEXT:
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
            self._text.add(job)
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

    def _bundle(self) -> Bundle:
        return job_card(
            self.job,
            bar=self._bar,
            with_time=self._bar,
            embed=self._embed,
            width=self._width,
        )

    def lines(self) -> Sequence[str]:
        """What is new in words, for logs and terminals; asked by the main thread."""
        return self._text.take()


class Strip:
    """State, elapsed, expected and a bar; for background jobs a button."""

    def __init__(self, job: Job, *, button: bool) -> None:
        self._job = job
        self._widgets = widgets()
        self._over = False
        layout = self._widgets.Layout
        self._bar = self._widgets.FloatProgress(
            value=0.0, max=1.0, layout=layout(width="220px", height="14px")
        )
        self._text = self._widgets.HTML()
        children = [self._bar, self._text]
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
        self.update()
        view = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
        bundle = {"application/vnd.jupyter.widget-view+json": view, "text/plain": "(live progress)"}
        self._handle = publish((bundle, {}), update_later=True)

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
        self._bar.value = job.fraction
        words = " · ".join(filter(None, (job.status, job.pace, job.note)))
        self._text.value = f'<span style="margin:0 8px">{escape(words)}</span>'

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
            self._bar.value = 1.0
            self._box.children = [self._text, load]
        else:
            first = lines_of(job.error)[0] if job.error else job.status
            self._text.value = f"{SIGNS[job.status]} {escape(first)}"
            self._box.children = [self._text]
        self._handle.update({"text/plain": ""}, raw=True)

    def _load(self, _: Any) -> None:
        video = self._job.video
        if video is not None:
            player = self._widgets.Video.from_file(
                str(video.path), autoplay=False, loop=False, width=str(options().width)
            )
            self._box.children = [player]


class GridView:
    """Several jobs in one cell: one grid that fills up."""

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
        self._text = _Lines(wanted=self._ui.lines)
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Shows the jobs and follows them."""
        if self._ui.kind != TEXT:
            self._drawn = self._key()
            self._handle = publish(self._bundle(), update_later=True)
        for job in self._jobs:
            job.listen(self.update)
        self.update()

    @property
    def _jobs(self) -> list[Job]:
        return [cell.job for cell in self._cells if cell.job]

    def update(self, _: Job | None = None) -> None:
        """Called by the watcher's thread."""
        with self._lock:
            for number, job in enumerate(self._jobs, 1):
                self._text.add(job, number, len(self._cells))
            key = self._key()
            if self._handle is None or key == self._drawn:
                return
            self._drawn = key
            data, metadata = self._bundle()
            self._handle.update(data, raw=True, metadata=metadata)

    def _key(self) -> tuple[object, ...]:
        return tuple((job.status, job.id) for job in self._jobs)

    def _bundle(self) -> Bundle:
        return grid(
            self._cells,
            prompt=self._prompt,
            total=total_line(self._cells),
            embed=self._embed,
            width=self._width,
        )

    def lines(self) -> Sequence[str]:
        """As those of JobView."""
        return self._text.take()
