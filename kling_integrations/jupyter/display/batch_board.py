"""The board of a batch while it runs: counts, expected end, money, the newest pictures.

One display, replaced once in a while; however many rows there are, it is a few kilobytes.
"""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any

from ...commands import money
from ...core.batch.results import Result, RowStatus
from ...core.batch.tally import Tally
from ...core.errors import KlingError
from ...core.progress import clock_time
from ..frontend import Bundle, Ui, print_line, publish
from .markup import SMALL, badge, base64_text, plain_badge

_REDRAW, _REDRAW_PICTURES = 0.5, 2.0  # seconds at least between two of them
_SAY = 10.0  # seconds between two lines in a log
_SHOWN, _WIDTH = 6, 160  # newest pictures, and their width in pixels
_COLORS = {"done": "#2e9e5b", "failed": "#c0392b", "running": "#3d7edb"}


class Board:
    """``update(tally)`` as often as one likes, from the main thread; ``end()`` takes it away."""

    def __init__(self, ui: Ui, *, sandbox: bool) -> None:
        self._ui = ui
        self._sandbox = sandbox
        self._handle: Any = None
        self._drawn_at = self._pictured_at = self._said_at = float("-inf")
        self._posters: dict[str, bytes | None] = {}
        self._shown: list[Result] = []
        self._said = ""

    def update(self, tally: Tally, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._ui.lines and (last or now - self._said_at >= _SAY) and tally.line() != self._said:
            self._said, self._said_at = tally.line(), now
            print_line(plain_badge(self._sandbox) + self._said)
        if self._ui.kind == "text" or not (last or now - self._drawn_at >= _REDRAW):
            return
        self._drawn_at = now
        if now - self._pictured_at >= _REDRAW_PICTURES:
            self._pictured_at = now
            self._shown = [each for each in list(tally.newest)[-_SHOWN:] if each.path]
            known = {each.row_id: self._posters.get(each.row_id) for each in self._shown}
            self._posters = {
                each.row_id: known[each.row_id] or thumbnail(each.path, _WIDTH)
                for each in self._shown
            }
        data, metadata = self._bundle(tally)
        if self._handle is None:
            self._handle = publish((data, metadata), update_later=True)
        else:
            self._handle.update(data, raw=True, metadata=metadata)

    def end(self, bundle: Bundle) -> None:
        """Puts what the batch has come to in its place."""
        if self._ui.kind == "text":
            print_line(bundle[0]["text/plain"])
        elif self._handle is None:
            publish(bundle)
        else:
            self._handle.update(bundle[0], raw=True, metadata=bundle[1])

    def _bundle(self, tally: Tally) -> Bundle:
        pictures = "".join(
            f'<img alt="row {each.row}" title="row {each.row}" width="{_WIDTH}" '
            f'style="border-radius:4px" src="data:image/jpeg;base64,{base64_text(poster)}">'
            for each in self._shown
            if (poster := self._posters.get(each.row_id))
        )
        html = (
            f'<div class="kling-board" style="max-width:1040px">{badge(self._sandbox)}'
            f"<b>{tally.done:,} of {tally.total:,}</b> done"
            f'{bar(tally)}<div style="{SMALL}">{escape(_facts(tally))}</div>'
            '<div style="display:flex;gap:6px;flex-wrap:wrap;margin-top:6px">'
            f"{pictures}</div></div>"
        )
        return {"text/html": html, "text/plain": plain_badge(self._sandbox) + tally.line()}, {}


def _facts(tally: Tally) -> str:
    parts = [f"{tally.running:,} running", f"{tally.waiting:,} waiting"]
    if tally.failed:
        parts.append(f"{tally.failed:,} without a video")
    left = tally.left()
    if left is not None:
        parts.append(f"about {clock_time(left)} left")
    of = "" if tally.max_cost is None else f" of {money(tally.max_cost)}"
    parts.append(f"{money(tally.spent)} spent{of}")
    return " · ".join(filter(None, (*parts, tally.note)))


def bar(tally: Tally) -> str:
    """Done, without a video, running, side by side."""
    total = max(1, tally.total)
    parts = {
        "done": tally.done,
        "failed": tally.failed - tally.ended[RowStatus.NOT_SUBMITTED],
        "running": tally.running,
    }
    pieces = "".join(
        f'<div title="{count} {name}" style="width:{100 * count / total:.2f}%;'
        f'background:{_COLORS[name]}"></div>'
        for name, count in parts.items()
        if count > 0
    )
    return (
        '<div style="display:flex;height:10px;border-radius:5px;overflow:hidden;margin:4px 0;'
        f'background:#8883">{pieces}</div>'
    )


def thumbnail(path: str | None, width: int) -> bytes | None:
    """The first picture of a video as a small JPEG; None where there is none to be had."""
    from ...core import media

    try:
        return media.poster(path, width) if path and Path(path).is_file() else None
    except KlingError:
        return None
