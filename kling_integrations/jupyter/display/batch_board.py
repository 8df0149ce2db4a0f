"""The board of a batch while it runs: counts, expected end, money, the newest pictures.

However many rows there are, it is a few kilobytes. A static line beside it is what a notebook
holds that was saved meanwhile, and becomes the gallery at the end.
"""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any

from ...core.batch.results import RowStatus
from ...core.batch.tally import Tally
from ...core.errors import KlingError
from ...core.progress import clock_time
from ..frontend import TEXT, WIDGET, Bundle, Ui, print_line, publish
from .live_html import LiveHtml
from .markup import AGAIN, BESIDE_WIDGET, SMALL, badge, base64_text, plain_badge

_GO_ON = "Run this cell again to go on; nothing is paid twice."
_REDRAW, _REDRAW_PICTURES = 0.5, 2.0  # seconds at least between two of them
_SAY = 10.0  # seconds between two lines in a log
_SHOWN, _WIDTH = 6, 160  # newest pictures, and their width in pixels
_COLORS = {"done": "#2e9e5b", "failed": "#c0392b", "running": "#3d7edb"}


class Board:
    """``update(tally)`` as often as one likes, from the main thread; ``end()`` takes it away."""

    def __init__(self, ui: Ui, *, sandbox: bool) -> None:
        self._ui = ui
        self._sandbox = sandbox
        self._live: LiveHtml | None = None
        self._card: Any = None
        self._tally = Tally(0)
        self._pictured_at = self._said_at = float("-inf")
        self._posters: dict[str, bytes | None] = {}
        self._pictures = ""
        self._said = ""

    def update(self, tally: Tally, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._ui.lines and (last or now - self._said_at >= _SAY) and tally.line() != self._said:
            self._said, self._said_at = tally.line(), now
            print_line(plain_badge(self._sandbox) + self._said)
        if self._ui.kind == TEXT or last:
            return
        self._tally = tally
        if now - self._pictured_at >= _REDRAW_PICTURES:
            self._pictured_at = now
            self._pictures = self._newest(tally)
        if self._live is None:
            self._card = publish(self._static(), update_later=True)
            self._live = LiveHtml(self._ui, self._html, least=_REDRAW)
            self._live.show(tally.line(), extra=self._pictures)
        else:
            self._live.draw(tally.line(), extra=self._pictures)

    def end(self, bundle: Bundle) -> None:
        """Puts what the batch has come to in its place."""
        words = bundle[0]["text/plain"]
        if self._ui.kind == TEXT:
            print_line(words)
        elif self._live is None:
            publish(bundle)
        else:
            self._live.end(f"<span>{escape(words)}. {AGAIN}</span>", spoken=words)
            self._card.update(bundle[0], raw=True, metadata=bundle[1])

    def _static(self) -> Bundle:
        html = f'<div>{badge(self._sandbox)}<span style="{SMALL}">{_GO_ON}</span></div>'
        html += BESIDE_WIDGET if self._ui.kind == WIDGET else ""
        return {"text/html": html, "text/plain": plain_badge(self._sandbox) + _GO_ON}, {}

    def _newest(self, tally: Tally) -> str:
        """The pictures of the newest rows as HTML; each is read from its video once."""
        shown = [each for each in list(tally.newest)[-_SHOWN:] if each.path]
        known = self._posters
        self._posters = {
            each.row_id: known.get(each.row_id) or thumbnail(each.path, _WIDTH) for each in shown
        }
        pictures = "".join(
            f'<img alt="row {each.row}" title="row {each.row}" width="{_WIDTH}" '
            f'style="border-radius:4px" src="data:image/jpeg;base64,{base64_text(poster)}">'
            for each in shown
            if (poster := self._posters.get(each.row_id))
        )
        return f'<div style="display:flex;gap:6px;flex-wrap:wrap;margin-top:6px">{pictures}</div>'

    def _html(self) -> str:
        tally = self._tally
        inside = "" if self._ui.kind == WIDGET else self._pictures  # a widget has them apart
        return (
            '<div class="kling-board mathjax_ignore" style="max-width:1040px">'
            f"<b>{tally.done:,} of {tally.total:,}</b> done"
            f'{bar(tally)}<div style="{SMALL}">{escape(_facts(tally))}</div>{inside}</div>'
        )


def _facts(tally: Tally) -> str:
    parts = [f"{tally.running:,} running", f"{tally.waiting:,} waiting"]
    if tally.failed:
        parts.append(f"{tally.failed:,} without a video")
    left = tally.left()
    if left is not None:
        parts.append(f"about {clock_time(left)} left")
    # Not as $: between two of them JupyterLab typesets a formula.
    of = "" if tally.max_cost is None else f" of {tally.max_cost:,.2f}"
    parts.append(f"{tally.spent:,.2f}{of} USD spent")
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
