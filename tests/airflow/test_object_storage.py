"""Where videos are saved: files, folders, stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kling_integrations import KlingClient, VideoRequest
from kling_integrations.airflow.object_storage import file_uri, save_video
from kling_integrations.core.errors import DownloadError


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

    monkeypatch.setattr(type(store), "mv", broken)
    with pytest.raises(DownloadError, match="the store is full"):
        save_video(client, generation, "memory://bucket/a/v.mp4")
    assert not [name for name in store.store if "v.mp4" in name]


def test_an_unknown_store_is_a_download_error_that_keeps_the_id(finished):
    client, generation = finished
    with pytest.raises(DownloadError) as caught:
        save_video(client, generation, "nostore://bucket/v.mp4")
    assert caught.value.generation_id == generation.id


def test_the_address_of_an_asset():
    assert file_uri("/data/v.mp4") == "file:///data/v.mp4"
    assert file_uri("s3://bucket/v.mp4") == "s3://bucket/v.mp4"
