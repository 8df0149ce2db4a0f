"""The card of a job, from its first second to its end: what goes on, and how to go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ...commands import one_line
from ..errors import lines_of
from ..frontend import Bundle
from ..job import Job, JobStatus
from ..options import options
from .markup import SMALL, badge, code_id, plain_badge, progress_bar, prompt_html, short_model
from .player import card

SIGNS = {JobStatus.COMPLETED: "✔", JobStatus.FAILED: "✖", JobStatus.STOPPED: "■"}
_ACTIVE_SIGN = "◔"


def job_card(
    job: Job,
    *,
    bar: bool = False,
    with_time: bool = True,
    embed: str | None = None,
    width: int | None = None,
) -> Bundle:
    """The card of a job as it stands: its player, its error, or how far it is."""
    if job.video:
        return card(job.video, embed=embed, width=width, reused=job.reused)
    if job.status is JobStatus.FAILED:
        return failed_card(job)
    return running_card(job, bar=bar, with_time=with_time)


def running_card(job: Job, *, bar: bool = False, with_time: bool = True) -> Bundle:
    """What is under way, and how to go on with it; ``bar`` adds a progress bar.

    ``with_time=False`` is for a card above a live strip that shows the time.
    """
    line = job_line(job, with_time=with_time)
    advice = _advice(job)
    progress = ""
    if bar and job.id and not job.status.is_over:
        progress = f"<div>{progress_bar(job.fraction, 'Progress')}</div>"
    note = f'<div style="{SMALL}">{escape(one_line(job.note, 300))}</div>' if job.note else ""
    html = (
        f'<div style="border-left:3px solid #8888;padding:2px 10px;max-width:{options().width}px">'
        f"{badge(job.sandbox)}{escape(line)}{progress}{prompt_html(job.prompt)}"
        f'<div style="{SMALL}">{id_line(job)}{escape(advice)}</div>{note}</div>'
    )
    text = f"{plain_badge(job.sandbox)}{line}{f' · id {job.id}' if job.id else ''}\n{advice}"
    return {"text/html": html, "text/plain": text}, {"kling": job_provenance(job)}


def _advice(job: Job) -> str:
    if job.status is JobStatus.STOPPED:
        if job.id:
            return "Stopped waiting. It goes on at the gateway: run this cell again to pick it up."
        return " ".join(lines_of(job.error)) if job.error else "Stopped."
    advice = "Run this cell again to go on with it; nothing is paid twice."
    if job.attached:
        advice = "Picked up where it is; nothing is paid again."
    if job.detached:
        advice = "The cell stopped waiting, and it goes on in the background. " + advice
    return advice


def failed_card(job: Job) -> Bundle:
    """Why a job ended without a video, and what can be done."""
    first, *more = lines_of(job.error) if job.error else [""]
    html = (
        '<div style="border-left:3px solid #c62828;padding:2px 10px;'
        f'max-width:{options().width}px">{badge(job.sandbox)}'
        f"<b>✖ {escape(short_model(job.model))}</b>"
        f"{prompt_html(job.prompt)}<div>{escape(first)}</div>"
        f"{''.join(f'<div>{escape(each.strip())}</div>' for each in more)}"
        f'<div style="{SMALL}">{id_line(job) if str(job.id) not in first else ""}</div></div>'
    )
    text = "\n".join([f"{plain_badge(job.sandbox)}✖ {short_model(job.model)}: {first}", *more])
    return {"text/html": html, "text/plain": text}, {"kling": job_provenance(job)}


def job_line(job: Job, *, with_time: bool = True) -> str:
    """``◔ kling v2.5-turbo-pro · 5 s · generating · 0:42 of about 2:50``."""
    sign = SIGNS.get(job.status, _ACTIVE_SIGN)
    parts = [f"{sign} kling {short_model(job.model)}", *_shown_parameters(job.params), job.status]
    if with_time:
        parts.append(job.pace)
    return " · ".join(filter(None, parts))


def state_of(job: Job) -> str:
    """A job without a video in a few words: the first line of its error, else its status."""
    sign = SIGNS.get(job.status, _ACTIVE_SIGN)
    if job.status is JobStatus.FAILED and job.error:
        return f"{sign} {lines_of(job.error)[0][:300]}"
    return f"{sign} {job.status}"


def _shown_parameters(params: Mapping[str, Any]) -> list[str]:
    shown = []
    if "duration" in params:
        shown.append(f"{params['duration']} s")
    if "aspect_ratio" in params:
        shown.append(str(params["aspect_ratio"]))
    return shown


def id_line(job: Job) -> str:
    """The id on a line of its own, once it is known."""
    return f"{code_id(job.id)}<br>" if job.id else ""


def job_provenance(job: Job) -> dict[str, Any]:
    """What is known of a generation that has no video yet, as metadata of its output."""
    facts = {
        "generation_id": job.id,
        "status": str(job.status),
        "model": job.model,
        "prompt": job.prompt,
        "parameters": job.params,
    }
    facts = {name: value for name, value in facts.items() if value}
    return {**facts, "sandbox": True} if job.sandbox else facts
