"""What a team's records hold, and how they are named.

The names of all submissions of one request begin alike and end with a number, so that creating the
next one is the claim: of several machines one succeeds, with one round trip and without a lock. A
record is written by the machine that submits and, once it has an id, by each that sees the
generation end. An intent is never written over by another machine: that it was passed over follows
from a later number, and that it was forgotten is a record of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import identity
from ..errors import LedgerError
from ..records import RecordStore, unreadable
from ..submission import FORMAT, Entry, Owner, Record, State

REQUESTS = "requests/"
_CHUNK = 500  # records that are read side by side
_RECORD = re.compile(rf"{REQUESTS}[0-9a-f]{{8}}/[0-9a-f]{{2}}/[0-9a-f]{{40}}-[0-9]+-[0-9]{{4,9}}")
_FORGOTTEN = ".forgotten"
_GIVEN_UP = ".given-up"  # of a doubt: an id that arrives later ends it

# An older number in one of these states decides nothing.
_VOID = (State.REFUSED, State.ABANDONED, State.FORGOTTEN)
_OPEN = (State.INTENT, State.ABANDONED)
_TAKEN = (State.SUBMITTED, State.COMPLETED, State.FAILED)


def prefix(base_url: str, fingerprint: str, take: int) -> str:
    """How the names of the submissions of a request begin."""
    account = hashlib.sha256(identity.account(base_url).encode()).hexdigest()[:8]
    return f"{REQUESTS}{account}/{fingerprint[:2]}/{fingerprint[:40]}-{take}-"


def numbered(prefix: str, number: int) -> str:
    return f"{prefix}{number:04d}"


def number_of(name: str) -> int:
    return int(name.rpartition("-")[2])


def of_request(store: RecordStore, prefix: str, name: str = "") -> dict[str, Entry]:
    """The submissions of a request by their names, the oldest first.

    ``name`` is read whether it is listed or not: lists of some stores lag behind. What follows from
    others is in their states: passed over by a later one, or forgotten. Raises LedgerError where
    one of them is unreadable: it may be of something paid for.
    """
    names = store.names(prefix)
    wanted = dict.fromkeys(each for each in (*names, name) if is_record(each))
    return _entries(store.read_many(wanted), names)


def of_requests(store: RecordStore, prefixes: Collection[str]) -> dict[str, dict[str, Entry]]:
    """What ``of_request`` gives for each of many at one gateway, by their prefixes.

    All names there are listed once, and what is wanted of them is read together.
    """
    found: dict[str, list[str]] = {prefix: [] for prefix in prefixes}
    account = next(iter(found)).split("/")[1]
    for name in store.names(f"{REQUESTS}{account}/"):
        if (names := found.get(f"{name.rpartition('-')[0]}-")) is not None:
            names.append(name)
    records = [name for names in found.values() for name in names if is_record(name)]
    values: dict[str, dict[str, Any]] = {}
    for start in range(0, len(records), _CHUNK):
        values |= store.read_many(records[start : start + _CHUNK])
    return {
        prefix: _entries({name: values[name] for name in names if name in values}, names)
        for prefix, names in found.items()
    }


def _entries(values: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, Entry]:
    entries = {name: from_json(values[name], name) for name in sorted(values, key=number_of)}
    states = consequences({name: entry.state for name, entry in entries.items()}, names)
    for name, state in states.items():
        entries[name] = replace(entries[name], record=entries[name].record.ended(state))
    return entries


def consequences(states: Mapping[str, State], names: Iterable[str]) -> dict[str, State]:
    """The submissions whose state is another one because of later ones, or marks in ``names``."""
    marks = [name for name in names if is_mark(name)]
    marked = {name.removesuffix(_FORGOTTEN) for name in marks}
    given_up = {name.removesuffix(_GIVEN_UP) for name in marks}
    changed = {
        name: State.FORGOTTEN
        for name, state in states.items()
        if name in marked or (name in given_up and state in _OPEN)
    }
    taken: set[str] = set()  # requests of which a later number was taken
    for name in sorted(states, key=number_of, reverse=True):
        where = name.rpartition("-")[0]
        if name in changed:
            continue
        if states[name] is State.INTENT and where in taken:
            changed[name] = State.ABANDONED
        elif states[name] in _TAKEN:
            taken.add(where)
    return changed


def deciding(entries: Mapping[str, Entry]) -> Entry | None:
    """The submission that says what to do: the newest, one that failed only where no other is."""
    found = [entry for entry in entries.values() if entry.state not in _VOID]
    alive = [entry for entry in found if entry.state is not State.FAILED]
    return next(reversed(alive or found), None)


def is_record(name: str) -> bool:
    """Whether it is one of a submission; what else lies there is none of ours."""
    return _RECORD.fullmatch(name) is not None


def is_mark(name: str) -> bool:
    """Whether it only says of another record that it is forgotten."""
    marked, dot, ending = name.partition(".")
    return is_record(marked) and f"{dot}{ending}" in (_FORGOTTEN, _GIVEN_UP)


def forgotten(name: str, state: State) -> str:
    """The name of the record that says so of one that is in this state."""
    return f"{name}{_GIVEN_UP if state in _OPEN else _FORGOTTEN}"


def to_json(entry: Entry) -> dict[str, Any]:
    value: dict[str, Any] = {
        **entry.record.to_json(),
        "base_url": entry.base_url,
        "take": entry.take,
        "duration": entry.duration,
        "prompt": entry.prompt,
        "request": entry.request,
        "submitted_at": entry.submitted_at,
        "elapsed": entry.elapsed,
        "usage": entry.usage,
        "error": entry.error,
        "path": str(entry.path) if entry.path else None,
        "size": entry.size,
        "sha256": entry.sha256,
        "key_hash": entry.key_hash,
        "tag": entry.tag,
        "error_kind": entry.error_kind,
    }
    if entry.owner:
        owner = entry.owner
        value["owner"] = {"user": owner.user, "host": owner.host, "pid": owner.pid}
    return value


def from_json(value: Mapping[str, Any], name: str) -> Entry:
    """Raises UnreadableRecordError for what is no record of the submission that it is named after.

    So does a format yet to come: what it says is not known here.
    """
    made = value.get("format")
    if not isinstance(made, int) or made > FORMAT:
        raise unreadable(name, f"its format is {made!r}")
    try:
        entry = _entry(value)
    except (LedgerError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise unreadable(name, f"{type(error).__name__}: {error}") from None
    if not name.startswith(prefix(entry.base_url, entry.record.fingerprint, entry.take)):
        raise unreadable(name, "it is of another request")
    if entry.state in _TAKEN and not entry.generation_id:
        raise unreadable(name, "it has no id")
    return entry


def _entry(value: Mapping[str, Any]) -> Entry:
    owner = value.get("owner")
    return Entry(
        record=Record.from_json(value),
        base_url=str(value["base_url"]),
        take=int(value["take"]),
        duration=_number(value.get("duration"), int),
        prompt=_text(value.get("prompt")),
        request=dict(value.get("request") or {}),
        submitted_at=_number(value.get("submitted_at"), float),
        elapsed=_number(value.get("elapsed"), float),
        usage={str(k): float(v) for k, v in dict(value.get("usage") or {}).items()},
        error=_text(value.get("error")),
        path=Path(value["path"]) if value.get("path") else None,
        size=_number(value.get("size"), int),
        sha256=_text(value.get("sha256")),
        key_hash=_text(value.get("key_hash")),
        tag=_text(value.get("tag")),
        error_kind=_text(value.get("error_kind")),
        owner=Owner(str(owner["user"]), str(owner["host"]), int(owner["pid"])) if owner else None,
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any, kind: type[Any]) -> Any:
    return None if value is None else kind(value)
