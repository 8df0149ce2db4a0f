"""KlingVideo: a finished generation on disk, with a player for a repr."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..commands import one_line
from ..core import catalog, settings
from ..core.cost import spent
from ..core.errors import InvalidRequestError, LedgerError, NextStep, Verb
from ..core.generation import Generation, Saved, Status, Usage
from ..core.storage import safe_files, saved_files
from ..core.storage.file_names import SEPARATORS, local_target
from ..core.storage.ledger import Ledger
from ..core.submission import Entry
from ..version import __version__
from .display.player import card
from .display.source import source_of
from .errors import presented
from .excerpt import Excerpt
from .frontend import Bundle, is_shown, publish
from .options import options, session

if TYPE_CHECKING:
    from PIL.Image import Image

_POSTER_BYTES = 16_000  # a card holds it three times, and notebooks are versioned in git


@dataclass(frozen=True, eq=False)
class KlingVideo:
    """A finished video. As a cell's last line it shows its player.

    ``path`` is the MP4, ``saved_as`` where it was saved at first, ``params`` the parameters
    besides ``model`` and ``prompt`` (pictures as their hash). ``duration`` is in seconds of video,
    ``elapsed`` in seconds from the submit to the end, ``created`` in Unix seconds, ``size`` in
    bytes, ``width`` and ``height`` in pixels, ``cost`` in USD; what is not known is None.
    ``poster`` is a small JPEG, ``polls`` how often the gateway was asked. ``sandbox`` marks a test
    picture that cost nothing.
    """

    id: str
    saved_as: Path
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

    @classmethod
    def from_file(
        cls,
        saved: Saved,
        generation: Generation,
        base_url: str,
        *,
        entry: Entry | None = None,
        summary: Mapping[str, Any] | None = None,
        polls: int | None = None,
    ) -> KlingVideo:
        """The one constructor for a saved video; ``entry`` is its record, where there is one.

        ``summary`` (as ``VideoRequest.summary()``) says what was asked for where no record does.
        Opens the file once; never raises for what it holds.
        """
        params = dict(entry.request if entry else summary or {})
        model = params.pop("model", None) or generation.model or "a generation"
        usage = generation.usage.to_json() if generation.usage else entry.usage if entry else {}
        facts = _probe(saved.path)
        source_of(saved.path)  # makes the small copy, where a card needs one: not while it is drawn
        return cls(
            id=generation.id,
            saved_as=saved.path,
            model=str(model),
            prompt=params.pop("prompt", None),
            params=params,
            usage=usage,
            created=entry.since if entry else None,
            elapsed=entry.elapsed if entry else None,
            polls=polls,
            sha256=saved.sha256 or None,
            size=saved.size,
            duration=facts.duration,
            width=facts.width,
            height=facts.height,
            poster=facts.poster,
            sandbox=settings.is_sandbox(base_url),
        )

    @property
    def path(self) -> Path:
        """The video's file: as it was saved, or where it was moved or copied since, by content.

        Raises InvalidRequestError where the file holds something else by now and no other one is
        known: it must not pass for this video.
        """
        if self.sha256 is None or saved_files.has_content(self.saved_as, self.sha256):
            return self.saved_as
        with suppress(LedgerError):
            for entry in Ledger().with_content(self.sha256):
                if (saved := saved_files.saved_file(entry)) is not None:
                    return saved.path
        if not os.path.lexists(self.saved_as):
            return self.saved_as
        raise InvalidRequestError(
            f"{self.saved_as} holds something else by now than the video of generation {self.id}.",
            next_steps=[NextStep(Verb.DOWNLOAD, self.id)],
        )

    @property
    def cost(self) -> float | None:
        """USD, where the gateway said what it cost."""
        return spent(Usage(**self.usage))

    def frame(self, seconds: float) -> Image:
        """The picture at ``seconds`` from the start; beyond the end, the last one."""
        from ..core import media

        return media.frame(self.path, seconds)

    def last_frame(self) -> Image:
        """The last picture: where the next video can go on."""
        from ..core import media

        return media.last_frame(self.path)

    def frames(self, *, fps: float | None = None, width: int | None = None) -> Iterator[Image]:
        """The pictures as PIL images, decoded one by one: bounded memory at any length.

        ``fps`` takes so many a second (default: all), ``width`` makes them so many pixels wide.
        """
        from ..core import media

        return media.all_frames(self.path, fps=fps, width=width)

    def to_numpy(self, *, fps: float | None = None, width: int | None = None) -> Any:
        """All pictures as an array of uint8, shaped (pictures, height, width, 3).

        ``fps`` and ``width`` are as in ``frames``. Raises InvalidRequestError where it would take
        more than 2 GB, and without NumPy.
        """
        from ..core import media

        return media.array(self.path, fps=fps, width=width)

    def gif(self, *, fps: float = 8, width: int = 320) -> Excerpt:
        """An animated GIF, for where a video cannot go: mail, chat, slides. It has no sound."""
        from ..core import media

        data = media.gif(self.path, fps=fps, width=width)
        return Excerpt(data, "image/gif", self._name, width)

    def preview(self, *, most_mb: float = 1.0) -> Excerpt:
        """A small MP4 without sound, of at most ``most_mb`` MB (millions of bytes)."""
        from ..core import media

        data = media.small_copy(self.path, int(most_mb * 1e6))
        return Excerpt(data, "video/mp4", self._name, options().width)

    @property
    def _name(self) -> str:
        return one_line(self.prompt, 200) or f"Video {self.id}"

    @presented
    def extend(
        self,
        prompt: str,
        *,
        timeout: float | timedelta | None = None,
        take: int = 1,
        new: bool = False,
        file: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        **parameters: Any,
    ) -> KlingVideo:
        """A video that goes on where this one ended: its last frame and a new prompt.

        ``timeout``, ``take``, ``new``, ``file`` and ``overwrite`` are as in ``generate``;
        ``parameters`` are those of VideoRequest. Model, ``duration`` and ``cfg_scale`` are this
        one's unless given (an image-to-video model of the same family). Pays only for what is not
        there yet; raises as ``generate`` does.
        """
        video: KlingVideo = session().generate(
            self.continuation(prompt, **parameters),
            timeout=timeout,
            take=take,
            new=new,
            file=file,
            overwrite=overwrite,
        )
        return video

    def continuation(self, prompt: str, **parameters: Any) -> dict[str, Any]:
        """What ``extend`` asks for, as arguments of VideoRequest."""
        known = catalog.find(self.model)
        same: dict[str, Any] = {"model": known.alias} if known else {}
        same |= {key: self.params[key] for key in ("duration", "cfg_scale") if key in self.params}
        return {**same, "prompt": prompt, "image": self.last_frame(), **parameters}

    @presented
    def save(self, path: str | Path) -> Path:
        """Copies the video to a file or into a folder; returns the copy's path.

        A folder is what exists as one or ends in a slash. An existing file is replaced, whole or
        not at all. Raises OSError from the disk, and InvalidRequestError for a target that is no
        regular file or not on a disk.
        """
        named = local_target(path)
        target = Path(named).expanduser()
        if named.endswith(SEPARATORS) or target.is_dir():
            target = target / self.saved_as.name
        target.parent.mkdir(parents=True, exist_ok=True)
        return safe_files.copy(self.path, target)

    @presented
    def export(self, folder: str | Path) -> tuple[Path, Path]:
        """Copies the MP4 into a folder, with a JSON file beside it that says how it was made.

        Returns both paths: ``NAME.mp4`` and ``NAME.mp4.json``. Raises as ``save`` does.
        """
        video = self.save(Path(local_target(folder)).expanduser() / self.saved_as.name)
        text = json.dumps(self.provenance(), indent=2, ensure_ascii=False)
        sidecar = video.with_name(video.name + ".json")
        return video, safe_files.write(sidecar, f"{text}\n".encode())

    def provenance(self) -> dict[str, Any]:
        """How this was made, as JSON values: no key, no URL, no folder of this machine."""
        facts = {
            "generation_id": self.id,
            "status": self.status.value,
            "model": self.model,
            "prompt": self.prompt,
            "parameters": dict(self.params),
            "file": self.saved_as.name,
            "sha256": self.sha256,
            "size": self.size,
            "seconds": self.duration,
            "usage": dict(self.usage),
            "created": self.created,
            "elapsed_seconds": None if self.elapsed is None else round(self.elapsed, 1),
            "made_with": f"kling-integrations {__version__}",
        }
        facts = {name: value for name, value in facts.items() if value not in (None, {})}
        return {**facts, "sandbox": True} if self.sandbox else facts

    def show(self, *, embed: str | None = None, width: int | None = None) -> None:
        """Displays the player. ``embed``: auto, always or never; ``width`` in pixels."""
        publish(card(self, embed=embed, width=width))

    def _ipython_display_(self) -> None:
        """Nothing where the running cell shows it already, as its live card."""
        if not is_shown(self):
            raise NotImplementedError  # which IPython takes for: as always

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        return card(self)

    def __repr__(self) -> str:
        parts = [repr(self.saved_as.name), f"id={self.id!r}", f"model={self.model!r}"]
        if self.duration:
            parts.append(f"{self.duration:g} s")
        if self.cost is not None:
            parts.append(f"${self.cost:.2f}")
        return f"KlingVideo({', '.join(parts)}{', SANDBOX' if self.sandbox else ''})"


@dataclass(frozen=True)
class _FileFacts:
    """What the file itself says; all None without PyAV."""

    duration: float | None = None
    width: int | None = None
    height: int | None = None
    poster: bytes | None = None


def _probe(path: Path) -> _FileFacts:
    """Opens the video once for size, length and poster."""
    from ..core import media

    facts = _FileFacts()
    with suppress(InvalidRequestError):
        found = media.probe(path)
        facts = _FileFacts(found.duration, found.width, found.height)
        facts = replace(facts, poster=_small_poster(path))
    return facts


def _small_poster(path: Path) -> bytes:
    """The poster in at most 16 kB, narrower where the picture is a busy one."""
    from ..core import media

    picture = b""
    for width in (480, 400, 320, 240, 160):
        picture = media.poster(path, width)
        if len(picture) <= _POSTER_BYTES:
            break
    return picture
