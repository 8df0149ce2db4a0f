"""Where a batch of Airflow keeps what it knows: table, results and records, in any store."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from ..core.batch.results import Result
from ..core.batch.rows import Table
from ..core.errors import InvalidRequestError, KlingError, LedgerError
from ..core.records import RecordStore, unreachable
from ..core.request import VideoRequest
from ..core.storage import result_files, tables
from ..core.storage.bucket_records import BucketRecords
from ..core.storage.folder_records import FolderRecords
from ..core.storage.team_ledger import TeamLedger
from ..core.submission import Decision
from .object_storage import local_path, read_file

_PICTURES = "pictures"  # the name of the record of them


class RunLedger(TeamLedger):
    """The payments of one batch, in a store that every worker reaches.

    What a user of this machine paid for elsewhere is none of them: a new run makes new videos.
    """

    def pictures(self) -> dict[str, Any] | None:
        """What an earlier round kept of the pictures, see ``core.batch.pictures``."""
        return self._store.read(_PICTURES)

    def keep_pictures(self, value: Mapping[str, Any]) -> None:
        self._store.write(_PICTURES, value)

    def _own_decision(
        self,
        request: VideoRequest,
        base_url: str,
        *,
        new: bool,
        take: int,
        resubmit: str | None = None,
    ) -> Decision | None:
        return None


def open_ledger(address: str) -> RunLedger:
    """The records at a path or address. Raises InvalidRequestError, LedgerError."""
    return RunLedger(address, _store(address))


def _store(address: str) -> RecordStore:
    path = _path(address)
    local = local_path(path)
    if local is not None:
        return FolderRecords(local)
    try:
        return BucketRecords(path.fs, path.path)
    except KlingError:
        raise
    except Exception as error:
        raise unreachable(address, error) from error


def read_table(address: str) -> Table:
    """The table at a path or address. Raises InvalidRequestError."""
    local = local_path(_path(address))
    if local is not None:
        return tables.read(local)
    try:
        data = read_file(address)
    except Exception as error:
        raise InvalidRequestError(f"{address} cannot be read ({_words(error)}).") from error
    return tables.parse(data, address.rpartition("/")[2])


class ResultsFile:
    """The results of a batch at an address; JSON Lines beside it are what the next round reads."""

    def __init__(self, address: str) -> None:
        self.address = address
        result_files.check_target(Path(address.rpartition("/")[2]))
        self.journal = address.rpartition(".")[0] + ".jsonl"

    def earlier(self) -> dict[str, Result]:
        """The results so far by the id of their row; empty where there are none.

        Raises InvalidRequestError for a file that is somebody's own, LedgerError where the store
        cannot be read: then it is not known what is there.
        """
        path = _path(self.journal)
        try:
            if not path.exists():
                return {}
            data = read_file(self.journal)
        except Exception as error:
            raise LedgerError(f"{self.journal} cannot be read ({_words(error)}).") from error
        with tempfile.TemporaryDirectory(prefix="kling-") as folder:
            copy = Path(folder, "results.jsonl")
            copy.write_bytes(data)
            return result_files.Journal(copy).earlier()

    def write(
        self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, final: bool
    ) -> None:
        """Writes the JSON Lines, and at the end the table as well. Raises KlingError."""
        for address in dict.fromkeys((self.journal, self.address) if final else (self.journal,)):
            try:
                _write(address, columns, rows)
            except KlingError:
                raise
            except Exception as error:
                raise KlingError(f"{address} cannot be written ({_words(error)}).") from error


def _write(address: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    target = _path(address)
    local = local_path(target)
    if local is not None:
        result_files.write_table(local, columns, rows)
        return
    with tempfile.TemporaryDirectory(prefix="kling-") as folder:
        copy = result_files.write_table(Path(folder, target.name), columns, rows)
        with contextlib.suppress(Exception):  # stores without folders
            target.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("rb") as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 2**20)


def _path(address: str) -> Any:
    try:
        return ObjectStoragePath(address)
    except Exception as error:
        raise InvalidRequestError(f"{address!r} is no path ({_words(error)}).") from error


_PROVIDERS = {"s3": "amazon", "gs": "google", "gcs": "google"}


def _words(error: BaseException) -> str:
    found = re.search(r"No filesystem registered for scheme (\w+)", str(error))
    if found:
        provider = _PROVIDERS.get(found[1], "microsoft-azure")
        return f"{found[0]}: apache-airflow-providers-{provider} brings it"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
