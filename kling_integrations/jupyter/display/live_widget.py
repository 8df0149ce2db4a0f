"""The widget of what moves in a cell. One ES module (``live.js``) runs it in every notebook.

Only imported where a widget is shown: ``%load_ext`` must not pay for anywidget and ipywidgets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

_HERE = Path(__file__).parent


class LiveWidget(anywidget.AnyWidget):
    """HTML with clocks that go on by themselves, and a button.

    ``extra`` is HTML that changes rarely, ``spoken`` what a screen reader says, ``live`` whether
    the clocks go, ``sent`` when the kernel last spoke: the page counts no further without it.
    """

    _esm = (_HERE / "live.js").read_text("utf-8")
    _css = (_HERE / "live.css").read_text("utf-8")
    html = traitlets.Unicode().tag(sync=True)
    extra = traitlets.Unicode().tag(sync=True)
    button = traitlets.Unicode().tag(sync=True)
    button_title = traitlets.Unicode().tag(sync=True)
    spoken = traitlets.Unicode().tag(sync=True)
    live = traitlets.Bool(True).tag(sync=True)
    sent = traitlets.Float().tag(sync=True)

    def say(self, **changes: Any) -> None:
        """Sends what has changed, as one message."""
        with self.hold_sync():
            for name, value in changes.items():
                setattr(self, name, value)
            self.sent = time.time()

    def on_press(self, pressed: Callable[[str], None]) -> None:
        """Calls ``pressed(label)``, in whatever thread the page's message arrives in."""

        def received(_: Any, message: Any, __: Any) -> None:
            if isinstance(message, dict) and isinstance(message.get("pressed"), str):
                pressed(message["pressed"])

        self.on_msg(received)

    def play(self, video: bytes, name: str, width: int) -> None:
        """Shows a player. Its bytes are in no state, and so in no saved notebook."""
        self.send({"video": name, "width": width}, [video])
