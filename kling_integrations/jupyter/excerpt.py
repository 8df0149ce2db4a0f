"""A GIF or a small MP4 of a video, which an output or a file holds in full."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ..commands import size
from ..core.storage import safe_files
from .display.markup import base64_text
from .frontend import Bundle


@dataclass(frozen=True, eq=False)
class Excerpt:
    """The bytes of a GIF or an MP4 (``mime``); as a cell's last line it shows itself.

    ``name`` is what it shows, for screen readers; ``width`` that of the display in pixels.
    """

    data: bytes = field(repr=False)
    mime: str
    name: str
    width: int

    def save(self, path: str | Path) -> Path:
        """Writes it to a file, whole or not at all; an existing one is replaced. Raises OSError."""
        return safe_files.write(Path(path).expanduser(), self.data)

    @property
    def html(self) -> str:
        source = f"data:{self.mime};base64,{base64_text(self.data)}"
        style = f"width:100%;max-width:{self.width}px;border-radius:4px"
        name = escape(self.name)
        if self.mime.startswith("image/"):
            return f'<img alt="{name}" style="{style}" src="{source}">'
        return (
            f'<video controls muted playsinline aria-label="{name}" style="{style}" '
            f'src="{source}"></video>'
        )

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        return {"text/html": self.html, "text/plain": repr(self)}, {}

    def __repr__(self) -> str:
        return f"<{self.mime} of {self.name!r}, {size(len(self.data))}>"
