"""Where videos are saved: files, folders, stores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kling_integrations import KlingClient, VideoRequest
from kling_integrations.airflow.object_storage import check_target, file_uri, save_video
from kling_integrations.core.errors import DownloadError, InvalidRequestError, KlingError


@pytest.fixture
def finished(sandbox) -> Any:
    """A client and its finished generation."""
    with KlingClient(api_key="sandbox", base_url=sandbox.base_url) as client:
        generation = client.submit(VideoRequest(prompt="A white fox"))
        sandbox.finish()
        yield client, client.get(generation.id)


@pytest.fixture
def store() -> Any:
    """An object store in memory, as ObjectStoragePath sees one."""
    from fsspec.implementations.memory import MemoryFileSystem

    try:
        from airflow.sdk.io.store import attach
    except ImportError:
        from airflow.sdk.io import attach
    filesystem = MemoryFileSystem()
    attach("memory", fs=filesystem)
    yield filesystem
    filesystem.store.clear()


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_file(finished, tmp_path, form):
    client, generation = finished
    target = tmp_path / "deep" / "er" / "v.mp4"
    path, saved = save_video(client, generation, form.format(target))
    assert path == str(target)
    assert target.stat().st_size == saved.size
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_keeps_the_name_of_the_server(finished, tmp_path):
    client, generation = finished
    path, _ = save_video(client, generation, f"{tmp_path}/new/")
    assert Path(path).parent == tmp_path / "new"
    again, _ = save_video(client, generation, f"{tmp_path}/new/")
    assert again == path


def test_a_store_gets_the_whole_video_under_its_name_only(finished, store):
    client, generation = finished
    path, saved = save_video(client, generation, "memory://bucket/a/v.mp4")
    assert path.replace("///", "//") == "memory://bucket/a/v.mp4"  # older fsspec writes three
    assert [name for name in store.store if name.endswith("mp4")] == ["/bucket/a/v.mp4"]
    assert not [name for name in store.store if name.endswith(".part")]
    assert store.size("/bucket/a/v.mp4") == saved.size


def test_a_folder_of_a_store_names_the_file_by_the_prompt(finished, store):
    client, generation = finished
    path, _ = save_video(client, generation, "memory://bucket/a/", "A white fox")
    assert "/bucket/a/a-white-fox_" in path


def test_an_upload_that_breaks_leaves_nothing_behind(finished, store, monkeypatch):
    client, generation = finished

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("the store is full")

    monkeypatch.setattr(type(store), "put_file", broken)
    with pytest.raises(DownloadError, match="the store is full"):
        save_video(client, generation, "memory://bucket/a/v.mp4")
    assert not [name for name in store.store if "v.mp4" in name]


def test_a_file_system_that_renames_gets_the_video_under_another_name_first(
    finished, store, monkeypatch
):
    """As SFTP and HDFS do: a file that is still written can be seen there."""
    client, generation = finished
    moved = []

    def mv(self: Any, one: str, other: str) -> None:
        assert store.size(one) > 0
        moved.append(other)
        store.store[other] = store.store.pop(one)

    monkeypatch.setattr(type(store), "mv", mv, raising=False)
    save_video(client, generation, "memory://bucket/a/v.mp4")
    assert list(store.store) == moved == ["/bucket/a/v.mp4"]
    monkeypatch.setattr(type(store), "mv", lambda *_: 1 / 0)
    with pytest.raises(DownloadError):
        save_video(client, generation, "memory://bucket/b/v.mp4")
    assert list(store.store) == ["/bucket/a/v.mp4"]


@pytest.mark.parametrize("name", ["why?", "*", "[prod]", "a#b", "50%", "{x}", "**"])
def test_signs_of_patterns_in_an_address_are_names(finished, store, name):
    client, generation = finished
    store.pipe("/films/other/fox.mp4", b"somebody's")
    path, saved = save_video(client, generation, f"memory://films/{name}/fox.mp4")
    assert path.endswith(f"films/{name}/fox.mp4")
    assert len(store.store[f"/films/{name}/fox.mp4"].getvalue()) == saved.size
    assert sorted(store.store) == sorted([f"/films/{name}/fox.mp4", "/films/other/fox.mp4"])


@pytest.mark.parametrize(
    "denied", [("rm", "rm_file", "_rm"), ("ls", "find", "glob", "exists"), ("info",)], ids=str
)
def test_credentials_that_may_only_put_are_enough(finished, store, monkeypatch, denied):
    client, generation = finished

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    with monkeypatch.context() as patch:
        for name in denied:
            patch.setattr(type(store), name, refuse, raising=False)
        path, _ = save_video(client, generation, "memory://bucket/a/v.mp4")
    assert "/bucket/a/v.mp4" in store.store, path


def test_what_did_not_arrive_is_not_said_to_be_saved(finished, store, monkeypatch):
    client, generation = finished
    monkeypatch.setattr(type(store), "put_file", lambda *_, **__: None)
    with pytest.raises(DownloadError):
        save_video(client, generation, "memory://bucket/a/v.mp4")


# --- before anything is paid ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["None", "nan", "s3//b/x.mp4", "s3:/b/x.mp4", "https://h/x.mp4", "s4://b/x.mp4", "x.mp4"]
    + ["gs://b/x.mp4", "/data/None/x.mp4", "s3:///x.mp4", "/dev/null/x.mp4"],
)
def test_a_target_that_cannot_be_is_refused(target):
    with pytest.raises(InvalidRequestError, match="Nothing was submitted"):
        check_target(target)


def test_a_missing_driver_is_named_by_its_provider(monkeypatch):
    with pytest.raises(InvalidRequestError, match="apache-airflow-providers-google"):
        check_target("gs://bucket/x.mp4")


@pytest.mark.parametrize("target", [None, "", " "])
def test_no_target_is_fine(target):
    check_target(target)


def test_looking_at_a_target_makes_nothing(tmp_path, store):
    check_target(f"{tmp_path}/new/folder/")
    check_target(f"file://{tmp_path}/other/x.mp4")
    check_target("memory://bucket/x.mp4")
    assert not list(tmp_path.iterdir())
    assert not store.store


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (FileNotFoundError("no bucket"), InvalidRequestError),
        (ConnectionError("refused"), KlingError),
        (PermissionError("Access Denied"), None),
        (OSError("An error occurred (403): Forbidden"), None),
    ],
    ids=str,
)
def test_a_bucket_is_looked_at_by_whoever_may_look(monkeypatch, trouble, error):
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        cachable = False

        def info(self, path: str, **_: Any) -> Any:
            assert path == "films"
            raise trouble

    monkeypatch.setattr(
        "kling_integrations.airflow.object_storage.ObjectStoragePath",
        lambda address: SimpleNamespace(protocol="s3", path="films/x.mp4", fs=Bucket()),
    )
    if error is None:
        check_target("s3://films/x.mp4")
        return
    with pytest.raises(error):
        check_target("s3://films/x.mp4")


def test_an_unknown_store_is_a_download_error_that_keeps_the_id(finished):
    client, generation = finished
    with pytest.raises(DownloadError) as caught:
        save_video(client, generation, "nostore://bucket/v.mp4")
    assert caught.value.generation_id == generation.id


def test_the_address_of_an_asset():
    assert file_uri("/data/v.mp4") == "file:///data/v.mp4"
    assert file_uri("s3://bucket/v.mp4") == "s3://bucket/v.mp4"
