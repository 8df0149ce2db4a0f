"""The shelf of the submission record: Airflow's task state store, which survives retries.

It keeps one record per task instance of a run. What a record says to do is decided in
``core.submission``, for Airflow as for everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core.submission import Record

KEY = "kling_submission"


@dataclass(frozen=True, slots=True)
class Kept:
    """What the shelf holds. ``since``: Unix seconds from which the wait's timeout counts."""

    record: Record
    since: float

    def to_json(self) -> dict[str, Any]:
        return {**self.record.to_json(), "since": self.since}

    @classmethod
    def from_json(cls, stored: object) -> Kept:
        """Raises LedgerError for what is no record."""
        record = Record.from_json(stored)
        since = stored.get("since") if isinstance(stored, Mapping) else None
        return cls(record, float(since) if isinstance(since, int | float) else record.created_at)


class Shelf:
    """``store`` is ``context["task_state_store"]``; None keeps the record in memory only."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.kept: Kept | None = None
        self.found = False  # whether this attempt goes on with what an earlier one submitted

    def load(self) -> Kept | None:
        """None where nothing is kept. What the store raises goes on: that is not "nothing"."""
        stored = self._store.get(KEY) if self._store is not None else None
        self.kept = None if stored is None else Kept.from_json(stored)
        return self.kept

    def keep(self, record: Record, since: float | None = None) -> Kept:
        """Writes the record; the older ``since`` stays unless another is given."""
        if since is None:
            since = self.kept.since if self.kept else record.created_at
        self.kept = Kept(record, since)
        if self._store is not None:
            self._store.set(KEY, self.kept.to_json(), **_retention())
        return self.kept

    def change(self, **changes: Any) -> None:
        """Changes fields of the record that is kept, where one is."""
        if self.kept:
            self.keep(replace(self.kept.record, **changes))


def _retention() -> dict[str, Any]:
    """For ever: a record that expires before its run is cleared would be a second payment."""
    try:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE
    except ImportError:
        return {}
    return {"retention": NEVER_EXPIRE}
