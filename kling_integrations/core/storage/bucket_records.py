"""Records as objects in a bucket: S3, Google Cloud Storage, Azure Blob Storage, by fsspec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InvalidRequestError
from ..records import checked, dump, load, unreachable

_ENDING = ".json"

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
        self._root = root.strip("/")

    def __str__(self) -> str:
        return self._root

    def read(self, name: str) -> dict[str, Any] | None:
        stored = self._stored(name)
        return None if stored is None else load(stored, self._path(name))

    def read_many(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        paths = {self._path(name): name for name in names}
        try:
            stored = self._fs.cat(list(paths), on_error="return") if paths else {}
        except Exception as error:
            raise unreachable(str(self), error) from error
        values = {}
        for path, data in stored.items():
            if isinstance(data, FileNotFoundError):
                continue
            if isinstance(data, BaseException):
                raise unreachable(str(self), data) from data
            values[paths[path]] = load(data, path)
        return values

    def create(self, name: str, value: Mapping[str, Any]) -> bool:
        path, data = self._path(name), dump(value)
        try:
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            # A driver repeats a request whose reply was lost, and then finds its own object.
            return self._stored(name) == data
        except Exception as error:
            raise unreachable(str(self), error) from error
        return True

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
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise unreachable(str(self), error) from error
        names = {
            path.removeprefix(f"{self._root}/").removesuffix(_ENDING): _version(info)
            for path, info in sorted(found.items())
            if path.endswith(_ENDING)
        }
        return {name: version for name, version in names.items() if name.startswith(prefix)}

    def _stored(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            data: bytes = self._fs.cat_file(path)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise unreachable(str(self), error) from error
        return data

    def _path(self, name: str) -> str:
        return f"{self._root}/{checked(name)}{_ENDING}"


def _version(info: Mapping[str, Any]) -> str:
    known = (
        info.get(key) for key in ("ETag", "etag", "generation", "LastModified", "last_modified")
    )
    return str(next((value for value in known if value), info.get("size")))
