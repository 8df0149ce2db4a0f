"""What a command works with: the client, the ledger, and the generation that a word means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..core import identity, protocol, settings
from ..core.errors import GenerationFailedError, InvalidRequestError, KlingError, LedgerError
from ..core.generation import Status
from ..core.storage.ledger import Ledger
from ..core.storage.owner import is_own
from ..core.submission import State
from ._arguments import UsageError

if TYPE_CHECKING:
    from ..core.generation import Generation
    from ..core.http.client import KlingClient
    from ..core.submission import Entry
    from ._console import Console

_MOST_SEARCHED, _ALL = 1000, 1_000_000  # records that are looked through, at first and at last
_SHORTEST_PREFIX = 6  # characters of an id that may stand for the whole


def key_variable() -> str | None:
    """The environment variable that holds the key; None without one."""
    return next((name for name in settings.KEY_VARIABLES if os.environ.get(name, "").strip()), None)


def connect(ledger: Ledger | None = None) -> KlingClient:
    """The client for the gateway of the environment; the sandbox needs no key.

    Raises AuthenticationError without a key, InvalidRequestError for an unsafe address.
    """
    from ..core.http.client import KlingClient

    return KlingClient(ledger=ledger)


def user_ledger() -> Ledger:
    """The user's ledger; raises UsageError where KLING_HOME cannot name a folder."""
    try:
        settings.home()
    except LedgerError as error:
        raise UsageError(error.message, next_steps=error.next_steps) from None
    return Ledger()


def readable_ledger(console: Console) -> Ledger | None:
    """The ledger, or None with a note when it is unusable: what is paid can still be fetched."""
    ledger = Ledger()
    try:
        ledger.history(1)
    except (InvalidRequestError, LedgerError) as error:
        console.note(f"{error.message} Going on without it.")
        return None
    return ledger


def find(word: str, ledger: Ledger | None, base_url: str) -> tuple[str, Entry | None]:
    """The generation that ``word`` means, with its record where there is one.

    An id, the beginning of one that the ledger knows, or ``last``: the user's own last one, also
    where a team shares the ledger. Any other word is taken as an id that the ledger does not know.
    Raises UsageError for a beginning that fits several, InvalidRequestError for what cannot be an
    id.
    """
    word = protocol.check_id(word)
    if ledger is None:
        if word == "last":
            raise UsageError("Which generation was the last is unknown without the ledger.")
        return word, None
    if entry := ledger.entry(base_url, word):
        return word, entry
    if word == "last":
        if (last := last_own(ledger, base_url)) is None:
            raise UsageError("There is no last generation: nothing was submitted from here yet.")
        return last.generation_id or word, last
    fits = [
        entry
        for entry in ledger.history(_MOST_SEARCHED, search=word)
        if identity.account(entry.base_url) == identity.account(base_url)
        and entry.generation_id
        and entry.generation_id.startswith(word)
    ]
    if len(word) < _SHORTEST_PREFIX:
        fits = []
    if len(fits) > 1:
        raise UsageError(
            f"{word!r} is the beginning of several ids: "
            f"{', '.join(entry.generation_id or '' for entry in fits[:5])}."
        )
    if not fits:
        return word, None
    return fits[0].generation_id or word, fits[0]


def last_own(ledger: Ledger, base_url: str) -> Entry | None:
    """The newest generation that this user submitted."""
    account = identity.account(base_url)
    for limit in (_MOST_SEARCHED, _ALL):
        entries = ledger.history(limit)
        for entry in entries:
            same = identity.account(entry.base_url) == account
            if same and entry.generation_id and is_own(entry):
                return entry
        if len(entries) < limit:
            break
    return None


def uncertain(ledger: Ledger | None, base_url: str) -> list[Entry]:
    """Submissions that block a repetition; those that the user paid past no longer matter."""
    if ledger is None:
        return []
    return [entry for entry in ledger.uncertain(base_url) if entry.state is State.INTENT]


def adopt(
    client: KlingClient, ledger: Ledger | None, generation: Generation, console: Console
) -> Entry | None:
    """Attaches a generation without a record to the submission in doubt that it came from.

    Its id may not have been written down after the POST. The gateway's log, which is free, says
    which submission it was; where it does not, nothing is guessed and None is returned.
    """
    base_url = client.endpoint.base_url
    if ledger is None or not ledger.uncertain(base_url):
        return None
    try:
        client.recover()
        entry = ledger.entry(base_url, generation.id)
        if entry is not None and generation.status is Status.COMPLETED:
            ledger.completed(base_url, generation, None)
    except KlingError as error:
        console.note(f"Submissions in doubt could not be looked up: {error.message}")
        return None
    if entry is not None:
        console.note("It came from a submission without a known outcome: that one is known now.")
    return entry


def poll(client: KlingClient, ledger: Ledger | None, generation_id: str) -> Generation:
    """One poll; a generation that has ended is marked so in the ledger. Raises KlingError."""
    from ..core.waiting import ended

    generation = client.get(generation_id)
    if ledger and generation.is_terminal:
        base_url = client.endpoint.base_url
        try:
            ledger.completed(base_url, ended(generation), None)
        except GenerationFailedError as error:
            ledger.wait_failed(base_url, error)
    return generation
