"""From a finished generation to a file: where it goes, and what must not be lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core import settings
from ..core.errors import NextStep, StoppedWaiting, Verb
from ..core.generation import Generation, Saved
from ..core.storage import file_names, saved_files
from ..core.submission import State
from ._context import adopt, connect, find, poll, readable_ledger
from ._target import is_foreign, naming_output, reserved
from ._text import size

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ..core.storage.ledger import Ledger
    from ..core.submission import Entry
    from ._console import Console


def save_video(
    client: KlingClient,
    ledger: Ledger | None,
    generation: Generation,
    console: Console,
    *,
    output: str | None,
    prompt: str | None,
    answer: bool = True,
    overwrite: bool = False,
) -> Saved:
    """The video as a file; an earlier download is reused.

    ``output`` is a file or a folder; None leaves an earlier download where it is, and else means
    the current folder. A file of the user's own that appeared there in the meantime is left as it
    is, unless ``overwrite``: the video gets a name beside it. ``answer``: its path is what the user
    asked for. Raises DownloadError, and StoppedWaiting on an interrupt.
    """
    saved, how = _save(client, ledger, generation, console, output, prompt, overwrite)
    if answer:
        console.note(f"{how}, {size(saved.size)}:")
        console.say(str(saved.path))
    return saved


def local_video(
    word: str,
    console: Console,
    *,
    output: str | None = None,
    answer: bool,
    overwrite: bool = False,
) -> tuple[Generation, Saved, Entry | None]:
    """The generation that ``word`` means, its video as a file, and its record.

    The video is downloaded where it is not on this disk yet. Errors as in ``find`` and
    ``save_video``.
    """
    ledger = readable_ledger(console)
    generation_id, entry = find(word, ledger, settings.base_url())
    with (
        connect(ledger) as client,
        naming_output(output),
        reserved(ledger, output, generation_id, generation_id=generation_id, overwrite=overwrite),
    ):
        if entry and entry.state is State.COMPLETED and saved_files.saved_file(entry):
            generation = entry.generation()
        else:
            generation = poll(client, ledger, generation_id)
            entry = entry or adopt(client, ledger, generation, console)
        prompt = entry.prompt if entry else None
        saved = save_video(
            client,
            ledger,
            generation,
            console,
            output=output,
            prompt=prompt,
            answer=answer,
            overwrite=overwrite,
        )
    return generation, saved, entry


def _save(
    client: KlingClient,
    ledger: Ledger | None,
    generation: Generation,
    console: Console,
    output: str | None,
    prompt: str | None,
    overwrite: bool,
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
    if output is not None and not overwrite and is_foreign(ledger, target, generation.id):
        own = saved_files.beside(target, generation.id)
        console.note(f"{target} exists by now and was not made here: it is left as it is.")
        target = own
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
