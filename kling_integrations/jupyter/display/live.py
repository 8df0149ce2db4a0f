"""The two outputs of a generation: a card that stays, and a live strip that goes away.

The card is static and updated through its display id. The strip is an ipywidget, which survives a
page reload, where the card's updates are lost; at its end it offers the player, and is then taken
away by an update that only arrives where the card's updates do.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from . import cards, grid
from .job import Job, Phase

if TYPE_CHECKING:
    from .session import Session

WIDGET, HTML, TEXT = "widget", "html", "text"


def choose_ui(wish: str, shell: Any) -> tuple[str, bool]:
    """Which display, and whether lines of text go along.

    A kernel that no server started for a notebook is executed headlessly (nbclient, papermill):
    there lines of text make the log, and the card makes the notebook.
    """
    in_kernel = hasattr(shell, "kernel")
    if wish == TEXT or not in_kernel:
        return TEXT, True
    headless = not _has_frontend(shell)
    if wish == "auto":
        wish = HTML if headless or not _widgets() else WIDGET
        return wish, headless
    return (HTML if wish == WIDGET and not _widgets() else wish), False


def _has_frontend(shell: Any) -> bool:
    if os.environ.get("CI"):
        return False
    names = ("JPY_SESSION_NAME", "VOILA_REQUEST_URL", "VSCODE_PID", "COLAB_RELEASE_TAG")
    return any(os.environ.get(name) for name in names) or "__vsc_ipynb_file__" in shell.user_ns


def _widgets() -> Any:
    try:
        import ipywidgets
    except ImportError:
        return None
    return ipywidgets


def publish(bundle: cards.Bundle, *, update_later: bool = False) -> Any:
    """Displays a bundle in the running cell; the handle that updates it, when asked for."""
    from IPython.display import display

    data, metadata = bundle
    show: Any = display  # IPython leaves it untyped
    return show(data, raw=True, metadata=metadata, display_id=update_later or None)


class View:
    """One job in one cell."""

    def __init__(
        self,
        job: Job,
        session: Session,
        *,
        background: bool = False,
        embed: str | None = None,
        width: int | None = None,
    ) -> None:
        """``background``: the kernel is free meanwhile, so a button works."""
        self.job = job
        self._ui, self._talks = choose_ui(session.options.ui, session.shell)
        self._options = {"embed": embed, "width": width}
        self._background = background
        self._card: Any = None
        self._drawn: tuple[object, ...] = ()
        self._strip: Strip | None = None
        self._said: tuple[object, ...] = ()
        self._lines: deque[str] = deque(maxlen=1000)
        self._lock = threading.Lock()

    @property
    def in_text(self) -> bool:
        return self._ui == TEXT

    def begin(self) -> None:
        if self._ui != TEXT:
            self._card = publish(self._bundle(), update_later=True)
            self._drawn = self._key()
            # A button only works while the kernel is free, so only in the background.
            if self._ui == WIDGET and not self.job.done() and not self._talks:
                self._strip = Strip(self.job, button=self._background)
        self.job.listen(self.update)
        self.update(self.job)  # what happened since

    def update(self, job: Job) -> None:
        """Called by the watcher's thread: display ids and widgets only, never print."""
        with self._lock:  # the main thread calls it once: an old card must not come last
            said = (job.status, job.id, job.note)
            if self._talks and said != self._said:
                self._said = said
                self._lines.append(text_line(job))
            key = self._key()
            if self._card is not None and key != self._drawn:
                self._drawn = key
                data, metadata = self._bundle()
                self._card.update(data, raw=True, metadata=metadata)
            if self._strip is not None:
                self._strip.update()

    def _key(self) -> tuple[object, ...]:
        """What a card shows that can change; with a bar, that is every second something."""
        moving = round(self.job.elapsed) if self._ui == HTML and not self._talks else None
        over = self.job.status.is_over
        return (self.job.status, self.job.id, self.job.note, self.job.alone, over or moving)

    def _bundle(self) -> cards.Bundle:
        bar = self._ui == HTML and not self._talks
        return cards.of(self.job, bar=bar, still=not bar, **self._options)  # type: ignore[arg-type]

    def lines(self) -> Sequence[str]:
        """What is new in words, for logs and terminals; asked by the main thread."""
        return drained(self._lines)


