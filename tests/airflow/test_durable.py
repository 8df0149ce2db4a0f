"""The record in the task state store: its JSON is read for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kling_integrations import VideoRequest
from kling_integrations.airflow.durable import KEY, StoredSubmission, SubmissionStore, latest
from kling_integrations.airflow.record_places import places
from kling_integrations.airflow.task_identity import TaskIdentity
from kling_integrations.core.errors import LedgerError, LedgerUnreachableError
from kling_integrations.core.records import unreachable
from kling_integrations.core.storage.folder_records import FolderRecords
from kling_integrations.core.submission import Record, State

TASK = TaskIdentity("dag", "run", "video", attempt="a-1", try_number=1)

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


@pytest.fixture
def folder(tmp_path):
    return FolderRecords(tmp_path / "records")


def submissions_in(store: Any, folder: Any) -> SubmissionStore:
    return SubmissionStore(places(TASK, store, KEY, folder))


def stored_in(folder: Any) -> dict[str, Any] | None:
    return folder.read(TASK.record_name)


def test_what_the_first_release_wrote_is_read_and_can_be_read_by_it_again(folder):
    store = Store(kling_submission=WRITTEN_BY_THE_FIRST_RELEASE)
    submissions = submissions_in(store, folder)
    stored = submissions.load()
    assert stored == StoredSubmission(record(), 1790000100.5)
    assert stored.record.generation_id == "g-1:klingai/v2.5"
    submissions.note(stored.record)
    added = {"revision": 1, "attempt": "a-1", "try_number": 1}
    assert store.rows[KEY] == {**WRITTEN_BY_THE_FIRST_RELEASE, **added} == stored_in(folder)


def test_a_record_without_a_begin_of_the_wait_counts_from_its_intent():
    row = {key: value for key, value in WRITTEN_BY_THE_FIRST_RELEASE.items() if key != "since"}
    assert StoredSubmission.from_json(row).waiting_since == 1790000000.5


@pytest.mark.parametrize("garbage", [[], "x", {}, {"state": "odd"}, 7])
def test_unreadable_is_not_absent(folder, garbage):
    with pytest.raises(LedgerError, match="unreadable"):
        submissions_in(Store(kling_submission=garbage), folder).load()
    assert submissions_in(Store(), folder).load() is None


@pytest.mark.parametrize("form", [2, "2", "x", None, []])
def test_a_record_of_a_newer_format_is_unreadable_and_not_absent(folder, form):
    folder.write(TASK.record_name, {**WRITTEN_BY_THE_FIRST_RELEASE, "format": form})
    with pytest.raises(LedgerError, match="unreadable"):
        submissions_in(None, folder).load()


def test_a_record_never_expires(folder):
    from airflow.sdk.execution_time import context

    store = Store()
    submissions_in(store, folder).note(record())
    assert store.rows[KEY]["state"] == "submitted"
    # Before 3.3 there is neither a store nor an expiry.
    assert store.retention is getattr(context, "NEVER_EXPIRE", None)


def test_an_update_changes_the_named_fields_and_keeps_the_begin_of_the_wait(folder):
    store = Store()
    submissions = submissions_in(store, folder)
    submissions.update(state=State.FAILED)  # without a record: nothing
    assert store.rows == {}
    submissions.note(record(), waiting_since=5.0)
    submissions.update(state=State.COMPLETED)
    assert store.rows[KEY]["state"] == stored_in(folder)["state"] == "completed"
    assert store.rows[KEY]["since"] == 5.0


def test_without_a_store_the_record_lasts_as_long_as_the_attempt():
    submissions = SubmissionStore()
    assert not submissions.is_durable
    submissions.intend(record(state="intent"))
    assert submissions.current.record == record(state="intent")
    assert SubmissionStore().load() is None


# --- several stores -------------------------------------------------------------------------------


class Away:
    """A store of records that fails, for as long as it is said to."""

    def __init__(self, folder: FolderRecords) -> None:
        self.folder = folder
        self.fails_to: set[str] = set()

    def __getattr__(self, verb: str) -> Any:
        def work(*arguments: Any) -> Any:
            if verb in self.fails_to:
                raise unreachable("the bucket", OSError("away"))
            return getattr(self.folder, verb)(*arguments)

        return work


def intent(post: str = "kling-2") -> Record:
    return record(state="intent", generation_id=None, client_request_id=post)


@pytest.mark.parametrize("cleared", [True, False])
def test_what_one_store_has_lost_the_other_still_knows(folder, cleared):
    store = Store()
    submissions_in(store, folder).note(record())
    if cleared:
        store.rows.clear()
    else:
        folder.folder.joinpath(f"{TASK.record_name}.json").unlink()
    assert submissions_in(store, folder).load().record == record()


def test_of_two_records_the_later_wins_whatever_the_clocks_say(folder):
    store = Store()
    submissions = submissions_in(store, folder)
    submissions.note(record(created_at=9e9))
    old = dict(store.rows[KEY])
    submissions.intend(record(client_request_id="kling-2", state="intent", created_at=1.0))
    assert store.rows[KEY]["revision"] > old["revision"]
    store.rows[KEY] = old
    assert submissions_in(store, folder).load().record.client_request_id == "kling-2"


def test_of_the_same_post_the_one_that_got_further_wins():
    found = [
        StoredSubmission(record(), 0.0, 2),
        StoredSubmission(intent("kling-1"), 0.0, 3),
    ]
    for each in (found, found[::-1]):
        assert latest(each).record.generation_id == "g-1:klingai/v2.5"


def test_what_an_earlier_version_wrote_after_a_downgrade_is_the_later_one(folder):
    store = Store()
    submissions_in(store, folder).note(record(client_request_id="kling-0", generation_id="g-0"))
    store.rows[KEY] = WRITTEN_BY_THE_FIRST_RELEASE
    assert submissions_in(store, folder).load().record.generation_id == "g-1:klingai/v2.5"
    submissions = submissions_in(store, folder)
    submissions.load()
    submissions.intend(intent("kling-3"))  # and after the upgrade it is replaced in both
    assert submissions_in(store, folder).load().record.client_request_id == "kling-3"


@pytest.mark.parametrize("verb", ["read", "write"])
def test_nothing_may_be_posted_while_one_store_is_away(folder, verb):
    store, away = Store(), Away(folder)
    away.fails_to = {verb}
    submissions = submissions_in(store, away)
    with pytest.raises(LedgerUnreachableError, match="away"):
        submissions.load()
        submissions.intend(intent())
    away.fails_to = set()
    # Nothing was posted, and the next attempt is not told that something may have been.
    stored = submissions_in(store, away).load()
    assert stored is None or stored.record.state is State.REFUSED


def test_an_intent_that_could_not_be_written_everywhere_puts_back_what_was_there(folder):
    store, away = Store(), Away(folder)
    submissions = submissions_in(store, away)
    submissions.note(record(state="failed"))
    away.fails_to = {"write"}
    with pytest.raises(LedgerUnreachableError):
        submissions.intend(intent())
    assert store.rows[KEY]["client_request_id"] == "kling-1"
    away.fails_to = set()
    assert submissions_in(store, away).load().record.state is State.FAILED


def test_what_is_paid_for_is_gone_on_with_while_the_other_store_is_away(folder, caplog):
    store, away = Store(), Away(folder)
    submissions_in(store, away).note(record())
    away.fails_to = {"read", "write"}
    submissions = submissions_in(store, away)
    assert submissions.load().record == record()
    assert "Going on with what is recorded elsewhere" in caplog.text
    away.fails_to = {"read"}  # what it could not say before may be a payment
    with pytest.raises(LedgerUnreachableError):
        submissions.intend(intent())
    assert store.rows[KEY]["client_request_id"] == "kling-1"


def test_what_a_trigger_waited_for_is_delivered_with_a_warning_where_its_record_is_away(
    folder, caplog
):
    away = Away(folder)
    away.fails_to = {"read"}
    assert submissions_in(None, away).record_of("g-1:klingai/v2.5") is None
    assert "The task's record cannot be read" in caplog.text


def test_what_is_given_up_is_so_for_every_other_instance(folder):
    store = Store()
    submissions = submissions_in(store, folder)
    submissions.give_up()  # without a record: nothing
    assert stored_in(folder) is None
    submissions.note(record())
    submissions.give_up()
    assert stored_in(folder)["given_up"] is store.rows[KEY]["given_up"] is True
    assert submissions_in(None, folder).load().given_up


@pytest.mark.parametrize("state", ["failed", "refused"])
def test_what_is_not_paid_for_is_no_reason_to_pay_while_a_store_is_away(folder, state):
    store, away = Store(), Away(folder)
    submissions_in(store, away).note(record(state=state))
    away.fails_to = {"read"}
    with pytest.raises(LedgerUnreachableError):
        submissions_in(store, away).load()


def test_what_cannot_be_read_is_not_overwritten(folder):
    store = Store()
    submissions_in(store, folder).note(record())
    newer = {**WRITTEN_BY_THE_FIRST_RELEASE, "format": 2, "state": "parked"}
    folder.write(TASK.record_name, newer)
    submissions = submissions_in(store, folder)
    submissions.load()
    submissions.update(state=State.COMPLETED)
    assert stored_in(folder) == newer
    assert store.rows[KEY]["state"] == "completed"


def test_after_the_post_each_store_is_written_by_itself_and_a_warning_names_what_failed(
    folder, caplog
):
    store, away = Store(), Away(folder)
    submissions = submissions_in(store, away)
    submissions.intend(intent())
    away.fails_to = {"write"}
    submissions.note(intent().submitted("g-7"))
    assert store.rows[KEY]["generation_id"] == "g-7"
    assert f"{TASK.record_name} in " in caplog.text
    assert "kling_submission in" not in caplog.text
    assert "Keep the id of the generation: g-7." in caplog.text


def test_a_record_holds_no_secret_and_names_no_prompt_that_it_need_not(folder):
    submissions_in(None, folder).note(record())
    assert set(stored_in(folder)) == {
        *WRITTEN_BY_THE_FIRST_RELEASE,
        "revision",
        "attempt",
        "try_number",
    }


# --- a clear, as Airflow tells of it --------------------------------------------------------------


@pytest.mark.parametrize(
    ("retries_now", "cleared", "clears", "expected"),
    [
        (2, False, 0, False),  # a retry
        (2, True, 1, True),
        (1, True, 1, True),  # one retry fewer: max_tries is again what it was
        (1, False, 0, False),  # the same figures, and nobody cleared anything
        (5, True, 1, True),
        (5, False, 0, False),
        (2, False, 1, False),  # another task of the run was cleared
        (1, True, None, False),  # an Airflow that does not count: as the figures say
        (2, True, None, True),
    ],
)
def test_a_clear_is_told_from_a_retry_whatever_the_retries_are_now(
    retries_now, cleared, clears, expected
):
    """By what Airflow 3.3 records: a clear sets max_tries to the tries so far plus the retries."""
    request = VideoRequest(prompt="A fox")
    before = StoredSubmission(
        Record.intent(request, 2).submitted("g-1"), 0.0, 1, "first", 1, clears=0
    )
    now = TaskIdentity(
        "dag",
        "run",
        "video",
        try_number=2,
        attempt="second",
        max_tries=1 + retries_now if cleared else 2,
        clears=clears,
        has_all_tries=cleared or retries_now == 2 - 1,
    )
    assert before.is_cleared(now) is expected


def test_a_resumed_attempt_is_not_cleared_by_a_clear_of_another_task():
    record = Record.intent(VideoRequest(prompt="A fox"), 2)
    before = StoredSubmission(record, 0.0, 1, "one", 1, clears=0)
    now = TaskIdentity("dag", "run", "video", attempt="one", max_tries=2, clears=3)
    assert not before.is_cleared(now)


def test_a_record_keeps_the_number_of_clears():
    record = Record.intent(VideoRequest(prompt="A fox"), 2)
    for clears in (None, 0, 3):
        stored = StoredSubmission(record, 0.0, 1, "one", 1, clears=clears)
        assert StoredSubmission.from_json(stored.to_json()) == stored


def test_fewer_retries_and_a_clear_that_regenerates_pay_for_another_video(sandbox, task, operator):
    attempt = task(operator(on_clear="regenerate"), retries=2)
    attempt.run()
    attempt.retries = 1
    attempt.clear()
    assert attempt.max_tries == 2  # what it was before
    attempt.run()
    assert len(sandbox.posts) == 2


def test_fewer_retries_without_a_clear_pay_for_nothing(sandbox, task, operator):
    attempt = task(operator(on_clear="regenerate"), retries=2)
    attempt.run()
    attempt.retries = 1
    attempt.run()
    assert len(sandbox.posts) == 1
