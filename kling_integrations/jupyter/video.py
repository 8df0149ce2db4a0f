"""KlingVideo: a finished generation on disk, with a player for a repr."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidRequestError, KlingError
from ..core.generation import Status

if TYPE_CHECKING:
    from PIL.Image import Image

_POSTER_BYTES = 16_000  # it stands three times in a card, and a notebook is kept in git


@dataclass(frozen=True, eq=False)
class KlingVideo:
    """A video that was made. ``duration`` is in seconds, ``cost`` in USD where it is known.

    ``params`` are the parameters besides model and prompt. ``poster`` is a small JPEG.
    """

    id: str
    path: Path
    model: str
    prompt: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, float] = field(default_factory=dict)
    status: Status = Status.COMPLETED
    created: float | None = None
    elapsed: float | None = None
    polls: int | None = None
    sha256: str | None = None
    size: int | None = None
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    poster: bytes | None = field(default=None, repr=False)
    sandbox: bool = False

    @property
    def cost(self) -> float | None:
        """USD, where the gateway said what it cost."""
        from ..core import cost
        from ..core.generation import Usage

        return cost.spent(Usage(**self.usage))

    def frame(self, seconds: float) -> Image:
        """The picture shown at ``seconds``."""
        from ..core import media

        return media.frame(self.path, seconds)

    def last_frame(self) -> Image:
        """The last picture: where the next video can go on."""
        from ..core import media

        return media.last_frame(self.path)

    def extend(self, prompt: str, **parameters: Any) -> KlingVideo:
        """A video that goes on where this one ended: its last frame and a new prompt.

        ``parameters`` as for VideoRequest; the model is this one's, for images, unless given.
        """
        from .session import current

        return current().generate(**self.continuation(prompt, **parameters))

    def continuation(self, prompt: str, **parameters: Any) -> dict[str, Any]:
        """What ``extend`` asks for, as arguments of VideoRequest."""
        from ..core import catalog

        known = catalog.find(self.model)
        same = {"model": known.alias} if known else {}
        kept = {key: self.params[key] for key in ("duration", "cfg_scale") if key in self.params}
        return {**same, **kept, "prompt": prompt, "image": self.last_frame(), **parameters}

    def save(self, path: str | Path) -> Path:
        """Copies the video to a file or into a folder; returns the copy's path."""
        target = Path(path).expanduser()
        if target.is_dir():
            target = target / self.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.samefile(self.path):
            return target
        return Path(shutil.copyfile(self.path, target))

    def export(self, folder: str | Path) -> tuple[Path, Path]:
        """The MP4 and a JSON file beside it that says how it was made."""
        video = self.save(Path(folder).expanduser() / self.path.name)
        sidecar = video.with_name(video.name + ".json")
        text = json.dumps(self.provenance(), indent=2, ensure_ascii=False)
        sidecar.write_text(text + "\n", encoding="utf-8")
        return video, sidecar

    def provenance(self) -> dict[str, Any]:
        """How this was made, as JSON: no key, no URL, no folder of this machine."""
        from ..version import __version__

        told = {
            "generation_id": self.id,
            "status": self.status.value,
            "model": self.model,
            "prompt": self.prompt,
            "parameters": dict(self.params),
            "file": self.path.name,
            "sha256": self.sha256,
            "size": self.size,
            "seconds": self.duration,
            "usage": dict(self.usage),
            "created": self.created,
            "elapsed_seconds": None if self.elapsed is None else round(self.elapsed, 1),
            "made_with": f"kling-integrations {__version__}",
        }
        told = {key: value for key, value in told.items() if value not in (None, {})}
        return {**told, "sandbox": True} if self.sandbox else told

    def show(self, *, embed: str | None = None, width: int | None = None) -> None:
        """Displays the player. ``embed``: auto, always or never; ``width`` in pixels."""
        from . import cards
        from .display import publish

        publish(cards.player(self, embed=embed, width=width))

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        from . import cards

        return cards.player(self)

    def __repr__(self) -> str:
        parts = [repr(self.path.name), f"id={self.id!r}", f"model={self.model!r}"]
        if self.duration:
            parts.append(f"{self.duration:g} s")
        if self.cost is not None:
            parts.append(f"${self.cost:.2f}")
        return f"KlingVideo({', '.join(parts)}{', SANDBOX' if self.sandbox else ''})"


@dataclass(frozen=True)
class Look:
    """What the file itself tells; all None without PyAV."""

    duration: float | None = None
    width: int | None = None
    height: int | None = None
    poster: bytes | None = None


def look(path: Path) -> Look:
    """Opens the video once for size, length and poster. Never raises for what it holds."""
    from ..core import media

    try:
        facts = media.probe(path)
        return Look(facts.duration, facts.width, facts.height, small_poster(path))
    except KlingError:
        return Look()


def small_poster(path: Path) -> bytes:
    """The poster in at most 16 kB, narrower where the picture is a busy one."""
    from ..core import media

    picture = b""
    for width in (480, 400, 320, 240, 160):
        picture = media.poster(path, width)
        if len(picture) <= _POSTER_BYTES:
            break
    return picture


def as_video(value: Any) -> KlingVideo:
    """The KlingVideo in a notebook variable; raises InvalidRequestError for anything else."""
    from .job import Job

    if isinstance(value, Job):
        value = value.result()
    if not isinstance(value, KlingVideo):
        raise InvalidRequestError(f"A {type(value).__name__} is no result of %%kling.")
    return value
