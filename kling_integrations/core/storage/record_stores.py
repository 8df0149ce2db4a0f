"""The store of records that an address names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import InvalidRequestError
from ..records import RecordStore, unreachable
from . import object_files
from .bucket_records import BucketRecords
from .folder_records import FolderRecords


def is_address(text: str) -> bool:
    """Whether it names a store of records (``s3://…``, ``file:///…``) and no file of SQLite."""
    return "://" in text


def open_store(address: str) -> RecordStore:
    """The store at ``s3://bucket/prefix``, ``gs://…``, ``abfs://…`` or ``file:///folder``.

    Credentials are those that the platform's tools use. Raises InvalidRequestError for another
    kind of address, and LedgerError where its driver is not installed or refuses it.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "file":
        return FolderRecords(_folder(address), shared=True)
    if scheme not in object_files.EXTRAS:
        raise InvalidRequestError(
            f"Records cannot be kept at {scheme}://: S3 (s3://), Google Cloud Storage (gs://), "
            "Azure Blob Storage (abfs://) and a folder (file:///) can create a file only if it is "
            "not there, which is what keeps two processes from paying for the same video."
        )
    if not rest.strip("/"):
        raise InvalidRequestError(f"{address} names no bucket.")
    filesystem, root = _filesystem(address)
    return BucketRecords(filesystem, root)


def _filesystem(address: str) -> tuple[Any, str]:
    try:
        # Others write there, too: what was listed a moment ago says nothing.
        return object_files.filesystem(address, use_listings_cache=False, skip_instance_cache=True)
    except InvalidRequestError:
        raise
    except Exception as error:
        raise unreachable(address, error) from error


def _folder(address: str) -> Path:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise InvalidRequestError(
            f"{address} names the host {parts.netloc!r}; a folder has three slashes: file:///…"
        )
    folder = Path(unquote(parts.path))
    if folder == Path("/"):
        raise InvalidRequestError(f"{address} names no folder.")
    return folder
