"""The record of a task's payment in Airflow's task state store, which survives retries.

There is one record per task instance of a run. What a record says to do is decided in
``core.submission``, for Airflow as for the other integrations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.submission import Record
from . import version_compat

KEY = "kling_submission"


@dataclass(frozen=True, slots=True)
class StoredSubmission:
    """A record, and from when (Unix seconds) the timeout of the wait counts."""

    record: Record
    waiting_since: float

    def to_json(self) -> dict[str, Any]:
        return {**self.record.to_json(), "since": self.waiting_since}

    @classmethod
    def from_json(cls, stored: object) -> StoredSubmission:
        """Raises LedgerError for anything else."""
        record = Record.from_json(stored)
        since = stored.get("since") if isinstance(stored, Mapping) else None
        return cls(record, float(since) if isinstance(since, int | float) else record.created_at)


class SubmissionStore:
    """``store`` is Airflow's; None keeps the record in memory, for this attempt only.

    ``current`` is what was last read or written.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.current: StoredSubmission | None = None

    @property
    def is_durable(self) -> bool:
        return self._store is not None

    def load(self) -> StoredSubmission | None:
        """None where there is no record. Raises what the store raises: unreadable is not absent."""
        stored = self._store.get(KEY) if self._store is not None else None
        self.current = None if stored is None else StoredSubmission.from_json(stored)
        return self.current

    def save(self, record: Record, waiting_since: float | None = None) -> StoredSubmission:
        """Writes the record; without ``waiting_since`` the wait goes on counting as it did."""
        if waiting_since is None:
            waiting_since = self.current.waiting_since if self.current else record.created_at
        self.current = StoredSubmission(record, waiting_since)
        if self._store is not None:
            # A record that expired before its run is cleared would be a second payment.
            self._store.set(KEY, self.current.to_json(), **version_compat.FOREVER)
        return self.current

    def update(self, **fields: Any) -> None:
        """Changes fields of the current record, where there is one."""
        if self.current:
            self.save(replace(self.current.record, **fields))
