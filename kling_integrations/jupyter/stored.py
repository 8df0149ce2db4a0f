"""What there is without paying: videos that were made before, and the sandbox."""

from __future__ import annotations

import os
from typing import Any

from ..commands import find
from ..core import settings
from ..core.errors import InvalidRequestError, NextStep, Verb
from ..core.generation import Saved
from ..core.storage.saved_files import saved_file
from ..core.submission import Entry
from .session import current
from .video import KlingVideo


def video_of(word: str) -> KlingVideo:
    """The finished video that an id means, fetched where it is not here yet."""
    session = current()
    generation_id, entry = find(word, session.ledger, settings.base_url())
    if (video := saved_video(entry)) is not None:
        return video
    with session.interruptible() as jobs:
        job = session.resume(generation_id, jobs=jobs)
        session.wait(jobs)
    return job.result()


def saved_video(entry: Entry | None) -> KlingVideo | None:
    """The video of a record whose file is there."""
    saved = saved_file(entry)
    if entry is None or saved is None:
        return None
    return video_of_record(entry, saved)


def video_of_record(entry: Entry, saved: Saved) -> KlingVideo:
    """The video of a record and its file."""
    return KlingVideo.from_file(saved, entry.generation(), entry.base_url, entry=entry)


def start_sandbox(**options: Any) -> Any:
    """A sandbox in this process, in use from now on; ``options`` are those of ``Sandbox``.

    Raises InvalidRequestError without the package that makes its videos.
    """
    try:
        from ..sandbox import Sandbox
    except ImportError as error:
        raise InvalidRequestError(
            f"The sandbox needs a package that is not here: {error.name}.",
            next_steps=[NextStep(Verb.INSTALL, detail="sandbox")],
        ) from None
    sandbox = Sandbox(**options)
    sandbox.start()
    os.environ["AIML_BASE_URL"] = sandbox.base_url
    return sandbox
