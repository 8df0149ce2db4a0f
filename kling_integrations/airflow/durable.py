"""The record of a task's payment in Airflow's task state store, which survives retries.

There is one record per task instance of a run. What a record says to do is decided in
``core.submission``, for Airflow as for the other integrations.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.submission import Record, State
from . import version_compat

KEY = "kling_submission"

# Seconds before each further try to write what is already paid for.
_PAUSES = (0.2, 1.0)


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

    ``current`` is what was last read, or what was to be written last.
    """

    def __init__(self, store: Any, log: Any = None) -> None:
        self._store = store
        self._log = log or logging.getLogger(__name__)
        self.current: StoredSubmission | None = None

    @property
    def is_durable(self) -> bool:
        return self._store is not None

    def load(self) -> StoredSubmission | None:
        """None where there is no record. Raises what the store raises: unreadable is not absent."""
        stored = self._store.get(KEY) if self._store is not None else None
        self.current = None if stored is None else StoredSubmission.from_json(stored)
        return self.current

    @property
    def paid_id(self) -> str | None:
        """The id of a generation that is paid for, or will be, by the current record."""
        record = self.current.record if self.current else None
        if record is None or record.state not in (State.SUBMITTED, State.COMPLETED):
            return None
        return record.generation_id

    def record_of(self, generation_id: str) -> Record | None:
        """The record of what a trigger has waited for; None where there is none.

        It is paid for and is delivered without a record, too: a store that fails is a warning. An
        intent is completed: its id could not be written when it was known.
        """
        try:
            stored = self.load()
        except Exception as error:  # noqa: BLE001 (a state store may raise anything)
            self._log.warning("The task's record cannot be read (%s).", type(error).__name__)
            return None
        if stored is None:
            return None
        if stored.record.state is State.INTENT:
            return self.note(stored.record.submitted(generation_id))
        return stored.record if stored.record.generation_id == generation_id else None

    def save(self, record: Record, waiting_since: float | None = None) -> StoredSubmission:
        """Writes the record; without ``waiting_since`` the wait goes on counting as it did.

        Raises what the store raises: an intent that is not written must not be posted.
        """
        if waiting_since is None:
            waiting_since = self.current.waiting_since if self.current else record.created_at
        self.current = StoredSubmission(record, waiting_since)
        if self._store is not None:
            # A record that expired before its run is cleared would be a second payment.
            self._store.set(KEY, self.current.to_json(), **version_compat.FOREVER)
        return self.current

    def note(self, record: Record, waiting_since: float | None = None) -> Record:
        """``save`` for what has happened already: a store that fails is a warning then.

        The task goes on with the record in its memory, for the video is paid for.
        """
        for pause in (*_PAUSES, None):
            try:
                return self.save(record, waiting_since).record
            except Exception as error:  # noqa: BLE001 (a state store may raise anything)
                trouble = error
            if pause is not None:
                time.sleep(pause)
        self._log.warning(
            "The record of this task cannot be written (%s: %s). The task goes on. If it is tried "
            "again, it looks for the client request id %s in the gateway's log before anything is "
            "submitted.%s",
            type(trouble).__name__,
            " ".join(str(trouble).split())[:200],
            record.client_request_id,
            f" Keep the id of the generation: {record.generation_id}."
            if record.generation_id
            else "",
        )
        return record

    def update(self, **fields: Any) -> None:
        """Notes fields of the current record, where there is one."""
        if self.current:
            self.note(replace(self.current.record, **fields))
