"""The record in the task state store: its JSON is read for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kling_integrations.airflow.durable import KEY, StoredSubmission, SubmissionStore
from kling_integrations.core.errors import LedgerError
from kling_integrations.core.submission import Record, State

WRITTEN_BY_THE_FIRST_RELEASE = {
    "format": 1,
    "state": "submitted",
    "fingerprint": "sandbox:abc",
    "client_request_id": "kling-1",
    "model": "klingai/v2.5-turbo/pro/text-to-video",
    "created_at": 1790000000.5,
    "generation_id": "g-1:klingai/v2.5",
    "max_tries": 2,
    "since": 1790000100.5,
}


class Store:
    def __init__(self, **rows: Any) -> None:
        self.rows = rows
        self.retention: Any = None

    def get(self, key: str) -> Any:
        return self.rows.get(key)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.rows[key] = json.loads(json.dumps(value))
        self.retention = retention


def record(**fields: Any) -> Record:
    return Record.from_json({**WRITTEN_BY_THE_FIRST_RELEASE, **fields})


def test_what_the_first_release_wrote_is_read_and_written_alike():
    store = Store(kling_submission=WRITTEN_BY_THE_FIRST_RELEASE)
    submissions = SubmissionStore(store)
    stored = submissions.load()
    assert stored == StoredSubmission(record(), 1790000100.5)
    assert stored.record.generation_id == "g-1:klingai/v2.5"
    submissions.save(stored.record)
    assert store.rows == {"kling_submission": WRITTEN_BY_THE_FIRST_RELEASE}


def test_a_record_without_a_begin_of_the_wait_counts_from_its_intent():
    row = {key: value for key, value in WRITTEN_BY_THE_FIRST_RELEASE.items() if key != "since"}
    assert StoredSubmission.from_json(row).waiting_since == 1790000000.5


def test_the_key_is_the_one_that_hints_and_documents_name():
    assert KEY == "kling_submission"


@pytest.mark.parametrize("garbage", [[], "x", {}, {"state": "odd"}, 7])
def test_unreadable_is_not_absent(garbage):
    with pytest.raises(LedgerError, match="unreadable"):
        SubmissionStore(Store(kling_submission=garbage)).load()
    assert SubmissionStore(Store()).load() is None


def test_a_record_never_expires():
    from airflow.sdk.execution_time import context

    store = Store()
    SubmissionStore(store).save(record())
    assert store.rows[KEY]["state"] == "submitted"
    # Before 3.3 there is neither a store nor an expiry.
    assert store.retention is getattr(context, "NEVER_EXPIRE", None)


def test_an_update_changes_the_named_fields_and_keeps_the_begin_of_the_wait():
    store = Store()
    submissions = SubmissionStore(store)
    submissions.update(state=State.FAILED)  # without a record: nothing
    assert store.rows == {}
    submissions.save(record(), waiting_since=5.0)
    submissions.update(state=State.COMPLETED)
    assert store.rows[KEY]["state"] == "completed"
    assert store.rows[KEY]["since"] == 5.0


def test_without_a_store_the_record_lasts_as_long_as_the_attempt():
    submissions = SubmissionStore(None)
    assert not submissions.is_durable
    submissions.save(record())
    assert submissions.current == StoredSubmission(record(), 1790000000.5)
    assert submissions.load() is None
