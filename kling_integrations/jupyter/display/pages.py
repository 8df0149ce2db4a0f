"""What a batch has come to: its counts, and its videos in pages that open without a kernel.

A page is a ``<details>``: it needs no script, so it also opens in a notebook that is not trusted.
Pictures stand on the first page only, else thousands of rows would make a notebook of megabytes;
videos are links that load nothing until one is played.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ...commands import money, one_line
from ...core.batch.results import Result, RowStatus
from ..frontend import Bundle
from .batch_board import thumbnail
from .markup import SMALL, badge, base64_text, plain_badge
from .source import short_path, source_of

PER_PAGE = 24
_MOST = 1200  # rows that are shown: more belong into the table
_PICTURE, _PROMPT = 240, 60  # pixels; characters


def gallery(
    results: Sequence[Result],
    prompts: Mapping[int, str | None],
    *,
    page: int = 1,
    per_page: int = PER_PAGE,
    spent: float = 0.0,
    sandbox: bool = False,
) -> Bundle:
    """The rows in pages, the one numbered ``page`` (from 1) open and with pictures."""
    shown = list(results[:_MOST])
    pages = [shown[at : at + per_page] for at in range(0, len(shown), per_page)]
    summary = summary_line(results, spent)
    parts = [_page(each, prompts, is_open=number == page) for number, each in enumerate(pages, 1)]
    if len(results) > _MOST:
        parts.append(f'<div style="{SMALL}">and {len(results) - _MOST:,} more rows</div>')
    html = (
        f'<div class="kling-batch">{badge(sandbox)}<b>{escape(summary)}</b>{"".join(parts)}</div>'
    )
    return {"text/html": html, "text/plain": plain_badge(sandbox) + summary}, {}


def summary_line(results: Sequence[Result], spent: float) -> str:
    """``97 completed · 3 failed · $48.50``."""
    counts = Counter(result.status for result in results)
    order = sorted(counts, key=lambda status: (status != RowStatus.COMPLETED, -counts[status]))
    parts = [f"{counts[status]:,} {status.replace('_', ' ')}" for status in order]
    return " · ".join([*parts, *([money(spent)] if spent else [])])


def _page(results: Sequence[Result], prompts: Mapping[int, str | None], *, is_open: bool) -> str:
    first, last = results[0].row, results[-1].row
    bad = sum(result.status != RowStatus.COMPLETED for result in results)
    without = f", {bad} without a video" if bad else ""
    cells = "".join(_cell(each, prompts.get(each.row), picture=is_open) for each in results)
    return (
        f"<details{' open' if is_open else ''}><summary>rows {first}–{last}{without}</summary>"
        f'<div style="display:grid;grid-template-columns:repeat(auto-fill,{_PICTURE}px);gap:10px;'
        f'margin:6px 0">{cells}</div></details>'
    )


def _cell(result: Result, prompt: str | None, *, picture: bool) -> str:
    words = escape(one_line(prompt or "", _PROMPT))
    if result.path is None:
        why = f"{result.status.replace('_', ' ')}: {result.error_kind or ''}".rstrip(": ")
        body = f'<div title="{escape(one_line(result.error or "", 200))}">{escape(why)}</div>'
    else:
        body = _player(Path(result.path), picture=picture)
    return f'<div>{body}<div style="{SMALL}">{result.row} · {words}</div></div>'


def _player(path: Path, *, picture: bool) -> str:
    source = source_of(path, "never")  # a link, or nothing: the bytes of thousands fit nowhere
    jpeg = thumbnail(str(path), _PICTURE) if picture else None
    poster = f"data:image/jpeg;base64,{base64_text(jpeg)}" if jpeg else ""
    if source is None:
        image = f'<img width="{_PICTURE}" src="{poster}">' if poster else ""
        return f'{image}<div style="{SMALL}">{escape(short_path(path))}</div>'
    shown = f' poster="{poster}"' if poster else ""
    return (
        f'<video controls preload="none" playsinline width="{_PICTURE}"{shown} '
        f'src="{escape(source.url)}"></video>'
    )


def page_of(number: Any, total: int, per_page: int) -> int:
    """A page's number within those that there are."""
    return max(1, min(int(number), -(-total // per_page)))
