"""What a store of records has to do is tried before anything is paid, once per address and machine.

That creating is exclusive, that a record can be written over, read and listed is documented by all
of them and kept by not all: servers of S3 that ignore ``If-None-Match``, drivers that do not send
it, credentials that may create and not overwrite. What was tried is remembered under KLING_HOME
for a month; where that is wiped, it is tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import settings
from ..errors import LedgerError
from ..records import unreachable
from .owner import this_owner

_MONTH = 30 * 86400.0
_RACERS = 2  # with one look before, a write, a read and a list: six requests

# What makes the same address another store, or the same store one for other credentials.
_ELSEWHERE = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"),
    *("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_NAME"),
)


def key_of(address: str, *more: object) -> str:
    """Under what is remembered that a store was tried."""
    told = [address, *map(repr, more), *(os.environ.get(name, "") for name in _ELSEWHERE)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32]


def was_tried(key: str) -> bool:
    try:
        return 0.0 <= time.time() - _mark(key).stat().st_mtime < _MONTH
    except (OSError, LedgerError):
        return False


def remember(key: str, address: str) -> None:
    """Where it cannot be written down, it is tried again another time."""
    with suppress(OSError, LedgerError):
        mark = _mark(key)
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.write_text(f"{address}\n", "utf-8")


def _mark(key: str) -> Path:
    return settings.home() / "stores" / key


# --- a bucket ----------------------------------------------------------------------------------


def try_bucket(files: Any, root: str, read: Callable[[str], bytes]) -> None:
    """Raises LedgerError for a bucket that cannot hold records, with the step that failed.

    One object of this machine stays in ``root``; no right to delete is needed. Two processes that
    try at the same moment do not disturb each other.
    """
    owner = this_owner()
    who = hashlib.sha256(f"{owner.user}@{owner.host}".encode()).hexdigest()[:12]
    path = f"{root}/probe/{who}"  # without the ending of a record, no list takes it for one
    made = [_content("created", owner.host) for _ in range(_RACERS)]
    written = _content("written over", owner.host)

    with ThreadPoolExecutor(_RACERS) as racers:
        came = list(racers.map(lambda data: _created(files, path, data, root), made))
    if came.count(True) > 1:
        raise _refused(
            root,
            f"{came.count(True)} of {_RACERS} that created one object at the same moment were told "
            "that they had: two machines could pay for the same video",
        )
    if None in came and _created(files, path, made[0], root):
        raise _refused(
            root,
            "one object was created twice, one time after the other: two machines could pay for "
            "the same video",
        )
    with _step(root, "write over what is there"):
        files.pipe_file(path, written)
    with _step(root, "read what was written"):
        stored = read(path)
    if stored != written and not _is_written_over(stored):
        raise _refused(root, "what was written is not what is read a moment later")
    with _step(root, "list what is there"):
        files.invalidate_cache()
        folder, _, name = path.rpartition("/")
        listed = files.find(folder, prefix=name)
    if not any(each.strip("/").endswith(path.strip("/")) for each in listed):
        raise _refused(root, "what was written is not listed")


def _content(state: str, host: str) -> bytes:
    told = {"probe": state, "by": host, "token": uuid.uuid4().hex}
    return json.dumps({**told, "why": "kling-integrations tries what records need"}).encode()


def _is_written_over(stored: bytes) -> bool:
    """By another process of this machine, at this moment."""
    try:
        return bool(json.loads(stored)["probe"] == "written over")
    except (ValueError, KeyError, TypeError):
        return False


def _created(files: Any, path: str, data: bytes, root: str) -> bool | None:
    """Whether it was created; None for "not now" (409), which says nothing about what is there."""
    with _step(root, "create an object only if it is not there"):
        try:
            files.pipe_file(path, data, mode="create")
        except Exception as error:
            if is_taken(error):
                return False
            if status_of(error) == 409:
                return None
            raise
    return True


class _step:  # noqa: N801 (it reads as a statement)
    def __init__(self, root: str, what: str) -> None:
        self._root, self._what = root, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, LedgerError):
            return
        if isinstance(error, PermissionError) or status_of(error) in (401, 403, 405, 501):
            words = " ".join(str(error).split())[:200]
            raise _refused(self._root, f"it is not possible to {self._what} ({words})") from error
        raise unreachable(self._root, error) from error


def _refused(where: str, why: str) -> LedgerError:
    return LedgerError(
        f"Records cannot be kept in {where}: {why}. Nothing was submitted.",
        hint="Stores that were tried are named in the documentation of the shared ledger.",
    )


# --- what drivers say --------------------------------------------------------------------------


def is_taken(error: BaseException) -> bool:
    """Whether a conditional create says that the name is taken: a 412, in whatever words."""
    return isinstance(error, FileExistsError) or status_of(error) == 412


def is_absent(error: BaseException) -> bool:
    """Whether an object is not there, in a bucket that is: then a driver says FileNotFoundError."""
    gone = (
        "nosuchbucket",
        "bucket does not exist",
        "containernotfound",
        "container does not exist",
    )
    if not isinstance(error, FileNotFoundError):
        return False
    return not any(word in f"{each!r} {each}".lower() for each in chain(error) for word in gone)


def status_of(error: BaseException) -> int | None:
    """The status of the HTTP reply behind a driver's error, where there is one."""
    for each in chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict):  # botocore
            meta = response.get("ResponseMetadata") or {}
            if isinstance(meta.get("HTTPStatusCode"), int):
                return int(meta["HTTPStatusCode"])
            if response.get("Error", {}).get("Code") in ("PreconditionFailed", "412"):
                return 412
        for name in ("status_code", "status", "code"):
            value = getattr(each, name, None)
            if str(value).isdecimal() and 400 <= int(str(value)) < 600:
                return int(str(value))
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def again_while_busy(work: Callable[[], bool]) -> bool:
    """A create that gets 409 (another one is under way) is repeated after a pause, five times."""
    for tries in range(5):
        try:
            return work()
        except Exception as error:
            if is_taken(error) or status_of(error) != 409:
                raise
        time.sleep(0.2 * 2**tries)
    return work()
