"""Where records of payments are kept: a small protocol, and the name of each record. No I/O.

A store holds JSON objects under names such as ``1a2b3c4d/0f…/0001``. What a record means is
decided in ``core.submission``; a store only keeps it: on a disk (``storage.folder_records``), in a
bucket (``storage.bucket_records``), in SQLite (``storage.sqlite_records``) or in Airflow's task
state store (``airflow.task_state``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from .errors import LedgerError, LedgerUnreachableError

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class UnreadableRecordError(LedgerError):
    """A record is there and cannot be read; it may be of something paid for."""


class RecordStore(Protocol):
    """JSON objects by name. Every method may block, and raises LedgerError where the store fails.

    A value that is no JSON object raises UnreadableRecordError when it is read: it is not absent.
    """

    def read(self, name: str) -> dict[str, Any] | None:
        """The value, or None where there is none."""
        ...

    def read_many(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The values that are there, by name; quicker than one after the other."""
        ...

    def create(self, name: str, value: Mapping[str, Any]) -> bool:
        """Stores the value if the name is free; False where it is taken.

        Of several processes that create a name at the same moment one gets True. A value that is
        stored is whole, whenever the process dies.
        """
        ...

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Stores the value in place of what is there: the old one or the new one, never a part."""
        ...

    def names(self, prefix: str = "") -> dict[str, str]:
        """The names that begin so, each with a text that is another one after a write."""
        ...


def checked(name: str) -> str:
    """The name; ValueError for one that could leave its folder, or that some store cannot hold."""
    if not _NAME.fullmatch(name) or len(name) > 500:
        raise ValueError(f"{name!r} is no name of a record.")
    return name


def dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def load(stored: bytes | str, where: str) -> dict[str, Any]:
    """The value; LedgerError for what is no JSON object."""
    try:
        value = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise unreadable(where, type(error).__name__) from None
    if not isinstance(value, dict):
        raise unreadable(where, f"a {type(value).__name__}")
    return value


def unreadable(where: str, why: str) -> UnreadableRecordError:
    return UnreadableRecordError(
        f"The record {where} is unreadable ({why}).",
        hint="It may be of something paid for: nothing is submitted while it is there. Repair it, "
        "or move it away knowing that what it held is forgotten.",
    )


def unreachable(where: str, error: BaseException) -> LedgerUnreachableError:
    """For a store that cannot be reached; in few words, for a driver's can hold anything."""
    words = " ".join(str(error).split())[:200]
    return LedgerUnreachableError(
        f"The records in {where} cannot be reached ({type(error).__name__}: {words})."
    )
