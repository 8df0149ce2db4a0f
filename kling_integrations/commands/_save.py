"""From a finished generation to a file: where it goes, and what must not be lost on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import settings
from ..core.errors import InvalidRequestError, KlingError, NextStep, StoppedWaiting, Verb
from ..core.generation import Generation, Saved
from ..core.storage import file_names, saved_files
from ..core.submission import State
from ._context import connect, find, poll, readable_ledger
from ._text import size

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ..core.storage.ledger import Ledger
    from ..core.submission import Entry
    from ._console import Console


def check_output(output: str | None) -> None:
    """Raises InvalidRequestError for an --out that cannot be written: before anything is paid."""
    try:
        path = Path(output or ".").expanduser()
        is_folder = output is None or output.endswith(("/", os.sep)) or path.is_dir()
        folder = path if is_folder else path.parent
        while not folder.exists():  # it will be made when there is something to put into it
            folder = folder.parent
    except (OSError, ValueError, RuntimeError) as trouble:
        raise InvalidRequestError(f"--out {output!r} cannot name a file: {trouble}.") from None
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidRequestError(
            f"The video could not be saved: {folder} is not a folder that can be written. "
            "Nothing was submitted.",
            next_steps=[NextStep(Verb.SET_OUTPUT)],
        )


@contextmanager
def naming_output(output: str | None) -> Iterator[None]:
    """Errors raised inside name ``--out`` in their next steps: the way back leads to that file."""
    try:
        yield
    except (KlingError, StoppedWaiting) as error:
        error.next_steps = tuple(
            replace(step, output=output) if step.verb in (Verb.WAIT, Verb.DOWNLOAD) else step
            for step in error.next_steps
        )
        raise


def save_video(
    client: KlingClient,
    ledger: Ledger | None,
    generation: Generation,
    console: Console,
    *,
    output: str | None,
    prompt: str | None,
    answer: bool = True,
) -> Saved:
    """The video as a file; an earlier download is reused.

    ``output`` is a file or a folder; None leaves an earlier download where it is, and else means
    the current folder. ``answer``: its path is what the user asked for. Raises DownloadError, and
    StoppedWaiting on an interrupt.
    """
    saved, how = _save(client, ledger, generation, console, output, prompt)
    if answer:
        console.note(f"{how}, {size(saved.size)}:")
        console.say(str(saved.path))
    return saved


def local_video(
    word: str, console: Console, *, output: str | None = None, answer: bool
) -> tuple[Generation, Saved, Entry | None]:
    """The generation that ``word`` means, its video as a file, and its record.

    The video is downloaded where it is not on this disk yet. Errors as in ``find`` and
    ``save_video``.
    """
    ledger = readable_ledger(console)
    generation_id, entry = find(word, ledger, settings.base_url())
    with connect(ledger) as client, naming_output(output):
        if entry and entry.state is State.COMPLETED and saved_files.saved_file(entry):
            generation = entry.generation()
        else:
            generation = poll(client, ledger, generation_id)
        prompt = entry.prompt if entry else None
        saved = save_video(
            client, ledger, generation, console, output=output, prompt=prompt, answer=answer
        )
    return generation, saved, entry


def _save(
    client: KlingClient,
    ledger: Ledger | None,
    generation: Generation,
    console: Console,
    output: str | None,
    prompt: str | None,
) -> tuple[Saved, str]:
    entry = ledger.entry(client.endpoint.base_url, generation.id) if ledger else None
    earlier = saved_files.saved_file(entry)
    if earlier and output is None:
        return earlier, "Already here"
    target = file_names.resolve_target(
        output, file_name=None, generation_id=generation.id, prompt=prompt
    ).absolute()
    if earlier and saved_files.is_same_file(earlier.path, target):
        return earlier, "Already here"
    if ledger:
        _keep_aside(ledger, target, generation.id, console)
    if copied := saved_files.reuse(entry, target):
        return copied, "Copied"
    try:
        return client.save(generation, target, progress=console.transfer), "Saved"
    except KeyboardInterrupt:
        raise StoppedWaiting(
            generation.id,
            message="Stopped saving. The video is kept.",
            next_steps=[NextStep(Verb.DOWNLOAD, generation.id)],
        ) from None


def _keep_aside(ledger: Ledger, target: Path, generation_id: str, console: Console) -> None:
    """Another paid video at ``target`` moves out of the way; its record and the user learn it."""
    moved = saved_files.keep_aside(target, generation_id, ledger.at(target))
    if moved is None:
        return
    entry, aside = moved
    saved = Saved(aside, entry.size or 0, entry.sha256 or "", None)
    ledger.saved(entry.base_url, entry.generation_id or "", saved)
    console.note(f"{target} was the video of another generation: kept as {aside}")
