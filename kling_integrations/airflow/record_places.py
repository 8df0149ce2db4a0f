"""Where the records of a task's payments are kept.

The task state store where this Airflow has one, and one store that no clear reaches: the one at
``record_path``, else a hidden folder beside the video, else the worker's own under KLING_HOME.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import ObjectStoragePath, conf

from ..core import settings
from ..core.errors import InvalidRequestError, KlingError
from ..core.records import RecordStore, unreachable
from ..core.storage.bucket_records import BucketRecords
from ..core.storage.folder_records import FolderRecords
from ..core.storage.record_stores import open_store
from ..core.storage.sqlite_records import SqliteRecords
from . import version_compat
from .hints import Kept
from .object_storage import absolute, given_path, local_path
from .task_identity import TaskIdentity
from .task_state import TaskStateRecords

HIDDEN = ".kling"


@dataclass(frozen=True, slots=True)
class RecordAt:
    """The record of one task instance in one store."""

    store: RecordStore
    name: str

    def __str__(self) -> str:
        return f"{self.name} in {self.store}"

    def read(self) -> dict[str, Any] | None:
        return self.store.read(self.name)

    def write(self, value: Mapping[str, Any]) -> None:
        self.store.write(self.name, value)

    def probe(self) -> None:
        """Tries a bucket before anything is paid for: it must take an id afterwards.

        Raises LedgerError for one that does not do what records need.
        """
        if isinstance(self.store, BucketRecords):
            self.store.probe()


@dataclass(frozen=True, slots=True)
class Places:
    """Every place of one task's record; ``shared`` is the store that no clear reaches."""

    task: TaskIdentity
    records: tuple[RecordAt, ...]
    shared: RecordStore
    kept: Kept


def default_record_path() -> str | None:
    """``[kling] record_path`` of Airflow's configuration."""
    return conf.get("kling", "record_path", fallback=None) or None


def places(
    task: TaskIdentity, task_state_store: Any, key: str, shared: RecordStore, suffix: str = ""
) -> Places:
    """``key`` names the record in the task state store, ``suffix`` ends its name in the other."""
    records = [RecordAt(shared, f"{task.record_name}{suffix}")]
    if task_state_store is not None:
        records.insert(0, RecordAt(TaskStateRecords(task_state_store), key))
    where = " and ".join(str(record) for record in records)
    clear, place = "a clear", ""
    if isinstance(shared, SqliteRecords):
        if task_state_store is None:
            place = " on this worker"
        elif version_compat.CLEAR_DISCARDS_STATE:
            clear = "a clear with keep_task_state"
    return Places(task, tuple(records), shared, Kept(clear, place, where))


def record_folder(record_path: str) -> str:
    """A ``record_path`` that is the same place on every worker.

    Raises InvalidRequestError and LedgerError for one that is not, or was not read as it was meant:
    another folder of records is another payment.
    """
    text = record_path.strip()
    try:
        if "://" not in text or not text[0].isalpha():
            settings.absolute(text, "record_path")
        return absolute(text)
    except KlingError as error:
        error.message = f"record_path: {error.message} Nothing was submitted."
        raise


def open_shared(record_path: Any, output_path: Any, log: Any) -> RecordStore:
    """The store that no clear reaches; one that cannot be opened fails when it is used."""
    if (text := given_path(record_path)) is not None:
        try:
            return _opened("record_path", record_folder(text))
        except KlingError as error:
            return _Unusable(error)
    if (text := given_path(output_path)) is not None:
        store = _opened("output_path", _hidden_folder(text))
        if not isinstance(store, _Refused):
            return store
        log.info("%s", store.error.message)
    own = SqliteRecords()
    log.info(
        "The record of this task's payment is kept on this worker (%s). Where several machines run "
        "the tasks, set record_path, or record_path in the section [kling] of Airflow's "
        "configuration, to a place that all of them reach (s3://, gs://, abfs://, a shared "
        "folder).",
        own,
    )
    return own


def _opened(argument: str, address: str) -> RecordStore:
    try:
        path = ObjectStoragePath(address)
    except Exception as error:  # noqa: BLE001 (what an address makes a driver raise)
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return _Unusable(InvalidRequestError(f"{argument} {address!r} is no path ({words})."))
    local = local_path(path)
    if local is not None:
        return FolderRecords(local)
    try:
        filesystem = path.fs
    except Exception as error:  # noqa: BLE001
        if version_compat.connection_of(path) is None and "No filesystem registered" in str(error):
            return _without_provider(address)
        return _Unusable(unreachable(address, error))
    try:
        return BucketRecords(filesystem, path.path)
    except InvalidRequestError as error:
        return _Refused(error)


def _without_provider(address: str) -> RecordStore:
    """Where no Airflow provider brings the file system, the platform's own credentials are used."""
    try:
        return open_store(address)
    except InvalidRequestError as error:
        return _Refused(error)
    except KlingError as error:
        return _Unusable(error)


def _hidden_folder(output_path: str) -> str:
    folder, slash, _ = output_path.rpartition("/")
    return f"{folder}{slash}{HIDDEN}"


class _Unusable:
    """A store that could not be opened: what another one says is paid for is gone on with."""

    def __init__(self, error: KlingError) -> None:
        self.error = error

    def __str__(self) -> str:
        return "a store that cannot be used"

    def _fail(self, *_: Any) -> NoReturn:
        raise self.error

    def read(self, name: str) -> dict[str, Any] | None:
        self._fail()

    def read_many(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        self._fail()

    def create(self, name: str, value: Mapping[str, Any]) -> bool:
        self._fail()

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        self._fail()

    def names(self, prefix: str = "") -> dict[str, str]:
        self._fail()


class _Refused(_Unusable):
    """A file system that cannot hold records."""
