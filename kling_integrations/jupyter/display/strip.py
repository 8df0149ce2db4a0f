"""The live strip of one job: state, elapsed, expected, a bar and a button."""

from __future__ import annotations

from html import escape
from typing import Any

from ...commands import one_line
from ...core.errors import InvalidRequestError
from ..errors import lines_of
from ..frontend import Ui
from ..job import Job
from ..options import options
from ..video import KlingVideo
from .cards import SIGNS
from .live_html import LiveHtml
from .markup import BEAT, SMALL, badge, base64_text, clock, code_id, progress_bar, prompt_html
from .player import caption

STOP, LOAD = "Stop waiting", "Load player"
_REDRAW = 0.2  # real seconds at least between two drawings


class Strip:
    """State, elapsed, expected and a bar; for background jobs a button."""

    def __init__(self, job: Job, ui: Ui, *, button: bool, alone: bool = False) -> None:
        """``alone``: no card beside it says what the job is, or shows its picture at the end."""
        self._job = job
        self._alone = alone
        self._over = False
        self._button = STOP if button else ""
        self._live = LiveHtml(ui, self._html, least=_REDRAW)
        self.widget = self._live.widget
        self.widget.on_press(self._pressed)

    def show(self) -> None:
        """Displays it in the running cell."""
        self._live.show(self._key(), **self._traits())
        self.update()

    def begin(self) -> None:
        """Draws it, where something else displays its widget."""
        self._live.draw(self._key(), **self._traits())
        self.update()

    def update(self) -> None:
        if self._over:
            return
        if self._job.status.is_over:
            self._end()
        else:
            self._live.draw(self._key(), **self._traits())

    def _key(self) -> object:
        job = self._job
        return (job.status, job.note, job.id, round(job.expected or 0))

    def _traits(self) -> dict[str, Any]:
        there_is_no_cancel = "The generation goes on at the gateway: there is no cancel"
        return {
            "button": self._button,
            "button_title": there_is_no_cancel if self._button else "",
            "spoken": str(self._job.status),
        }

    def _html(self) -> str:
        job = self._job
        words = " · ".join(filter(None, (escape(job.status), pace(job), escape(job.note))))
        bar = progress_bar(job.fraction, "Progress", job.fraction_in(BEAT))
        return f'{self._about()}{bar}<span style="margin:0 8px">{words}</span>'

    def _about(self) -> str:
        if not self._alone:
            return ""
        job = self._job
        which = f'<div style="{SMALL}">{code_id(job.id)}</div>' if job.id else ""
        return f"{prompt_html(job.prompt, badge(job.sandbox))}{which}"

    def _end(self) -> None:
        """Leaves what is right after a reload, then takes it away where that can be done."""
        self._over = True
        job = self._job
        if job.video:
            words, button = f"✔ {escape(caption(job.video))}", LOAD
        else:
            first = lines_of(job.error)[0] if job.error else job.status
            words, button = f"{SIGNS[job.status]} {escape(first)}", ""
        self._live.end(
            f"{self._about()}<span>{words}</span>",
            extra=self._picture() if self._alone else "",
            button=button,
            button_title="",
            spoken=str(job.status),
        )

    def _picture(self) -> str:
        video = self._job.video
        if video is None or not video.poster:
            return ""
        return (
            f'<img alt="" style="width:100%;max-width:{options().width}px;border-radius:4px" '
            f'src="data:image/jpeg;base64,{base64_text(video.poster)}">'
        )

    def _pressed(self, label: str) -> None:
        """In whatever thread the page's message arrives in: stopping only sets an event."""
        if label == STOP:
            self._job.stop_waiting()
        elif label == LOAD and self._job.video:
            self._play(self._job.video)

    def _play(self, video: KlingVideo) -> None:
        try:
            data = video.path.read_bytes()
        except (InvalidRequestError, OSError) as error:  # another video must not be shown for it
            self.widget.say(html=f"<span>✖ {escape(str(error))}</span>", button="")
            return
        self.widget.play(data, one_line(video.prompt, 200) or f"Video {video.id}", options().width)


def pace(job: Job) -> str:
    """``0:42 of about 2:50`` as HTML that goes on by itself."""
    if not job.pace or not job.speed or job.expected is None:
        return escape(job.pace)
    return clock(job.pace, elapsed=job.elapsed, expected=job.expected, speed=job.speed)
