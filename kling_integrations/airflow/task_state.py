"""Records in Airflow's task state store (3.3 and up), which belongs to one task instance of a run.

From 3.4 on a clear empties it unless it is told to keep the task's state.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..core.errors import LedgerError, LedgerUnreachableError
from ..core.records import checked, dump, unreachable, unreadable
from . import version_compat

T = TypeVar("T")

_INDEX = "kling_records"
_WHERE = "the task state store"


class TaskStateRecords:
    """A key per record. The store lists no keys, so the names are kept under one of their own.

    One process runs a task instance, and this object orders its threads: that makes ``create``
    exclusive.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._indexed: set[str] | None = None

    def __str__(self) -> str:
        return _WHERE

    def read(self, name: str) -> dict[str, Any] | None:
        checked(name)
        with self._lock:
            value = self._reaching(lambda: self._store.get(name))
            if value is None and name not in self._index():
                return None
        if not isinstance(value, dict):
            raise unreadable(f"{name} in {_WHERE}", f"a {type(value).__name__}")
        return value

    def read_many(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        values = ((name, self.read(name)) for name in names)
        return {name: value for name, value in values if value is not None}

    def create(self, name: str, value: Mapping[str, Any]) -> bool:
        checked(name)
        with self._lock:
            if name in self._index() or self._reaching(lambda: self._store.get(name)) is not None:
                return False
            self.write(name, value)
            return True

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        checked(name)
        with self._lock:
            self._set(name, dict(value))
            index = self._index()
            if name not in index:
                self._set(_INDEX, sorted({*index, name}))
                index.add(name)

    def names(self, prefix: str = "") -> dict[str, str]:
        with self._lock:
            names = [name for name in sorted(self._index()) if name.startswith(prefix)]
            return {name: self._version(name) for name in names}

    def _version(self, name: str) -> str:
        try:
            value = self._reaching(lambda: self._store.get(name))
        except LedgerUnreachableError:
            raise
        except LedgerError:
            return "unreadable"
        return hashlib.sha256(dump({"value": value})).hexdigest()

    def _index(self) -> set[str]:
        if self._indexed is None:
            names = self._reaching(lambda: self._store.get(_INDEX)) or []
            if not isinstance(names, list):
                raise unreadable(f"{_INDEX} in {_WHERE}", f"a {type(names).__name__}")
            self._indexed = set(map(str, names))
        return self._indexed

    def _set(self, key: str, value: Any) -> None:
        # A record that expired before its run is cleared would be a second payment.
        self._reaching(lambda: self._store.set(key, value, **version_compat.FOREVER))

    def _reaching(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise unreadable(f"in {_WHERE}", type(error).__name__) from None
        except Exception as error:  # a state store may raise anything
            raise unreachable(_WHERE, error) from error
