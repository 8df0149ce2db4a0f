"""What a cell would send, before anything is paid: ``--dry-run`` as a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ...core.cost import Estimate
from ...core.errors import InvalidRequestError
from ...core.request import VideoRequest, shrunk
from ...core.submission import Action, Decision
from ..frontend import Bundle
from ..options import options
from .markup import SMALL, badge, base64_text, prompt_html, short_model

_THUMBNAIL = 160  # pixels
_PICTURES_OF = 20  # videos whose pictures are shown: each has some kilobytes


@dataclass(frozen=True)
class Preview:
    """One video that would be asked for. ``estimate`` is None where nothing would be paid."""

    request: VideoRequest
    take: int
    decision: Decision
    estimate: Estimate | None

    @property
    def outcome(self) -> str:
        """What would happen, as a sentence without its end."""
        if self.decision.action is Action.REFUSE:
            return f"Would be refused: {self.decision.reason}"
        if self.estimate is None:
            return f"Nothing would be paid: {self.decision.reason}"
        return f"Would be submitted, expected cost: {self.estimate}"

    @property
    def facts(self) -> dict[str, object]:
        """Model and parameters, pictures as their hash."""
        facts: dict[str, object] = self.request.summary()
        return {**facts, "take": self.take} if self.take > 1 else facts


def preview(previews: Sequence[Preview], total: str, *, sandbox: bool) -> Bundle:
    """A card for each video, and ``total`` on all of them."""
    figures = "".join(
        _figure(each, pictures=number < _PICTURES_OF) for number, each in enumerate(previews)
    )
    html = (
        f'<div style="border-left:3px solid #8888;padding:2px 10px">{badge(sandbox)}'
        f"{figures}<div>{escape(total)}</div></div>"
    )
    return {"text/html": html, "text/plain": text(previews, total)}, {}


def text(previews: Sequence[Preview], total: str) -> str:
    """The same in lines."""
    lines = []
    for each in previews:
        lines += [f"{name:<16}{value}" for name, value in each.facts.items()]
        lines += [f"{each.outcome}.", ""]
    return "\n".join([*lines, total])


def _figure(each: Preview, *, pictures: bool) -> str:
    facts = {
        name: value
        for name, value in each.facts.items()
        if name not in ("model", "prompt", *dict(each.request.pictures))
    }
    rows = "".join(
        f'<tr><td style="text-align:left;opacity:.75">{escape(name)}</td>'
        f'<td style="text-align:left;overflow-wrap:anywhere">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    shown = "".join(_picture(*picture) for picture in each.request.pictures) if pictures else ""
    return (
        f'<div style="margin:0 0 10px;max-width:{options().width}px">'
        f"<div><b>{escape(short_model(each.request.model))}</b></div>"
        f"{prompt_html(each.request.prompt)}"
        f'<div style="display:flex;gap:8px;flex-wrap:wrap;margin:4px 0">{shown}</div>'
        f"{f'<table style={chr(34)}margin:0{chr(34)}>{rows}</table>' if rows else ''}"
        f'<div style="{SMALL}">{escape(each.outcome)}</div></div>'
    )


def _picture(name: str, value: str) -> str:
    """A thumbnail of what would be sent; a link is not opened, only named."""
    from ...core.media import thumbnail

    caption, image = str(shrunk(value)), ""
    if not value.lower().startswith(("http:", "https:")):
        try:
            data, (width, height) = thumbnail(value, _THUMBNAIL)
        except InvalidRequestError:  # without Pillow, or in a format that it does not read
            pass
        else:
            source = f"data:image/jpeg;base64,{base64_text(data)}"
            image = f'<img alt="{escape(name)}" src="{source}" style="border-radius:4px">'
            caption = f"{width}×{height}"
    return (
        f'<figure style="margin:0">{image}<figcaption style="{SMALL};overflow-wrap:anywhere">'
        f"{escape(name)} · {escape(caption)}</figcaption></figure>"
    )
