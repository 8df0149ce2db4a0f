"""``kling forget``: give up a generation that leads nowhere, or a submission in doubt."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..core import settings
from ..core.storage.owner import colleague
from ..core.submission import State
from ._arguments import UsageError, add_command
from ._context import find, user_ledger
from ._exit_codes import DONE
from ._text import one_line

if TYPE_CHECKING:
    from ..core.storage.ledger import Ledger
    from ..core.submission import Entry
    from ._console import Console

_IN_DOUBT = (State.INTENT, State.ABANDONED)


def add(commands: Any) -> None:
    """Adds the command to the grammar."""
    forget = add_command(
        commands,
        "forget",
        _run_forget,
        "give up a generation that is not found any more, or a submission in doubt",
        epilog="It is neither waited for nor looked up again, and the next run of the same "
        "request pays.\nNothing is cancelled: the gateway has no cancel.",
    )
    forget.add_argument(
        "id",
        metavar="ID",
        help="an id or the beginning of one, or a client request id that recover shows",
    )


def _run_forget(args: argparse.Namespace, console: Console) -> int:
    ledger = user_ledger()
    entry = _entry(args.id, ledger, settings.base_url())
    if entry.state not in (State.SUBMITTED, State.FORGOTTEN, *_IN_DOUBT):
        raise UsageError(
            f"Generation {entry.generation_id} is {entry.state}: nothing waits for it, so there is "
            "nothing to forget. To pay for another one of its request: --new"
        )
    if entry.state in (State.SUBMITTED, *_IN_DOUBT):
        _forget(entry, ledger)
    console.say(f"Forgotten: {entry.generation_id or entry.record.client_request_id}")
    console.say(f"  “{one_line(entry.prompt, 60)}” ({entry.record.model})")
    if entry.generation_id:
        console.note(
            "If it runs at the gateway it goes on, and is billed when it completes. "
            "The next run of the same request pays for another one."
        )
    else:
        console.note(
            "Whether it was taken and paid stays unknown. The next run of the same request pays, "
            "which may be for the second time."
        )
    console.result(
        {
            "generation_id": entry.generation_id,
            "client_request_id": entry.record.client_request_id,
            "status": State.FORGOTTEN.value,
            "may_have_been_paid": True,
        }
    )
    return DONE


def _entry(word: str, ledger: Ledger, base_url: str) -> Entry:
    """The record that the word names; raises UsageError where there is none."""
    if entry := ledger.submission(word):
        return entry
    _, found = find(word, ledger, base_url)
    if found is None:
        raise UsageError(f"The ledger has no generation and no submission in doubt {word[:60]!r}.")
    return found


def _forget(entry: Entry, ledger: Ledger) -> None:
    """Writes it down, unless another process is submitting it at this moment."""
    lock = ledger.lock(entry.record)
    # Asked before the lock is taken, which is how it tells that of this machine.
    if ledger.is_submitting(entry) or not lock.try_acquire():
        by = " on another machine" if colleague(entry) else ""
        raise UsageError(
            f"It is being submitted right now, by another process{by}: see what comes."
        )
    try:
        ledger.forget(entry)
    finally:
        lock.release()
