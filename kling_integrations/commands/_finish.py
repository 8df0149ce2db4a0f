"""To the end of a generation: wait for it, save its video, report both."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..core import cost
from ..core.generation import Generation
from ..core.manifest import manifest
from ..core.progress import Progress, clock_time
from ..core.storage.saved_files import saved_file
from ..core.submission import State
from ._context import adopt
from ._save import save_video
from ._target import naming_output
from ._text import money

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ..core.storage.ledger import Ledger
    from ._console import Console

_EXPIRES_SOON = 24 * 3600.0  # seconds


def finish(
    client: KlingClient,
    ledger: Ledger | None,
    generation_id: str,
    console: Console,
    *,
    timeout: float,
    download: bool,
    output: str | None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Waits unless it is known to have ended, saves the video, reports both; the manifest.

    ``timeout`` in seconds; ``download=False`` leaves the video at the gateway. Raises what
    ``KlingClient.wait`` and ``save_video`` raise.
    """
    base_url = client.endpoint.base_url
    entry = ledger.entry(base_url, generation_id) if ledger else None
    last: Progress | None = None
    finished = entry is not None and entry.state is State.COMPLETED
    saved = None
    with naming_output(output):
        if entry and finished and (not download or saved_file(entry)):
            generation = entry.generation()
        else:
            generation, last = watch(client, generation_id, console, timeout, quiet=finished)
            console.note(_completed(generation, last, client.is_sandbox))
            entry = entry or adopt(client, ledger, generation, console)
        if download:
            prompt = entry.prompt if entry else None
            saved = save_video(
                client,
                ledger,
                generation,
                console,
                output=output,
                prompt=prompt,
                overwrite=overwrite,
            )
    return manifest(
        generation,
        base_url=base_url,
        model=entry.record.model if entry else None,
        saved=saved,
        elapsed=last.elapsed if last else entry.elapsed if entry else None,
        polls=last.polls if last else None,
    )


def watch(
    client: KlingClient,
    generation_id: str,
    console: Console,
    timeout: float,
    *,
    quiet: bool = False,
) -> tuple[Generation, Progress | None]:
    """Waits while the console shows how it stands; the generation, and the last Progress.

    ``quiet``: only what the user should know is shown, such as an outage.
    """
    last: Progress | None = None
    with console.watching(client.clock) as show:

        def update(progress: Progress) -> None:
            nonlocal last
            last = progress
            if progress.note or not quiet:
                show(progress)

        generation = client.wait(generation_id, timeout=timeout, on_update=update)
    return generation, last


def _completed(generation: Generation, last: Progress | None, sandbox: bool) -> str:
    text = "Completed"
    if last is not None and last.polls > 1:  # else it had ended before the first poll
        text += f" after {clock_time(last.elapsed)}{' of sandbox time' if sandbox else ''}"
        text += f" with {last.polls} polls"
    usd = cost.spent(generation.usage)
    if usd is not None:
        text += f", {money(usd)}{' of play money' if sandbox else ''}"
    expires = generation.video.expires_at if generation.video else None
    if expires and expires.timestamp() - time.time() < _EXPIRES_SOON:
        text += f"; its link ends {expires:%Y-%m-%d %H:%M} UTC"
    return text
