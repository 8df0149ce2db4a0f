"""What finished generations took is known to the next task: read once, added once."""

from __future__ import annotations

import pytest

from kling_integrations.airflow import KlingVideoOperator, KlingVideoSensor
from kling_integrations.core.catalog import DEFAULT_MODEL
from kling_integrations.core.schedule import Schedule
from kling_integrations.core.storage.folder_records import FolderRecords

NAIVE = Schedule.expecting(DEFAULT_MODEL, duration=5).expected


@pytest.fixture
def video(sandbox, task, deferrable, tmp_path):
    """``video()`` runs a task of a new run, whose generations take twice what is written."""
    sandbox.seconds = 2 * NAIVE

    def run(**changes):
        options = {
            "task_id": "video",
            "prompt": "A fox",
            "duration": 5,
            "deferrable": deferrable,
            "record_path": (tmp_path / "shelf").as_uri(),
            **changes,
        }
        return task(lambda: KlingVideoOperator(**options)).run()

    return run


@pytest.mark.parametrize("shelf", [True, False])
def test_later_tasks_expect_what_earlier_ones_took(video, shelf):
    where = {} if shelf else {"record_path": None}
    first = video(**where)
    assert first["expected_seconds"] == pytest.approx(NAIVE, abs=0.1)
    for _ in range(4):
        last = video(**where)
    assert last["expected_seconds"] > 1.5 * NAIVE


def test_another_model_or_length_learns_nothing_from_it(video):
    for _ in range(3):
        video()
    other = video(duration=10)["expected_seconds"]
    assert other == pytest.approx(Schedule.expecting(DEFAULT_MODEL, duration=10).expected, abs=0.1)


def test_a_sensor_learns_and_teaches_too(video, task, sandbox, deferrable, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__KLING__RECORD_PATH", (tmp_path / "shelf").as_uri())
    for _ in range(4):
        video()
    submitted = video(wait_for_completion=False)
    sensor = task(
        lambda: KlingVideoSensor(
            task_id="wait", generation_id=submitted, deferrable=deferrable, poke_interval=None
        )
    )
    assert sensor.run()["expected_seconds"] > 1.5 * NAIVE


def test_a_worker_reads_it_once_and_adds_to_it_once(video, monkeypatch):
    calls = []
    read, write = FolderRecords.read, FolderRecords.write

    def counted(kind, work):
        def call(self, name, *value):
            if name.startswith("finished/"):
                calls.append(kind)
            return work(self, name, *value)

        return call

    monkeypatch.setattr(FolderRecords, "read", counted("read", read))
    monkeypatch.setattr(FolderRecords, "write", counted("write", write))
    video()
    # Submit and delivery; the second read is that of what is added to.
    assert calls == ["read", "read", "write"]


def test_a_shelf_that_holds_nonsense_is_no_trouble(video, tmp_path):
    video()
    store = FolderRecords(tmp_path / "shelf")
    (name,) = store.names("finished/")
    store.write(name, {"seconds": ["a", -1, None, float("inf"), True]})
    assert video()["status"] == "completed"


def test_no_more_than_the_newest_are_kept(video, tmp_path):
    video()
    store = FolderRecords(tmp_path / "shelf")
    (name,) = store.names("finished/")
    store.write(name, {"seconds": [100.0] * 500})
    video()
    assert len(store.read(name)["seconds"]) == 20
