"""Where ``--out`` leads: checked, and taken for this run alone, before anything is paid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import identity, settings
from ..core.errors import InvalidRequestError, KlingError, NextStep, StoppedWaiting, Verb
from ..core.storage import file_names, safe_files, saved_files
from ..core.storage.target_lock import TargetLock, resolved

if TYPE_CHECKING:
    from ..core.storage.ledger import Ledger


def check_output(output: str | None) -> None:
    """Raises InvalidRequestError for an --out that cannot be written: before anything is paid."""
    try:
        path = path_of("." if output is None else output)
        is_folder = _is_folder(output, path)
        (file_names.check_folder if is_folder else file_names.check_file)(path)
    except (OSError, ValueError, RuntimeError) as trouble:  # a NUL in it, an unknown user
        raise InvalidRequestError(
            f"--out {(output or '')[:200]!r} cannot name a file: {trouble}."
        ) from None


def path_of(output: str) -> Path:
    """The path on this disk that --out names. Raises InvalidRequestError for an address."""
    return Path(file_names.local_target(output)).expanduser()


def file_of(output: str | None) -> Path | None:
    """The file that --out names; None for a folder, where each video has a name of its own."""
    if output is None:
        return None
    path = path_of(output)
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
    return output is None or output.endswith(file_names.SEPARATORS) or path.is_dir()
