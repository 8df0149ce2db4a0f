"""How long generations took, for the next one's schedule: a small record per model and length.

It lies with the records of payments (``record_path``), for all workers to learn from, else under
KLING_HOME of this one. A task reads it once and adds to it once; the triggerer never looks. Two
that add at the same moment may lose one figure, which is no loss.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Any

from ..core.errors import KlingError
from ..core.finish_times import NEWEST
from ..core.records import RecordStore
from ..core.storage.sqlite_records import SqliteRecords
from .record_places import default_record_path, open_shared

if TYPE_CHECKING:
    from ..core.http.client import KlingClient

log = logging.getLogger(__name__)


def finished(task: Any, client: KlingClient, model: str, duration: int | None) -> list[float]:
    """Seconds that the last ones took at this gateway, the newest last; empty where none is known.

    Never raises: a wait without it asks a little more often.
    """
    try:
        return _seconds(_store(task), _name(client, model, duration))
    except KlingError as error:
        log.info("How long earlier generations took cannot be read: %s", error.message)
        return []


def learn(task: Any, client: KlingClient, model: str, duration: int | None, seconds: float) -> None:
    """Adds one whose end was seen; never raises."""
    with suppress(KlingError):
        store, name = _store(task), _name(client, model, duration)
        newest = [*_seconds(store, name), round(seconds, 1)][-NEWEST:]
        store.write(name, {"model": model, "duration": duration, "seconds": newest})


def _store(task: Any) -> RecordStore:
    # Not the hidden folder beside a video: it is often a run's own.
    address = getattr(task, "record_path", None) or default_record_path()
    return open_shared(address, None, log) if address else SqliteRecords()


def _name(client: KlingClient, model: str, duration: int | None) -> str:
    what = json.dumps([client.endpoint.base_url, model, duration])
    return f"finished/{hashlib.sha256(what.encode()).hexdigest()[:24]}"


def _seconds(store: RecordStore, name: str) -> list[float]:
    stored = (store.read(name) or {}).get("seconds")
    return [
        float(each)
        for each in (stored if isinstance(stored, list) else ())
        if isinstance(each, int | float) and isfinite(each) and each > 0
    ]
