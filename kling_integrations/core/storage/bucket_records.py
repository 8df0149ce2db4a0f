"""Records as objects in a bucket: S3, Google Cloud Storage, Azure Blob Storage, by fsspec."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from typing import Any

from ..errors import InvalidRequestError
from ..records import checked, dump, load, unreachable
from . import probes

_ENDING = ".json"
_AT_ONCE = 16  # records that are read side by side

# File systems whose ``mode="create"`` is one conditional request (If-None-Match on S3 and Azure,
# a generation match on Google Cloud Storage): read in s3fs, gcsfs and adlfs of 2026.
_CONDITIONAL = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})


class BucketRecords:
    """An object per record below ``root`` (``bucket/prefix``) of a file system of fsspec.

    Raises InvalidRequestError for a file system that cannot create exclusively: two processes
    would pay for the same video.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        kinds = filesystem.protocol
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        if not kinds & _CONDITIONAL:
            raise InvalidRequestError(
                f"Records cannot be kept on {'/'.join(sorted(kinds))}: it has no way to create a "
                "file only if it is not there, so two processes could pay for the same video. "
                "S3, Google Cloud Storage, Azure Blob Storage and a folder (file://) have one."
            )
        self._fs = filesystem
        # Drivers write "a//b" as it is and list "a/b": what was created would never be listed.
        self._root = "/".join(filter(None, root.split("/")))
        if {".", ".."} & set(self._root.split("/")):
            raise InvalidRequestError(f"{root} is no place for records: it goes up or nowhere.")
        # s3fs asks for the size of a file first, where it may read parts of it side by side.
        reading = getattr(filesystem, "_cat_file", None)
        parts = reading is not None and "max_concurrency" in signature(reading).parameters
        self._at_once = {"max_concurrency": 1} if parts else {}
        # The driver of Azure lists nothing, without an error, where there is no container.
        self._lists_what_is_gone = bool(kinds & {"abfs", "abfss", "az"})
        self._tried = False
        self._trying = threading.Lock()

    def __str__(self) -> str:
        return self._root

    def read(self, name: str) -> dict[str, Any] | None:
        stored = self._stored(name)
        return None if stored is None else load(stored, self._path(name))

    def read_many(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        # One by one, side by side: a driver's "cat" of a list takes names for patterns.
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return {}
        with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as readers:
            stored = dict(zip(wanted, readers.map(self._stored, wanted), strict=True))
        return {
            name: load(data, self._path(name)) for name, data in stored.items() if data is not None
        }

    def create(self, name: str, value: Mapping[str, Any]) -> bool:
        path, data = self._path(name), dump(value)
        if not self._tried:
            # First what is there: who may only read picks up what a colleague has paid for.
            if (stored := self._stored(name)) is not None:
                return stored == data
            self.probe()

        def create() -> bool:
            self._fs.pipe_file(path, data, mode="create")
            return True

        try:
            return probes.again_while_busy(create)
        except Exception as error:
            if probes.is_taken(error):
                # A driver repeats a request whose reply was lost, and then finds its own object.
                return self._stored(name) == data
            denied = isinstance(error, PermissionError) or probes.status_of(error) in (401, 403)
            if denied and (stored := self._stored(name)) is not None:
                return stored == data
            raise unreachable(str(self), error) from error

    def probe(self) -> None:
        """Tries once per address and machine what records need; raises LedgerError."""
        with self._trying:
            endpoint = getattr(self._fs, "endpoint_url", None)
            account = getattr(self._fs, "account_name", None)
            key = probes.key_of(f"{self._fs.protocol}{self._root}", endpoint, account)
            if not self._tried and not probes.was_tried(key):
                probes.try_bucket(self._fs, self._root, self._cat)
                probes.remember(key, self._root)
            self._tried = True

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        path, data = self._path(name), dump(value)
        try:
            self._fs.pipe_file(path, data)
        except Exception as error:
            raise unreachable(str(self), error) from error

    def names(self, prefix: str = "") -> dict[str, str]:
        try:
            self._fs.invalidate_cache()  # others write here, too
            folder, _, beginning = f"{self._root}/{prefix}".rpartition("/")
            found = self._fs.find(folder, detail=True, prefix=beginning)
        except Exception as error:
            if probes.is_absent(error):
                return {}
            raise unreachable(str(self), error) from error
        if not found and self._lists_what_is_gone:
            self._stored("absent")  # raises where the container is not there
        names = {
            path.removeprefix(f"{self._root}/").removesuffix(_ENDING): _version(info)
            for path, info in sorted(found.items())
            if path.endswith(_ENDING)
        }
        return {name: version for name, version in names.items() if name.startswith(prefix)}

    def _stored(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            return self._cat(path)
        except Exception as error:
            if probes.is_absent(error):
                return None
            raise unreachable(str(self), error) from error

    def _cat(self, path: str) -> bytes:
        data: bytes = self._fs.cat_file(path, **self._at_once)
        return data

    def _path(self, name: str) -> str:
        return f"{self._root}/{checked(name)}{_ENDING}"


def _version(info: Mapping[str, Any]) -> str:
    known = (
        info.get(key) for key in ("ETag", "etag", "generation", "LastModified", "last_modified")
    )
    return str(next((value for value in known if value), info.get("size")))
