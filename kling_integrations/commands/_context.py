"""What a command works with: the client, the ledger, and the generation that a word means."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..core import settings
from ..core.errors import AuthenticationError, LedgerError
from ..core.storage.ledger import Ledger
from ._arguments import UsageError, flag

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ..core.submission import Entry
    from ._console import Console

_SHORTEST_PREFIX = 6  # characters of an id that may stand for the whole


def key_variable() -> str | None:
    """The environment variable that holds the key; None without one."""
    return next((name for name in settings.KEY_VARIABLES if os.environ.get(name, "").strip()), None)


def connect(args: argparse.Namespace, ledger: Ledger | None = None) -> KlingClient:
    """The client for the gateway of the environment.

    Raises AuthenticationError, with the ways on, where there is no key. The sandbox takes any.
    """
    from ..core.http.client import KlingClient

    base_url = settings.base_url()
    key = None
    if key_variable() is None:
        if not settings.is_sandbox(base_url):
            raise AuthenticationError(
                f"No API key: set {settings.KEY_VARIABLES[0]}, from the AI/ML API dashboard.",
                hint="Without a key or money: kling demo shows it in ten seconds, kling sandbox "
                "starts a stand-in to try everything.",
            )
        key = "sandbox"
    return KlingClient(key, base_url, legacy_endpoint=flag(args, "legacy_endpoint"), ledger=ledger)


def readable_ledger(console: Console) -> Ledger | None:
    """The ledger, or None with a note when it is unusable: what is paid can still be fetched."""
    ledger = Ledger()
    try:
        ledger.history(1)
    except LedgerError as error:
        console.note(f"{error.message} Going on without it.")
        return None
    return ledger


def find(word: str, ledger: Ledger | None, base_url: str) -> tuple[str, Entry | None]:
    """The generation that ``word`` means, with its record where there is one.

    An id, the beginning of one that the ledger knows, or ``last``. Any other word is taken as an
    id that the ledger does not know. Raises UsageError for a beginning that fits several.
    """
    if ledger is None:
        if word == "last":
            raise UsageError("Without the ledger nobody knows which was the last: give an id.")
        return word, None
    if entry := ledger.entry(base_url, word):
        return word, entry
    last = word == "last"
    fits = [
        entry
        for entry in ledger.history(1000, search="" if last else word)
        if entry.base_url == base_url
        and entry.generation_id
        and (last or entry.generation_id.startswith(word))
    ]
    if last:
        if not fits:
            raise UsageError("There is no last generation: nothing was submitted here yet.")
        fits = fits[:1]
    elif len(word) < _SHORTEST_PREFIX:
        fits = []
    if len(fits) > 1:
        raise UsageError(
            f"{word!r} is the beginning of several ids: "
            f"{', '.join(entry.generation_id or '' for entry in fits[:5])}."
        )
    if not fits:
        return word, None
    return fits[0].generation_id or word, fits[0]
