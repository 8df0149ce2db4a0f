"""Where ``--out`` leads: checked, and taken for this run alone, before anything is paid."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import identity, settings
from ..core.errors import InvalidRequestError, KlingError, NextStep, StoppedWaiting, Verb
from ..core.storage import safe_files, saved_files
from ..core.storage.target_lock import TargetLock, resolved

if TYPE_CHECKING:
    from ..core.storage.ledger import Ledger

_LONGEST_NAME = 255  # bytes of one part of a path


def check_output(output: str | None) -> None:
    """Raises InvalidRequestError for an --out that cannot be written: before anything is paid."""
    try:
        path = Path(output or ".").expanduser()
        os.fspath(path).encode()  # bytes that are no UTF-8 cannot be written down
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
            raise ValueError("a name in it is too long")
        is_folder = _is_folder(output, path)
        folder = path if is_folder else path.parent
        while not folder.exists() and not folder.is_symlink():
            folder = folder.parent  # it will be made when there is something to put into it
    except UnicodeError:
        raise InvalidRequestError("--out cannot name a file: it is no Unicode text.") from None
    except (OSError, ValueError, RuntimeError) as trouble:
        raise InvalidRequestError(
            f"--out {(output or '')[:200]!r} cannot name a file: {trouble}."
        ) from None
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InvalidRequestError(
            f"The video could not be saved: {folder} is not a folder that can be written. "
            "Nothing was done.",
            next_steps=[NextStep(Verb.SET_OUTPUT)],
        )
    if not is_folder:
        safe_files.check_target(path)


def file_of(output: str | None) -> Path | None:
    """The file that --out names; None for a folder, where each video has a name of its own."""
    if output is None:
        return None
    path = Path(output).expanduser()
    return None if _is_folder(output, path) else resolved(path)


def is_foreign(ledger: Ledger | None, target: Path, generation_id: str | None) -> bool:
    """Whether a file at ``target`` is the user's own, which no video may replace unasked.

    A video of ours is none, nor is a copy of it: that of ``generation_id`` is written again, one
    of another generation is kept aside.
    """
    if not safe_files.is_foreign(target):
        return False
    for entry in ledger.at(target) if ledger else ():
        if entry.generation_id == generation_id or saved_files.is_video_of(target, entry):
            return False
    return True


@contextmanager
def reserved(
    ledger: Ledger | None,
    output: str | None,
    *names: str,
    generation_id: str | None = None,
    overwrite: bool = False,
) -> Iterator[TargetLock | None]:
    """Holds the file of --out for one video, from before the payment until it is saved.

    ``names`` are those of the video, see ``TargetLock.acquire``; None is given where there is
    nothing to hold. Raises InvalidRequestError for a file of the user's own (unless
    ``overwrite``) and for one that another run is going to write.
    """
    target = file_of(output)
    if target is None:
        yield None
        return
    if not overwrite and is_foreign(ledger, target, generation_id):
        raise refused(target)
    if ledger is None:  # only what is paid for already is saved without one
        yield None
        return
    lock = TargetLock(settings.home(), target)
    try:
        lock.acquire(*names)
        yield lock
    finally:
        lock.release()


def refused(target: Path) -> InvalidRequestError:
    """A file of the user's own is in the way."""
    return InvalidRequestError(
        f"{str(target)[:200]!r} exists and was not made here: it is left as it is, and nothing "
        "was done.",
        hint="To replace it: --overwrite",
        next_steps=[NextStep(Verb.SET_OUTPUT)],
    )


def request_name(base_url: str, fingerprint: str) -> str:
    """A request's name for its lock: the same one at another gateway is another video."""
    return f"{identity.account(base_url)} {fingerprint}"


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


def _is_folder(output: str | None, path: Path) -> bool:
    return output is None or output.endswith(("/", os.sep)) or path.is_dir()
