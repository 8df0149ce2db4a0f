"""Who runs this, as records that several share name it."""

from __future__ import annotations

import getpass
import os
import platform
from functools import cache

from ..submission import Entry, Owner


def this_owner() -> Owner:
    """The user, machine and process that run this; a user without a name has a number."""
    return Owner(_user(), platform.node() or "?", os.getpid())


def is_own(entry: Entry) -> bool:
    """Whether this user submitted it, on whichever machine; without an owner it is not shared."""
    return entry.owner is None or entry.owner.user == this_owner().user


def colleague(entry: Entry | None) -> Owner | None:
    """The other user, or other machine, that submitted it; None for one's own on this machine."""
    if entry is None or entry.owner is None:
        return None
    mine = this_owner()
    return None if (entry.owner.user, entry.owner.host) == (mine.user, mine.host) else entry.owner


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # none in a container without /etc/passwd
        return str(getattr(os, "getuid", lambda: "?")())
