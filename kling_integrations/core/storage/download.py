"""Saving a finished video: streamed into a file beside the target, checked, then renamed.

One synchronous engine for all (the async client runs it in a thread). What it
promises: the target is either untouched or whole; nothing half-written stays behind; memory is
constant; a cut goes on where it ended; the API key is never sent (the address belongs to a CDN,
not to the gateway); a signed query string, which opens the video to every reader, reaches
neither logs nor errors.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..concealed import SignedUrl
from ..errors import InvalidRequestError
from ..generation import Saved
from ..settings import Clock
from ..waiting import Transfer, TransferProgress
from . import safe_files
from .file_names import resolve_target
from .partial_file import PartialFile
from .transfer import Fetch, TryAgainError, redact_urllib3

if TYPE_CHECKING:
    import requests

STALLED = 300.0  # seconds without progress worth the name before giving up
MAX_SIZE = 4 * 2**30  # the longest documented video (15 s) has some tens of megabytes

_PROGRESS = 2**20  # bytes that an attempt must add to renew the patience
_WRONG_CONTENT_TRIES = 3
_BACKOFF = (1.0, 30.0)  # seconds: first, longest

_log = logging.getLogger(__name__)


def fetch(transfer: Transfer, clock: Clock | None = None) -> Saved:
    """Saves the video of a transfer to its file or into its folder (see ``resolve_target``).

    Raises LinkExpiredError when a fresh address is needed, else DownloadError.
    """
    path = resolve_target(
        transfer.target,
        file_name=transfer.video.file_name,
        generation_id=transfer.generation_id,
        prompt=transfer.prompt,
    )
    return save(
        transfer.video.url,
        path,
        expected_size=transfer.video.file_size,
        progress=transfer.progress,
        overwrite=transfer.overwrite,
        generation_id=transfer.generation_id,
        clock=clock,
    )


def save(
    url: str,
    target: str | os.PathLike[str],
    *,
    session: requests.Session | None = None,
    expected_size: int | None = None,
    timeout: float = 60.0,
    patience: float = STALLED,
    progress: TransferProgress | None = None,
    overwrite: bool = True,
    max_size: int = MAX_SIZE,
    generation_id: str | None = None,
    clock: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Saved:
    """Save the video at ``url`` (http or https) as the file ``target``, whose folder exists.

    ``timeout`` bounds each wait for the network, ``patience`` (both in seconds) the time spent on
    attempts that add next to nothing. ``progress(received, total)`` is called with bytes, at most
    ten times a second; ``total`` is None where the server does not say, ``received`` falls back
    when a server cannot resume, and an exception that it raises ends the download cleanly.
    ``expected_size`` is what the gateway announced: another size is refused, unless the boxes of
    the MP4 prove that the file is whole and the announcement wrong.

    Raises LinkExpiredError when a fresh address is needed, else DownloadError. Several calls may
    run at once in threads, also for the same target.
    """
    from ..http import requests_transport as transport

    url = SignedUrl(url)  # no traceback that shows local variables may show its signature
    target = Path(target)
    source = Fetch(
        url,
        session or transport.new_session(1),
        expected_size=expected_size,
        timeout=timeout,
        progress=progress,
        max_size=max_size,
        generation_id=generation_id,
    )
    if os.path.isdir(target):  # unlike Path's, it has no errors of its own
        raise source.error(f"{target} is a folder")
    try:
        safe_files.check_target(target)
    except InvalidRequestError as error:
        raise source.error(error.message.rstrip(".")) from None
    if not overwrite and safe_files.is_foreign(target):
        raise source.error(f"{target} exists already")
    part = PartialFile(target, source.error)
    redact_urllib3()
    try:
        part.open()
        _persist(source, part, patience, clock or Clock(), sleep)
        digest = part.finish(overwrite=overwrite)
        return Saved(target, part.size, digest, source.content_type)
    finally:
        part.discard()
        if session is None:
            source.session.close()


def _persist(
    source: Fetch, part: PartialFile, patience: float, clock: Clock, sleep: Callable[[float], None]
) -> None:
    """Attempts until the part is whole, for as long as they get somewhere."""
    most = wrong = failures = 0
    spent = 0.0  # transfers take real time whatever the clock says, the pauses go by the clock
    while True:
        began = time.monotonic()
        try:
            source.attempt(part)
            return
        except TryAgainError as caught:
            trouble = caught
        spent += time.monotonic() - began
        # Only bytes beyond the best so far count: a server that cuts and cannot resume would
        # otherwise renew the patience for ever.
        if part.size >= most + _PROGRESS:
            most, failures, spent = part.size, 0, 0.0
        first, longest = _BACKOFF
        delay = min(longest, first * 2**failures) * random.uniform(0.5, 1.0)
        delay = max(delay, trouble.wait or 0.0)
        failures = min(failures + 1, 10)
        if trouble.wrong_content:
            wrong += 1
            part.restart()
        spent += delay
        if wrong >= _WRONG_CONTENT_TRIES or spent > patience:
            # Out of the except block: the exceptions of requests print the whole address.
            raise source.error(trouble.reason)
        _log.info("%s: %s; again in %.1f s", source.shown, trouble.reason, delay)
        sleep(clock.real(delay))
