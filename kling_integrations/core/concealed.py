"""Text that must not be shown: a key, and an address whose signature opens a video.

Both are ordinary text to whatever sends them. Only their ``repr`` differs, which is what tracebacks
with local variables, debuggers and containers show.
"""

from __future__ import annotations

from .generation import without_query


class Secret(str):
    """A key, or a header that holds one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<concealed>"


class SignedUrl(str):
    """An address whose query string may be a signature."""

    __slots__ = ()

    def __repr__(self) -> str:
        try:
            return repr(without_query(self))
        except ValueError:
            return "<unreadable address>"


def secret(text: str | None) -> Secret | None:
    """``text`` as a Secret; None for None."""
    return None if text is None else Secret(text)
