"""What a generation looks like in a cell: static HTML with a poster, and text for all else.

A card needs no kernel, no widget and no network: what a notebook was saved with is what a reader
sees, also on a code-hosting site and in a PDF. Every word of a user or of the gateway is escaped;
no URL of the gateway stands in it, because such a URL is a secret.

The tags are those that survive the sanitising of an untrusted notebook: ``src`` and ``poster`` on
the ``<video>`` itself (a ``<source>`` would be dropped), ``<img>`` inside for what cannot play.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..commands.console import money, one_line
from ..core import catalog
from ..core.progress import clock_time
from . import loaded
from .errors import in_notebook
from .job import Job, Phase

if TYPE_CHECKING:
    from .result import KlingVideo

Bundle = tuple[dict[str, Any], dict[str, Any]]

_BADGE = (
    '<b style="background:#f5b301;color:#000;border-radius:3px;padding:0 5px;'
    'font-size:.85em;letter-spacing:.04em">SANDBOX</b> '
)
_QUIET = "font-size:.85em;opacity:.75"
_ID = "font-size:.9em;overflow-wrap:anywhere;background:none;padding:0"
_SIGNS = {Phase.COMPLETED: "✔", Phase.FAILED: "✖", Phase.STOPPED: "■"}


def player(
    video: KlingVideo, *, embed: str | None = None, width: int | None = None, reused: bool = False
) -> Bundle:
    """The card of a finished generation, with its provenance as metadata."""
    width = width or _option("width")
    figure = (
        f'<figure style="margin:0;max-width:{width}px">{screen(video, embed=embed, width=width)}'
        '<figcaption style="line-height:1.45;margin-top:4px">'
        f"{_prompt(video.prompt, _badge(video.sandbox))}"
        f'<div style="{_QUIET}">{escape(facts(video, reused=reused))} · id '
        f'<code style="{_ID}">{escape(video.id)}</code></div>{_details(video)}'
        "</figcaption></figure>"
    )
    data = {"text/html": figure, "text/plain": repr(video)}
    if video.poster:
        data["image/jpeg"] = _base64(video.poster)
    return data, provenance(video.provenance())


def screen(
    video: KlingVideo,
    *,
    embed: str | None = None,
    width: int | None = None,
    attributes: str = "",
) -> str:
    """The player alone. It fills its column, at most ``width`` pixels."""
    source = source_of(video.path, embed)
    poster = f"data:image/jpeg;base64,{_base64(video.poster)}" if video.poster else ""
    shape = _shape(video)
    size = (
        f"width:100%;max-width:{width or _option('width')}px;{shape}display:block;border-radius:4px"
    )
    image = (
        f'<img alt="{escape(one_line(video.prompt, 200))}" style="width:100%" src="{poster}">'
        if poster
        else ""
    )
    if source is None:  # nothing that a browser could open: the picture, and where the file is
        where = f'<div style="{_QUIET}">{escape(short_path(video.path))}</div>'
        return f'<div style="{size}">{image}</div>{where}'
    return (
        f'<video controls preload="metadata" playsinline style="{size}"'
        f"{f' poster={chr(34)}{poster}{chr(34)}' if poster else ''}{attributes} "
        f'src="{escape(source)}">{image}</video>'
    )


def _shape(video: KlingVideo) -> str:
    """Keeps the room of the picture free before it is loaded, so that nothing jumps."""
    if not video.width or not video.height:
        return ""
    tall = "max-height:70vh;" if video.height > video.width else ""
    return f"aspect-ratio:{video.width}/{video.height};{tall}"


def running(job: Job, *, bar: bool = False, still: bool = False) -> Bundle:
    """The card from the first second on: what is under way, and the way back to it.

    ``still``: without the time, for a card that a moving strip stands below.
    """
    line = job_line(job, still=still)
    way_back = "Run this cell again to go on with it; nothing is paid twice."
    if job.attached:
        way_back = "Picked up where it is; nothing is paid again."
    if job.alone:
        way_back = "The cell stopped waiting, and it goes on in the background. " + way_back
    if job.status is Phase.STOPPED:
        way_back = "Stopped waiting. It goes on at the gateway: run this cell again to pick it up."
        if job.id is None:
            way_back = "Stopped before anything was submitted."
    progress = ""
    if bar and job.id and not job.status.is_over:
        progress = f'<progress max="100" value="{job.fraction * 100:.0f}"></progress> '
    note = f'<div style="{_QUIET}">{escape(one_line(in_notebook(job.note), 300))}</div>'
    html = (
        f'<div style="border-left:3px solid #8888;padding:2px 10px;max-width:{_option("width")}px">'
        f"{_badge(job.sandbox)}{escape(line)} {progress}{_prompt(job.prompt)}"
        f'<div style="{_QUIET}">{_id(job)}{escape(way_back)}</div>{note if job.note else ""}</div>'
    )
    text = f"{_plain_badge(job.sandbox)}{line}{f' · id {job.id}' if job.id else ''}\n{way_back}"
    return {"text/html": html, "text/plain": text}, provenance(_so_far(job))


def failed(job: Job) -> Bundle:
    """The card of what ended badly: the reason, and the way on."""
    error = job.error
    first, *hints = in_notebook(str(error)).splitlines() or [""]
    html = (
        '<div style="border-left:3px solid #c62828;padding:2px 10px;'
        f'max-width:{_option("width")}px">{_badge(job.sandbox)}<b>✖ {escape(_model(job.model))}</b>'
        f"{_prompt(job.prompt)}<div>{escape(first)}</div>"
        f"{''.join(f'<div>{escape(hint.strip())}</div>' for hint in hints)}"
        f'<div style="{_QUIET}">{_id(job) if str(job.id) not in first else ""}</div></div>'
    )
    text = "\n".join([f"{_plain_badge(job.sandbox)}✖ {_model(job.model)}: {first}", *hints])
    return {"text/html": html, "text/plain": text}, provenance(_so_far(job))


def of(
    job: Job,
    *,
    bar: bool = False,
    still: bool = False,
    embed: str | None = None,
    width: int | None = None,
) -> Bundle:
    """The card of a job as it stands."""
    if job.video:
        return player(job.video, embed=embed, width=width, reused=job.reused)
    return failed(job) if job.status is Phase.FAILED else running(job, bar=bar, still=still)


# --- words -----------------------------------------------------------------------------------


def job_line(job: Job, *, still: bool = False) -> str:
    """``◔ kling v2.5-turbo-pro · 5 s · generating · 0:42 of about 2:50``."""
    sign = _SIGNS.get(job.status, "◔")
    parts = [f"{sign} kling {_model(job.model)}", *_shown_parameters(job.params), str(job.status)]
    if not still:
        parts.append(pace(job))
    return " · ".join(filter(None, parts))


def pace(job: Job) -> str:
    """``0:42 of about 2:50``; empty where nothing is known."""
    if job.progress is None or job.status.is_over:
        return ""
    return job.progress.pace


def facts(video: KlingVideo, *, reused: bool = False) -> str:
    """Model, length, shape, cost: the caption in one line."""
    parts = [_model(video.model)]
    if video.duration:
        parts.append(f"{video.duration:.4g} s")
    if video.width and video.height:
        parts.append(f"{video.width}×{video.height}")
    if video.cost is not None:
        parts.append(money(video.cost))
    if video.elapsed:
        parts.append(f"took {clock_time(video.elapsed)}")
    if reused:
        parts.append("♻ reused, nothing paid (--new makes another one)")
    return " · ".join(parts)


def _shown_parameters(params: Mapping[str, Any]) -> list[str]:
    shown = []
    if "duration" in params:
        shown.append(f"{params['duration']} s")
    if "aspect_ratio" in params:
        shown.append(str(params["aspect_ratio"]))
    return shown


def _model(model: str) -> str:
    group = catalog.candidates(model)
    return group[0].alias if len(group) == 1 else model


def _prompt(prompt: str | None, badge: str = "") -> str:
    if not prompt:
        return badge
    short = one_line(prompt, 160)
    whole = escape(prompt)
    text = f'<div dir="auto" style="overflow-wrap:anywhere">{badge}{escape(short)}</div>'
    if short == " ".join(prompt.split()):
        return text
    return (
        '<details dir="auto" style="overflow-wrap:anywhere">'
        f"<summary>{badge}{escape(short)}</summary>"
        f'<div style="white-space:pre-wrap">{whole}</div></details>'
    )


def _details(video: KlingVideo) -> str:
    told = json.dumps(video.provenance(), indent=1, ensure_ascii=False)
    return (
        f'<details style="{_QUIET}"><summary>parameters</summary>'
        f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere">{escape(told)}</pre></details>'
    )


def _id(job: Job) -> str:
    return f'id <code style="{_ID}">{escape(job.id)}</code><br>' if job.id else ""


def _badge(sandbox: bool) -> str:
    return _BADGE if sandbox else ""


def _plain_badge(sandbox: bool) -> str:
    return "[SANDBOX] " if sandbox else ""


# --- what a browser needs ----------------------------------------------------------------------


def source_of(path: Path, embed: str | None = None) -> str | None:
    """The ``src`` of a video: a relative URL where the notebook can reach it, else its bytes.

    None where neither works: outside the notebook's folder (a server serves nothing above its
    root, and nothing hidden) and too large to embed.
    """
    embed = embed or _option("embed")
    relative = None if embed == "always" else _relative(path)
    if embed == "never" and relative is None:
        return None
    if relative is not None and not (embed == "auto" and _in_colab()):
        return quote(relative)
    try:
        if embed != "always" and path.stat().st_size > _option("embed_limit_mb") * 1e6:
            return None
        return f"data:video/mp4;base64,{_base64(path.read_bytes())}"
    except OSError:
        return None


def short_path(path: Path) -> str:
    """As seen from the notebook, where it is beside or below it."""
    relative = _relative(path)
    return str(path) if relative is None or relative.startswith("..") else relative


def _relative(path: Path) -> str | None:
    magics = loaded()
    folder = magics.folder if magics else Path.cwd()
    try:
        relative = os.path.relpath(path.absolute(), folder)
    except ValueError:  # another drive
        return None
    parts = Path(relative).parts
    return None if any(part.startswith(".") for part in parts) else "/".join(parts)


def _in_colab() -> bool:
    magics = loaded()
    return magics is not None and "google.colab" in str(type(magics.shell))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def provenance(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"kling": dict(told)}


def _so_far(job: Job) -> dict[str, Any]:
    told = {
        "generation_id": job.id,
        "status": str(job.status),
        "model": job.model,
        "prompt": job.prompt,
        "parameters": job.params,
    }
    told = {key: value for key, value in told.items() if value}
    return {**told, "sandbox": True} if job.sandbox else told


def _option(name: str) -> Any:
    from .session import options

    return getattr(options(), name)
