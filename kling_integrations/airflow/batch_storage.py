"""Where a batch of Airflow keeps what it knows: table, results and records, in any store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from .object_storage import check_target, given_path, in_words, local_path, read_file, upload

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
        raise InvalidRequestError(f"{address} cannot be read ({in_words(error)}).") from error
    return tables.parse(data, address.rpartition("/")[2])


class ResultsFile:
    """The results of a batch at an address; JSON Lines beside it are what the next round reads.

    Raises InvalidRequestError for an address that cannot be one.
    """

    def __init__(self, address: Any) -> None:
        text = given_path(address)
        if text is None:
            raise InvalidRequestError("results_path is empty. Nothing was submitted.")
        self.address = text
        result_files.check_target(Path("/", text.rpartition("/")[2]))
        self.journal = text.rpartition(".")[0] + ".jsonl"

    def check(self, rows_path: str | None) -> None:
        """Before anything is paid. Raises InvalidRequestError for a place or file of another's."""
        for address in dict.fromkeys((self.journal, self.address)):
            check_target(address, "results_path")
            if _is_same(address, rows_path):
                raise InvalidRequestError(
                    f"results_path {address!r} is the table itself. Nothing was submitted."
                )
            with _copy_of(address) as copy:
                if copy is not None and not result_files.is_ours(copy):
                    raise result_files.not_ours(address)

    def earlier(self) -> dict[str, Result]:
        """The results so far by the id of their row; empty where there are none.

        Raises InvalidRequestError for a file that is somebody's own, LedgerError where the store
        cannot be read: then it is not known what is there.
        """
        with _copy_of(self.journal) as copy:
            return {} if copy is None else result_files.Journal(copy).earlier()

    def write(
        self,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
        row_ids: Iterable[str],
        *,
        final: bool,
    ) -> None:
        """Writes the JSON Lines, and at the end the table as well. Raises KlingError.

        Lines of the JSON Lines that are of other rows than ``row_ids`` stay in them.
        """
        with _copy_of(self.journal) as copy:
            others = [] if copy is None else result_files.Journal(copy).others(row_ids)
        for address in dict.fromkeys((self.journal, self.address) if final else (self.journal,)):
            try:
                _write(address, columns, rows, others if address == self.journal else ())
            except KlingError:
                raise
            except Exception as error:
                raise KlingError(f"{address} cannot be written ({in_words(error)}).") from error


@contextmanager
def _copy_of(address: str) -> Iterator[Path | None]:
    """What is at an address as a file on this disk; None where nothing is. Raises LedgerError."""
    local = local_path(_path(address))
    if local is not None:
        yield local if local.exists() else None
        return
    try:
        data = read_file(address)
    except FileNotFoundError:
        yield None
        return
    except Exception as error:
        raise LedgerError(f"{address} cannot be read ({in_words(error)}).") from error
    with tempfile.TemporaryDirectory(prefix="kling-") as folder:
        copy = Path(folder, f"results{Path(address).suffix}")
        copy.write_bytes(data)
        yield copy


def _is_same(address: str, rows_path: str | None) -> bool:
    if rows_path is None:
        return False
    one, other = (local_path(_path(each)) or each for each in (address, rows_path))
    return result_files.is_input(one, other)


def _write(
    address: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    others: Iterable[bytes],
) -> None:
    target = _path(address)
    local = local_path(target)
    if local is not None:
        result_files.write_table(local, columns, rows, others=others)
        return
    with tempfile.TemporaryDirectory(prefix="kling-") as folder:
        name = f"results{Path(address).suffix}"
        copy = result_files.write_table(Path(folder, name), columns, rows, others=others)
        upload(copy, copy.stat().st_size, target)


def _path(address: str) -> Any:
    try:
        return ObjectStoragePath(address)
    except Exception as error:
        raise InvalidRequestError(f"{address!r} is no path ({in_words(error)}).") from error
