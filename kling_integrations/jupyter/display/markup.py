"""Pieces of HTML and text that all displays share. Every word of others is escaped here."""

from __future__ import annotations

import base64
import json
from html import escape

from ...commands import one_line
from ...core import catalog

BEAT = 10.0  # real seconds between two messages to a live widget when only time has passed
AGAIN = "Run this cell again to see them; nothing is paid again."  # after a reload of the page
SMALL = "font-size:.85em;opacity:.75"
ID_STYLE = "font-size:.9em;overflow-wrap:anywhere;background:none;padding:0"

# In a notebook that was saved meanwhile the widget is dead: JupyterLab puts an error in its place.
# What stands beside it says how to go on, and hides that; a live widget has elements in it.
BESIDE_WIDGET = (
    '<style class="kling-beside">.jp-OutputArea:has(.kling-beside) '
    ".jupyter-widgets:not(:has(*)){display:none}</style>"
)

_BADGE = (
    '<b style="background:#f5b301;color:#000;border-radius:3px;padding:0 5px;'
    'font-size:.85em;letter-spacing:.04em">SANDBOX</b> '
)


def badge(sandbox: bool) -> str:
    """The mark of what is not real; empty for what is."""
    return _BADGE if sandbox else ""


def plain_badge(sandbox: bool) -> str:
    """The same for text."""
    return "[SANDBOX] " if sandbox else ""


def progress_bar(fraction: float, name: str, later: float | None = None) -> str:
    """A bar that is filled as far as ``fraction``; screen readers call it ``name``.

    In a live widget it moves by itself, to ``later`` by the time of the next beat.
    """
    moves = "" if later is None else f' data-next="{later * 100:.2f}" data-in="{BEAT:g}"'
    return (
        f'<progress aria-label="{escape(name)}" max="100" value="{fraction * 100:.0f}"{moves} '
        'style="width:200px;vertical-align:middle"></progress>'
    )


def clock(words: str, **facts: float) -> str:
    """Words with a time in them. In a live widget they go on by themselves, in the same words:
    ``live.js`` says how, and which ``facts`` it takes."""
    rounded = {name: round(value, 1) for name, value in facts.items()}
    return f'<span data-clock="{escape(json.dumps(rounded))}">{escape(words)}</span>'


def code_id(generation_id: str) -> str:
    """A generation's id, to be copied."""
    return f'id <code style="{ID_STYLE}">{escape(generation_id)}</code>'


def prompt_html(prompt: str | None, badge: str = "") -> str:
    """A prompt in one line, in full behind its beginning where it is long."""
    if not prompt:
        return badge
    short = one_line(prompt, 160)
    text = f'<div dir="auto" style="overflow-wrap:anywhere">{badge}{escape(short)}</div>'
    if short == " ".join(prompt.split()):
        return text
    return (
        '<details dir="auto" style="overflow-wrap:anywhere">'
        f"<summary>{badge}{escape(short)}</summary>"
        f'<div style="white-space:pre-wrap">{escape(prompt)}</div></details>'
    )


def short_model(model: str) -> str:
    """The alias of a documented model, else its id."""
    known = catalog.candidates(model)
    return known[0].alias if len(known) == 1 else model


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()
