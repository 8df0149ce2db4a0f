"""The console of ``%kling``: everything to stdout, tables as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape

from ..commands import Console, columns, one_line
from ..core.errors import NextStep
from .frontend import publish
from .hints import hint
from .options import notebook

_CELL_STYLE = "text-align:left;overflow-wrap:anywhere"


class NotebookConsole(Console):
    """What the commands say, in a cell and in the notebook's words."""

    program = "%kling"

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(sys.stdout, sys.stdout, as_json=as_json)
        self._html = hasattr(notebook().shell, "kernel") and not as_json

    def note(self, text: str) -> None:
        if not self.as_json:
            super().note(text)

    def say(self, text: str) -> None:
        if not self.as_json:
            super().say(text)

    def hint(self, step: NextStep) -> str:
        return hint(step)

    def table(self, rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
        if not self._html:
            super().table(rows, headers)
            return
        head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in headers)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        html = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        publish(({"text/html": html, "text/plain": "\n".join(columns(rows, headers))}, {}))


def _cell(value: object) -> str:
    text = one_line("" if value is None else str(value), 300)
    return f'<td style="{_CELL_STYLE}">{escape(text)}</td>'
