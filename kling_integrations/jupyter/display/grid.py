"""The comparison grid: a shared prompt once, what differs under each player, all in step.

Static HTML like a card. One click plays all, where the notebook is trusted; elsewhere each player
plays by itself.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ...commands import money, one_line
from ..frontend import Bundle
from ..job import Job, JobStatus
from ..options import options
from ..video import KlingVideo
from .cards import id_line, job_line, job_provenance, state_of
from .markup import SMALL, badge, base64_text, code_id, prompt_html
from .player import caption, screen


def _others(when: str, do: str) -> str:
    """Script of a player: what the others in its grid do when ``when`` holds for them (``v``)."""
    players = "this.closest('.kling-grid').querySelectorAll('video')"
    return escape(f"{players}.forEach(v=>{{if(v!==this&&{when}){{{do}}}}})")


# The others follow the one that was clicked. Each script changes only what is not yet as it
# wants, so the events that it causes end there.
_SEEK = "v.currentTime=this.currentTime"
_IN_STEP = (
    f' onplay="{_others("v.paused", _SEEK + ";v.play()")}"'
    f' onpause="{_others("!this.ended&&!v.paused", "v.pause()")}"'
    f' onseeked="{_others("Math.abs(v.currentTime-this.currentTime)>.3", _SEEK)}"'
)


@dataclass(frozen=True)
class Cell:
    """One cell of a grid: a video, or a job on its way to one.

    ``differs`` is what tells it from the others, by name.
    """

    differs: Mapping[str, str] = field(default_factory=dict)
    job: Job | None = None
    video: KlingVideo | None = None

    @property
    def shown(self) -> KlingVideo | None:
        """The video, once there is one."""
        return self.video or (self.job.video if self.job else None)

    @property
    def sandbox(self) -> bool:
        return any(each.sandbox for each in (self.video, self.job) if each)


def grid(
    cells: Sequence[Cell],
    *,
    prompt: str | None = None,
    total: str = "",
    width: int | None = None,
    embed: str | None = None,
    columns: int | None = None,
) -> Bundle:
    """``prompt`` is what all share (each shows its own otherwise), ``total`` a line on all."""
    columns = columns or _columns(len(cells))
    narrow = max(160, (width or 2 * options().width) // columns)
    sandbox = any(cell.sandbox for cell in cells)
    players = sum(1 for cell in cells if cell.shown)
    figures = "".join(_figure(cell, narrow, embed, prompt, players) for cell in cells)
    html = (
        f'<div class="kling-grid">{prompt_html(prompt, badge(sandbox))}'
        f'<div style="{SMALL}">{escape(total)}</div>'
        f'<div style="display:grid;grid-template-columns:repeat({columns},minmax(0,{narrow}px));'
        f'gap:12px;margin-top:6px">{figures}</div></div>'
    )
    lines = [f"[SANDBOX] {total}" if sandbox else total] if total or sandbox else []
    for cell in cells:
        what = repr(cell.shown) if cell.shown else job_line(cell.job) if cell.job else ""
        lines.append(" · ".join(filter(None, (label(cell.differs), what))))
    data = {"text/html": html, "text/plain": "\n".join(lines)}
    sheet = contact_sheet([cell.shown for cell in cells if cell.shown], columns)
    if sheet:
        data["image/jpeg"] = base64_text(sheet)
    return data, {"kling": {"generations": [_provenance(cell) for cell in cells]}}


def _figure(cell: Cell, width: int, embed: str | None, shared: str | None, players: int) -> str:
    differs = "".join(
        f'<span style="margin-right:8px"><span style="opacity:.7">{escape(name)}</span> '
        f"<b>{escape(value)}</b></span>"
        for name, value in cell.differs.items()
    )
    shown: KlingVideo | Job | None = cell.shown or cell.job
    own = prompt_html(shown.prompt) if shown and shared is None else ""
    if cell.shown:
        body = screen(cell.shown, embed=embed, width=width, attributes=_IN_STEP, players=players)
        facts = caption(cell.shown) + (" · ♻ reused" if cell.job and cell.job.reused else "")
        foot = f"{escape(facts)}<br>{code_id(cell.shown.id)}"
    else:
        assert cell.job is not None
        body = (
            '<div style="aspect-ratio:16/9;border:1px dashed #8888;border-radius:4px;display:flex;'
            'align-items:center;justify-content:center;text-align:center;padding:8px">'
            f"<span>{escape(state_of(cell.job))}</span></div>"
        )
        foot = id_line(cell.job)
    return (
        f'<figure style="margin:0">{body}<figcaption style="line-height:1.45">'
        f'<div>{differs}</div>{own}<div style="{SMALL}">{foot}</div></figcaption></figure>'
    )


def label(differs: Mapping[str, str]) -> str:
    """What tells a cell from the others, in one line."""
    return " ".join(f"{name}={value}" if name else value for name, value in differs.items())


def _provenance(cell: Cell) -> dict[str, Any]:
    if cell.shown:
        return cell.shown.provenance()
    return job_provenance(cell.job) if cell.job else {}


def _columns(count: int) -> int:
    """Two by two reads better than three and one."""
    return count if count <= 3 else 2 if count == 4 else 3


def contact_sheet(videos: Sequence[KlingVideo], columns: int) -> bytes | None:
    """The posters side by side, for PDF and for viewers without HTML; at most some 40 kB."""
    posters = [video.poster for video in videos if video.poster]
    if not posters:
        return None
    from PIL import Image

    pictures = [Image.open(io.BytesIO(poster)).convert("RGB") for poster in posters]
    wide = 720 // columns
    tall = max(round(wide * picture.height / picture.width) for picture in pictures)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (wide * min(columns, len(pictures)), tall * rows), "white")
    for number, picture in enumerate(pictures):
        picture.thumbnail((wide - 4, tall))
        sheet.paste(picture, (number % columns * wide, number // columns * tall))
    data = io.BytesIO()
    sheet.save(data, "JPEG", quality=60, optimize=True)
    return data.getvalue()


def differences(videos: Sequence[KlingVideo]) -> tuple[str | None, list[dict[str, str]]]:
    """The prompt that all share (or None), and what tells each of them from the others."""
    facts = [{"model": video.model, "prompt": video.prompt, **video.params} for video in videos]
    keys = dict.fromkeys(key for each in facts for key in each)
    varied = [key for key in keys if len({str(each.get(key)) for each in facts}) > 1]
    shared = None if "prompt" in varied else videos[0].prompt if videos else None
    named = [key for key in varied if key != "prompt"]
    return shared, [{key: _short(each.get(key, "default")) for key in named} for each in facts]


def side_by_side(
    videos: Sequence[KlingVideo],
    *,
    labels: Sequence[str] | None = None,
    columns: int | None = None,
    width: int | None = None,
    embed: str | None = None,
) -> Bundle:
    """Finished videos in a grid; ``labels`` name them, else what differs between them does."""
    shared, differing = differences(videos)
    if labels is not None:
        differing = [{"": str(label)} for label in labels]
    cells = [Cell(differs, video=video) for differs, video in zip(differing, videos, strict=True)]
    return grid(
        cells, prompt=shared, total=total_line(cells), columns=columns, width=width, embed=embed
    )


def _short(value: Any) -> str:
    """A parameter in a few words; of a picture there is only its hash."""
    picture = re.search(r"sha256:(\w{6})", str(value))
    return f"picture {picture[1]}" if picture else one_line(str(value), 60)


def total_line(cells: Sequence[Cell]) -> str:
    """``3 of 4 done, 1 failed · $1.50``."""
    done = [cell.shown for cell in cells if cell.shown]
    failed = sum(1 for cell in cells if cell.job and cell.job.status is JobStatus.FAILED)
    if not any(cell.job for cell in cells):
        parts = [f"{len(done)} {'video' if len(done) == 1 else 'videos'}"]
    else:
        parts = [f"{len(done)} of {len(cells)} done{f', {failed} failed' if failed else ''}"]
    costs = [video.cost for video in done]
    if costs and None not in costs:
        parts.append(money(sum(c for c in costs if c is not None)))
    if len(done) > 1:
        parts.append("play one, and all play in step")
    return " · ".join(parts)