def drained(lines: deque[str]) -> list[str]:
    """All that has come in, taken out; the watcher may add meanwhile."""
    return [lines.popleft() for _ in range(len(lines))]


def text_line(job: Job) -> str:
    if job.video:
        return f"✔ {cards.facts(job.video, reused=job.reused)} · {cards.short_path(job.video.path)}"
    line = cards.job_line(job)
    line += f" · id {job.id}" if job.id else ""
    return f"{line} · {job.note}" if job.note else line


class Strip:
    """State, elapsed, expected and a bar; for background jobs a button."""

    def __init__(self, job: Job, *, button: bool) -> None:
        widgets = _widgets()
        self._job = job
        self._widgets = widgets
        self._over = False
        self._bar = widgets.FloatProgress(
            value=0.0, max=1.0, layout=widgets.Layout(width="220px", height="14px")
        )
        self._text = widgets.HTML()
        children = [self._bar, self._text]
        if button:
            self._button = widgets.Button(
                description="Stop waiting",
                icon="stop",
                tooltip="The generation goes on at the gateway: there is no cancel",
                layout=widgets.Layout(width="auto"),
            )
            # Runs in whatever thread the frontend's message arrives in: it only sets an event.
            self._button.on_click(lambda _: job.stop_waiting())
            children.append(self._button)
        else:
            self._button = None
        self._box = widgets.HBox(children, layout=widgets.Layout(align_items="center"))
        self._at = 0.0
        self._shown: tuple[object, ...] = ()
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
        if key == self._shown and now - self._at < 0.2:
            return
        self._at, self._shown = now, key
        self._bar.value = job.fraction
        words = " · ".join(filter(None, (str(job.status), cards.pace(job), job.note)))
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
            words = f"✔ {cards.facts(job.video)}"
            self._text.value = f'<span style="margin:0 8px">{escape(words)}</span>'
            self._bar.value = 1.0
            self._box.children = [self._text, load]
        else:
            first = str(job.error).splitlines()[0] if job.error else str(job.status)
            sign = "■" if job.status is Phase.STOPPED else "✖"
            self._text.value = f"{sign} {escape(first)}"
            self._box.children = [self._text]
        self._handle.update({"text/plain": ""}, raw=True)

    def _load(self, _: Any) -> None:
        video = self._job.video
        if video is not None:
            player = self._widgets.Video.from_file(
                str(video.path), autoplay=False, loop=False, width=str(cards._option("width"))
            )
            self._box.children = [player]


def out(text: str) -> None:
    """A line in the running cell; only ever called by the main thread."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class GridView:
    """Several jobs in one cell: one grid that fills up."""

    def __init__(
        self,
        cells: Sequence[grid.Cell],
        session: Session,
        *,
        prompt: str | None,
        embed: str | None = None,
        width: int | None = None,
    ) -> None:
        """``prompt`` is what all share: the same words, or the pattern of them."""
        self._cells = cells
        self._prompt = prompt
        self._options = {"embed": embed, "width": width}
        self._ui, self._talks = choose_ui(session.options.ui, session.shell)
        self._handle: Any = None
        self._drawn: tuple[object, ...] = ()
        self._said: dict[int, tuple[object, ...]] = {}
        self._lines: deque[str] = deque(maxlen=1000)
        self._lock = threading.Lock()

    def begin(self) -> None:
        if self._ui != TEXT:
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
            self._tell()
            key = self._key()
            if self._handle is None or key == self._drawn:
                return
            self._drawn = key
            data, metadata = self._bundle()
            self._handle.update(data, raw=True, metadata=metadata)

    def _key(self) -> tuple[object, ...]:
        return tuple((job.status, job.id) for job in self._jobs)

    def _bundle(self) -> cards.Bundle:
        total = grid.total_line(self._cells)
        return grid.grid(self._cells, prompt=self._prompt, total=total, **self._options)  # type: ignore[arg-type]

    def _tell(self) -> None:
        for number, job in enumerate(self._jobs, 1):
            said = (job.status, job.id, job.note)
            if self._talks and said != self._said.get(number):
                self._said[number] = said
                self._lines.append(f"{number}/{len(self._jobs)} {text_line(job)}")

    def lines(self) -> Sequence[str]:
        """As those of View."""
        return drained(self._lines)
