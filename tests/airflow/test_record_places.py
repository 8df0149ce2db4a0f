"""Where a task's record is kept, and what that means for the words of its hints."""

from __future__ import annotations

import logging

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ObjectStoragePath

from kling_integrations.airflow import KlingVideoOperator, version_compat
from kling_integrations.airflow.exceptions import KlingTaskError
from kling_integrations.airflow.get_provider_info import get_provider_info
from kling_integrations.airflow.object_storage import local_path
from kling_integrations.airflow.record_places import open_shared, places
from kling_integrations.airflow.task_identity import TaskIdentity
from kling_integrations.core.errors import InvalidRequestError, LedgerUnreachableError
from kling_integrations.core.storage.bucket_records import BucketRecords
from kling_integrations.core.storage.folder_records import FolderRecords
from kling_integrations.core.storage.sqlite_records import SqliteRecords
from tests.support.object_storage import BUCKET, s3_server

from .conftest import RACCOON, Store

LOG = logging.getLogger(__name__)
TASK = TaskIdentity("dag", "run", "video")


@pytest.mark.parametrize(
    ("record_path", "output_path", "folder"),
    [
        (None, "/data/video.mp4", "/data/.kling"),
        (None, "/data/videos/", "/data/videos/.kling"),
        (None, "file:///data/video.mp4", "/data/.kling"),
        (None, "/video.mp4", "/.kling"),
        ("/records", "/data/video.mp4", "/records"),
        ("file:///records", None, "/records"),
    ],
)
def test_a_folder_is_the_one_that_is_named_or_a_hidden_one_beside_the_video(
    record_path, output_path, folder
):
    store = open_shared(record_path, output_path, LOG)
    assert isinstance(store, FolderRecords)
    assert store.folder.as_posix() == folder


def test_a_bare_name_has_it_in_the_same_folder_as_the_video():
    store = open_shared(None, "video.mp4", LOG)
    assert isinstance(store, FolderRecords)
    assert store.folder == local_path(ObjectStoragePath("video.mp4")).parent / ".kling"


def test_without_either_it_is_the_workers_own_and_one_line_says_what_to_set(home, caplog):
    caplog.set_level(logging.INFO)
    store = open_shared(None, None, LOG)
    assert isinstance(store, SqliteRecords)
    assert store.path == home / "ledger.sqlite3"
    assert len(caplog.records) == 1
    assert "Where several machines run the tasks, set record_path" in caplog.text


def test_a_video_on_a_file_system_that_cannot_hold_records_has_them_on_the_worker(caplog):
    caplog.set_level(logging.INFO)
    assert isinstance(open_shared(None, "memory://videos/a.mp4", LOG), SqliteRecords)
    assert "two processes" in caplog.text


@pytest.mark.parametrize("address", ["memory://x", "nonsense://x", "s3://"])
def test_a_record_path_that_cannot_hold_records_is_refused_when_it_is_used(address):
    with pytest.raises(InvalidRequestError):
        open_shared(address, None, LOG).read("a")


def test_a_wrong_record_path_fails_at_once_and_pays_nothing(sandbox, task):
    attempt = task(
        lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, record_path="memory://x")
    )
    with pytest.raises(AirflowFailException, match="Records cannot be kept"):
        attempt.run()
    assert sandbox.posts == []


def test_what_is_paid_for_is_delivered_although_the_record_path_went_wrong(sandbox, task):
    path = None

    def make():
        return KlingVideoOperator(task_id="v", prompt=RACCOON, record_path=path)

    attempt = task(make, retries=1)
    first = attempt.run()["generation_id"]
    path = "memory://x"
    assert attempt.run()["generation_id"] == first
    assert len(sandbox.posts) == 1


def test_the_record_path_is_a_template_and_has_a_default_in_airflows_configuration(
    monkeypatch, tmp_path
):
    assert "record_path" in KlingVideoOperator.template_fields
    assert KlingVideoOperator(task_id="v", prompt="x").record_path is None
    monkeypatch.setenv("AIRFLOW__KLING__RECORD_PATH", str(tmp_path))
    assert KlingVideoOperator(task_id="v", prompt="x").record_path == str(tmp_path)
    given = KlingVideoOperator(task_id="v", prompt="x", record_path="/other")
    assert given.record_path == "/other"
    option = get_provider_info()["config"]["kling"]["options"]["record_path"]
    assert option["default"] is None


