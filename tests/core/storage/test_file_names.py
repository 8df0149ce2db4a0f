"""What a target is: a path, an address, or nothing that a file can be written to."""

import os
from pathlib import Path

import pytest

from kling_integrations import DownloadError, InvalidRequestError, Verb
from kling_integrations.core.storage import object_files
from kling_integrations.core.storage.file_names import (
    check_file,
    check_folder,
    local_target,
    resolve_target,
    target_of,
)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("videos/a.mp4", "videos/a.mp4"),
        ("videos/", "videos/"),
        (Path("videos") / "a.mp4", os.path.join("videos", "a.mp4")),
        ("~/a.mp4", "~/a.mp4"),
        ("C:/videos/a.mp4", "C:/videos/a.mp4"),
        ("12:30 [take #1]?.mp4", "12:30 [take #1]?.mp4"),
        ("file:///data/a b%20c.mp4", "/data/a b%20c.mp4"),
        ("file:///data/", "/data/"),
        ("file://localhost/data/a.mp4", "/data/a.mp4"),
        ("FILE:/data/a.mp4", "/data/a.mp4"),
        ("file:///C:/videos/a.mp4", "C:/videos/a.mp4"),
        ("/home/nan/a.mp4", "/home/nan/a.mp4"),
        ("gs/a.mp4", "gs/a.mp4"),
    ],
)
def test_a_path_is_a_path_however_it_is_written(given, meant):
    assert target_of(given) == local_target(given) == meant


@pytest.mark.parametrize("address", ["s3://b/x/", "S3://b/x", "gs://b/a?b#c.mp4", "abfs://c@a/x"])
def test_an_address_is_one_and_no_folder_of_this_disk(address):
    assert target_of(address) == address
    assert object_files.is_address(address)
    with pytest.raises(InvalidRequestError, match="written to a disk"):
        local_target(address)


@pytest.mark.parametrize(
    "text",
    ["s3//b/x", "s3:/b/x", Path("s3://b/x"), "s3://", "s3:///x", "gcs:/b", "https:/h/x"]
    + ["https://host/x", "s4://b/x", "simplecache::s3://b/x", '"s3://b/x"', "/data/s3://b/x"]
    + ["file://data/x", "", "  ", "-", "None", "nan", "NaN", "<NA>", "NaT", "null", "undefined"]
    + ["videos/None/a.mp4", "None/a.mp4", "s3://bucket/None/a.mp4", 7, b"a.mp4"],
)
def test_what_is_neither_is_refused(text):
    with pytest.raises(InvalidRequestError) as refused:
        target_of(text)
    assert [step.verb for step in refused.value.next_steps] == [Verb.SET_OUTPUT]


def test_a_caller_with_drivers_of_its_own_takes_their_schemes_and_no_links():
    assert target_of("hdfs://cluster/x", any_scheme=True) == "hdfs://cluster/x"
    for text in ("https://host/x", "s3//b/x", "None", "file://data/x"):
        with pytest.raises(InvalidRequestError):
            target_of(text, any_scheme=True)


def test_a_download_to_an_address_says_so_and_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DownloadError) as error:
        resolve_target("s3://bucket/videos/", file_name=None, generation_id="g-1")
    assert error.value.generation_id == "g-1"
    assert not list(tmp_path.iterdir())


def test_a_folder_is_checked_and_not_made(tmp_path):
    check_folder(tmp_path / "a" / "b")
    check_file(tmp_path / "a" / "b.mp4")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "a", tmp_path / ("x" * 256)):
        with pytest.raises(InvalidRequestError):
            check_folder(folder)
    (tmp_path / "folder").mkdir()
    for file in (tmp_path / "folder", tmp_path / "file" / "a", tmp_path / "a\0", Path("\udcff")):
        with pytest.raises(InvalidRequestError):
            check_file(file)
