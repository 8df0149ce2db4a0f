"""HTML that is redrawn while something runs, and leaves nothing behind.

As a widget its clocks go on by themselves, so that it is sent when something has changed, else once
in a while; and it goes on after a reload of the page, where updates of displays are lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..frontend import NOTHING, WIDGET, Ui, publish, publish_widget
from .markup import BEAT


class LiveHtml:
    """One such display. ``html()`` draws it; ``least`` is real seconds between two drawings."""

    def __init__(self, ui: Ui, html: Callable[[], str], *, least: float) -> None:
        self._html = html
        self._least = least
        self._handle: Any = None
        self._key: object = None
        self._drawn_at = float("-inf")
        self.widget: Any = None
        if ui.kind == WIDGET:
            from .live_widget import LiveWidget

            self.widget = LiveWidget()

    def show(self, key: object = None, **more: Any) -> None:
        """Displays it in the running cell. ``key`` and ``more`` are those of ``draw``."""
        if self.widget is not None:
            self.draw(key, **more)
            self._handle = publish_widget(self.widget)
        else:
            self._handle = publish(self._bundle(), update_later=True)

    def draw(self, key: object, **more: Any) -> None:
        """Draws it again where that is due: its ``key`` has changed, or time has passed.

        ``more`` are further traits of the widget, which HTML has not.
        """
        now = time.monotonic()
        passed = now - self._drawn_at
        pause = BEAT if self.widget is not None and key == self._key else self._least
        if passed < pause:
            return
        self._drawn_at, self._key = now, key
        if self.widget is not None:
            self.widget.say(html=self._html(), **more)
        else:
            self._handle.update(self._bundle()[0], raw=True)

    def end(self, html: str = "", **more: Any) -> None:
        """Takes it away. ``html`` and ``more`` stay where that does not arrive: after a reload."""
        if self.widget is not None:
            self.widget.say(**{"html": html, "extra": "", "button": "", **more, "live": False})
        if self._handle is not None:
            self._handle.update(NOTHING[0], raw=True)

    def _bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"text/html": self._html(), "text/plain": ""}, {}