@pytest.mark.parametrize(
    ("discards", "has_states", "output_path", "clear", "place"),
    [
        (False, True, None, "a clear", ""),
        (False, False, None, "a clear", " on this worker"),
        (True, True, None, "a clear with keep_task_state", ""),
        (True, True, "/data/video.mp4", "a clear", ""),
        (False, False, "/data/video.mp4", "a clear", ""),
    ],
)
def test_the_hints_promise_what_the_stores_of_the_task_hold(
    monkeypatch, discards, has_states, output_path, clear, place
):
    monkeypatch.setattr(version_compat, "CLEAR_DISCARDS_STATE", discards)
    shared = open_shared(None, output_path, LOG)
    kept = places(TASK, Store() if has_states else None, "kling_submission", shared).kept
    assert (kept.clear, kept.place) == (clear, place)
    assert ("kling_submission in the task state store" in kept.where) is has_states
    assert str(shared) in kept.where


def test_a_record_is_named_after_the_task_instance_and_not_after_the_try():
    names = {
        TaskIdentity(*names, map_index=index, try_number=tried).record_name
        for names in (("d", "r", "t"), ("d", "r", "u"), ("dr", "", "t"), ("d/r", "t", ""))
        for index in (-1, 0, 1)
        for tried in (1, 2)
    }
    assert len(names) == 12
    assert TASK.record_name.endswith("/-")
    assert TASK.name_of(3) == f"{TASK.group}/3"


@pytest.mark.thorough  # the server is a process of its own
@pytest.mark.parametrize("address", ["s3://{}/kling", "s3://my_conn@{}/kling"])
def test_a_bucket_with_and_without_a_connection_keeps_the_record(
    sandbox, task, monkeypatch, address
):
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    from airflow.sdk.io import attach

    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        if "@" in address:  # as a provider makes it of the connection
            s3fs.S3FileSystem.clear_instance_cache()
            attach("s3", "my_conn", fs=s3fs.S3FileSystem())
        path = address.format(BUCKET)
        assert isinstance(open_shared(path, None, LOG), BucketRecords)
        attempt = task(
            lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, record_path=path), retries=1
        )
        first = attempt.run()["generation_id"]
        attempt.store.rows.clear()
        attempt.clear()
        assert attempt.run()["generation_id"] == first
        assert len(sandbox.posts) == 1
        assert ObjectStoragePath(path).path == f"{BUCKET}/kling"


@pytest.mark.thorough
def test_a_bucket_that_is_away_stops_it_before_it_pays(sandbox, task, monkeypatch):
    pytest.importorskip("moto")
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
    path = f"s3://{BUCKET}/away"
    with pytest.raises(LedgerUnreachableError):
        open_shared(path, None, LOG).read("a")
    attempt = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, record_path=path))
    with pytest.raises(Exception, match="cannot be reached") as caught:
        attempt.run()
    assert not isinstance(caught.value, AirflowFailException)
    assert sandbox.posts == []


@pytest.mark.parametrize(
    "record_path",
    ["records", "'/data/records'", '"/data/records"', "$HOME/records", "None", "s3//b"],
)
def test_a_record_path_that_is_another_place_elsewhere_is_refused_before_it_pays(
    sandbox, task, operator, record_path
):
    with pytest.raises(KlingTaskError, match="Nothing was submitted"):
        task(operator(record_path=record_path)).run()
    assert sandbox.posts == []


def test_what_is_paid_for_goes_on_though_its_record_path_was_made_a_relative_one(
    sandbox, task, operator, tmp_path
):
    paths = iter([str(tmp_path / "records"), "records"])
    attempt = task(
        lambda: operator(record_path=next(paths), wait_for_completion=False)(), retries=1
    )
    attempt.run()
    attempt.run()
    assert len(sandbox.posts) == 1
