"""The console of ``%kling``: everything to stdout, tables as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..commands import Console, columns, one_line
from ..core.errors import NextStep
from .display.source import short_path
from .frontend import Bundle, publish
from .hints import hint
from .options import notebook

_CELL_STYLE = "text-align:left;padding:2px 8px"
_LONGEST_WORD = 24  # characters that a narrow column does not break
_ID_STYLE = (
    "font-family:monospace;white-space:nowrap;cursor:copy;color:inherit;background:none;"
    "border:1px solid #8886;border-radius:3px;padding:0 4px"
)
_SHORT_ID = 8  # characters


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

    def short_id(self, generation_id: str | None) -> str:
        return _Id(generation_id or "")

    def short_path(self, path: Path) -> str:
        return short_path(path)

    def table(self, rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
        if not self._html:
            super().table(rows, headers)
            return
        publish(table(rows, headers))


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> Bundle:
    """A table for a page, and as text, without the columns that are empty."""
    used = [number for number in range(len(headers)) if any(row[number] for row in rows)]
    rows = [[row[number] for number in used] for row in rows]
    headers = [headers[number] for number in used]
    head = "".join(f'<th style="{_CELL_STYLE}">{escape(name)}</th>' for name in headers)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    html = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return {"text/html": html, "text/plain": "\n".join(columns(rows, headers))}, {}


class _Id(str):
    """A generation's id in a table: in full for text, short for a page."""

    __slots__ = ()

    def html(self) -> str:
        """Its beginning, which all commands take; a click copies the whole, where the notebook is
        trusted, and its title shows it."""
        short = f"{self[:_SHORT_ID]}…" if len(self) > _SHORT_ID else str(self)
        script = (
            "navigator.clipboard.writeText(this.title);"
            "this.textContent='copied';setTimeout(()=>this.textContent=this.dataset.short,900)"
        )
        return (
            f'<button type="button" title="{escape(self)}" data-short="{escape(short)}" '
            f'aria-label="Copy the id {escape(self)}" onclick="{script}" style="{_ID_STYLE}">'
            f"{escape(short)}</button>"
        )


def _cell(value: object) -> str:
    if isinstance(value, _Id) and value:
        return f'<td style="{_CELL_STYLE}">{value.html()}</td>'
    text = one_line("" if value is None else str(value), 300)
    long = max(map(len, text.split()), default=0) > _LONGEST_WORD
    style = f"{_CELL_STYLE};overflow-wrap:anywhere;min-width:12em" if long else _CELL_STYLE
    return f'<td style="{style}">{escape(text)}</td>'
