"""Lines of text for logs and terminals: noted by the watcher's thread, shown by the main one."""

from __future__ import annotations

from collections import deque
from typing import Any

from ..frontend import NOTHING, Ui, print_line, publish
from ..job import Job
from .cards import job_line
from .player import caption
from .source import short_path

_MOST_LINES = 1000  # of text that a main thread which never asks leaves behind


class LogLines:
    """What changes, a line each.

    Where there is a card, too, the lines are for the log of a headless run: each is an output of
    its own, which is emptied at the end, so that the saved cell holds the card alone.
    """

    def __init__(self, ui: Ui) -> None:
        self._wanted = ui.lines
        self._passing = ui.has_cards
        self._waiting: deque[str] = deque(maxlen=_MOST_LINES)
        self._last: dict[int, tuple[object, ...]] = {}
        self._shown: list[Any] = []

    def add(self, job: Job, number: int = 1, of: int = 1) -> None:
        """The job's line, if something changed since the last one. Safe from any thread."""
        state = (job.status, job.id, job.note)
        if self._wanted and state != self._last.get(number):
            self._last[number] = state
            self._waiting.append(f"{number}/{of} {text_line(job)}" if of > 1 else text_line(job))

    def show(self, *, over: bool) -> None:
        """All that came in; ``over``: it was the last. Only ever called by the main thread."""
        for _ in range(len(self._waiting)):  # the watcher may add meanwhile
            line = self._waiting.popleft()
            if self._passing:
                self._shown.append(publish(({"text/plain": line}, {}), update_later=True))
            else:
                print_line(line)
        if over:
            for handle in self._shown:
                handle.update(NOTHING[0], raw=True)
            self._shown.clear()


def text_line(job: Job) -> str:
    """A job in one line of a log."""
    if job.video:
        return f"✔ {caption(job.video, reused=job.reused)} · {short_path(job.video.saved_as)}"
    line = job_line(job)
    line += f" · id {job.id}" if job.id else ""
    return f"{line} · {job.note}" if job.note else line
