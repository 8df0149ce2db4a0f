"""From a finished generation to a file: where it goes, and what must not be lost on the way."""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InvalidRequestError, StoppedWaiting, command
from ..core.generation import Generation, Saved
from ..core.storage import file_names
from .console import size

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ..core.storage.ledger import Ledger
    from ..core.submission import Entry
    from .console import Console


def out_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="file or folder of the video (default: here, named after the prompt)",
    )


def check_out(out: str | None) -> None:
    """Raises InvalidRequestError for a place that cannot be written: before anything is paid."""
    try:
        path = Path(out or ".").expanduser()
        folder = (
            path if out is None or out.endswith(("/", os.sep)) or path.is_dir() else path.parent
        )
        while not folder.exists():  # it will be made when there is something to put into it
            folder = folder.parent
    except (OSError, ValueError, RuntimeError) as trouble:
        raise InvalidRequestError(f"--out {out!r} is no place for a file: {trouble}.") from None
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidRequestError(
            f"The video could not be saved: {folder} is not a folder that can be written. "
            "Nothing was submitted.",
            hint="Name another place with --out.",
        )


def deliver(
    client: KlingClient,
    ledger: Ledger | None,
    generation: Generation,
    out: str | None,
    prompt: str | None,
    console: Console,
    *,
    answer: bool = True,
) -> Saved:
    """The video as a file: what is on this disk already is not fetched again.

    ``answer``: the file is what the user asked for, so its path is said. Raises DownloadError,
    and StoppedWaiting on an interrupt.
    """
    saved, how = _deliver(client, ledger, generation, out, prompt, console)
    if answer:
        console.note(f"{how}, {size(saved.size)}:")
        console.say(str(saved.path))
    return saved


def _deliver(
    client: KlingClient,
    ledger: Ledger | None,
    generation: Generation,
    out: str | None,
    prompt: str | None,
    console: Console,
) -> tuple[Saved, str]:
    entry = ledger.entry(client.endpoint.base_url, generation.id) if ledger else None
    here = _here(entry)
    if here and out is None:
        return here, "Already here"
    target = file_names.resolve_target(
        out, file_name=None, generation_id=generation.id, prompt=prompt
    ).absolute()
    if here and _is_same(here.path, target):
        return here, "Already here"
    if ledger:
        _keep_aside(ledger, target, generation.id, console)
    if here and _copy(here, target):
        return replace(here, path=target), "Copied"
    try:
        return client.save(generation, target, progress=console.transfer), "Saved"
    except KeyboardInterrupt:
        stopped = StoppedWaiting(generation.id)
        again = command("download", generation.id)
        stopped.args = (f"Stopped saving. The video is kept.\n  Go on with: {again}",)
        raise stopped from None


def _here(entry: Entry | None) -> Saved | None:
    """The file of an earlier download, where it still is as it was."""
    path = entry.saved_path if entry else None
    if entry is None or path is None:
        return None
    return Saved(path, entry.size or 0, entry.sha256 or "", None)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _copy(source: Saved, target: Path) -> bool:
    """Whether the target is now a copy of the file that was downloaded then."""
    part = target.with_name(f".{target.name[:60]}.{secrets.token_hex(8)}.part")
    try:
        shutil.copyfile(source.path, part)
        with part.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == source.sha256
        if same:
            os.replace(part, target)
        return same
    except OSError:
        return False  # the download will say what is wrong with the disk
    finally:
        with suppress(OSError):
            part.unlink()


def _keep_aside(ledger: Ledger, target: Path, generation_id: str, console: Console) -> None:
    """Another paid video that lies where this one shall go moves out of the way."""
    for entry in ledger.at(target):
        other, earlier = entry.generation_id, _here(entry)
        if other is None or other == generation_id or earlier is None:
            continue
        tag = hashlib.sha256(other.encode()).hexdigest()[:8]
        aside = target.with_name(f"{target.stem}_{tag}{target.suffix}")
        with suppress(OSError):
            os.replace(target, aside)
            ledger.saved(entry.base_url, other, replace(earlier, path=aside))
            console.note(f"{target} was the video of another generation: kept as {aside}")
        return
