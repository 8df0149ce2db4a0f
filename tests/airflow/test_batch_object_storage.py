"""A table in Airflow whose rows, pictures, videos, results and records are all in a bucket."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk.io.store import _STORE_CACHE, ObjectStore
from support.object_storage import BUCKET, s3_server
from support.pictures import png

from kling_integrations.airflow import KlingBatchOperator

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytestmark = pytest.mark.thorough  # the server is a process of its own

MODEL = "klingai/v2.5-turbo/pro/image-to-video"
HERE = f"{BUCKET}/shop"
ROOT = f"s3://shop@{HERE}"  # by the connection "shop"


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with s3_server() as found:
        yield found


@pytest.fixture
def bucket(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The bucket, empty."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("kling_integrations.airflow.batch_trigger._LEAST", 0.0)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    # As Amazon's provider makes it of the connection.
    monkeypatch.setitem(_STORE_CACHE, "s3-shop", ObjectStore("s3", "shop", fs=files))
    yield files
    if files.exists(HERE):
        files.rm(HERE, recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def operator(**changes: Any) -> Any:
    options = {
        "task_id": "batch",
        "rows_path": f"{ROOT}/p.csv",
        "output_path": f"{ROOT}/videos/",
        "results_path": f"{ROOT}/results.csv",
        "deferrable": True,
        "at_once": 4,
        **changes,
    }
    return lambda: KlingBatchOperator(**options)


def to_the_end(attempt: Any) -> Any:
    result, rounds = attempt.start(), 0
    while isinstance(result, TaskDeferred):
        rounds += 1
        assert rounds < 30
        try:
            result = attempt.resume()
        except TaskDeferred as again:
            result = attempt.deferred_again(again)
    return result


def results(bucket: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bucket.cat(f"{HERE}/results.jsonl").splitlines()]


def test_rows_videos_results_and_records_all_live_in_the_bucket(sandbox, task, bucket, home):
    bucket.pipe(f"{HERE}/p.csv", b"sku,prompt\n7,a fox\n8,a hen\n9,a fox\n10,an owl\n11,a cat\n")
    attempt = task(operator())
    made = to_the_end(attempt)
    assert (made["completed"], made["results_path"]) == (5, f"{ROOT}/results.csv")
    rows = results(bucket)
    assert [row["sku"] for row in rows] == ["7", "8", "9", "10", "11"]
    for row in rows:
        assert row["path"].startswith(f"{ROOT}/videos/")
        assert bucket.info(row["path"].replace("shop@", ""))["size"] == row["size"]
    table = csv.DictReader(io.StringIO(bucket.cat(f"{HERE}/results.csv").decode()))
    assert [row["generation_id"] for row in table] == [row["generation_id"] for row in rows]
    assert not list(home.rglob("*.mp4"))
    attempt.clear()
    assert to_the_end(attempt)["completed"] == 5
    bucket.rm(f"{HERE}/results.jsonl")  # its records say it, too
    assert to_the_end(task(operator()))["completed"] == 5
    assert len(sandbox.posts) == 5


def test_pictures_in_the_bucket_are_sent_and_read_once_for_all_rounds(
    sandbox, task, bucket, monkeypatch
):
    for number in range(10):
        bucket.pipe(f"{HERE}/in/{number}.png", png(number))
    lines = [f"{ROOT}/in/{number}.png,move,{MODEL}\n" for number in range(10)]
    bucket.pipe(f"{HERE}/p.csv", "".join(["image,prompt,model\n", *lines]).encode())
    read: Counter[str] = Counter()
    original = s3fs.S3FileSystem._cat_file

    async def counting(self: Any, path: str, *args: Any, **options: Any) -> bytes:
        read[path] += 1
        return await original(self, path, *args, **options)

    opened = s3fs.S3FileSystem._open

    def opening(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        read[path] += mode == "rb"
        return opened(self, path, mode, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", counting)
    monkeypatch.setattr(s3fs.S3FileSystem, "_open", opening)
    made = to_the_end(task(operator()))
    assert made["completed"] == 10
    sent = {post.body["image_url"] for post in sandbox.posts}
    assert len(sent) == len(sandbox.posts) == 10
    assert all(each.startswith("data:image/png;base64,") for each in sent)
    pictures = {path: count for path, count in read.items() if path.endswith(".png")}
    assert len(pictures) == 10
    assert max(pictures.values()) <= 3  # checked, held against the records, sent


def test_a_picture_that_is_not_there_is_a_row_that_is_named_before_anything_is_paid(
    sandbox, task, bucket
):
    bucket.pipe(f"{HERE}/in/0.png", png(0))
    rows = [f"{ROOT}/in/0.png", f"{ROOT}/in/gone.png"]
    rows = [{"prompt": "move", "image": each, "model": MODEL} for each in rows]
    with pytest.raises(AirflowFailException, match=r"row 2, image: .*gone\.png"):
        to_the_end(task(operator(rows=rows, rows_path=None)))
    assert not sandbox.posts
    made = to_the_end(task(operator(rows=rows, rows_path=None, skip_bad=True)))
    assert (made["completed"], made["refused"]) == (1, 1)


def test_a_picture_that_changes_between_two_rounds_is_not_paid_for_as_another_one(
    sandbox, task, bucket
):
    for number in range(6):
        bucket.pipe(f"{HERE}/in/{number}.png", png(number))
    rows = [
        {"prompt": "move", "image": f"{ROOT}/in/{number}.png", "model": MODEL}
        for number in range(6)
    ]
    attempt = task(operator(rows=rows, rows_path=None, at_once=2))
    result = attempt.start()
    bucket.pipe(f"{HERE}/in/5.png", png(0xFFFFFF))
    while isinstance(result, TaskDeferred):
        try:
            result = attempt.resume()
        except TaskDeferred as again:
            result = attempt.deferred_again(again)
    assert (result["completed"], result["refused"]) == (5, 1)
    assert "changed" in results(bucket)[5]["error"]
    assert to_the_end(task(operator(rows=rows, rows_path=None)))["completed"] == 6
    assert len(sandbox.posts) == 6


def test_a_bucket_that_is_away_stops_it_before_it_pays(sandbox, task, bucket, monkeypatch):
    away = s3fs.S3FileSystem(endpoint_url="http://127.0.0.1:9")
    monkeypatch.setitem(_STORE_CACHE, "s3-shop", ObjectStore("s3", "shop", fs=away))
    for changes in ({}, {"rows": [{"prompt": "a fox"}], "rows_path": None}):
        with pytest.raises(Exception, match="cannot be read|cannot be reached"):
            to_the_end(task(operator(**changes)))
    assert not sandbox.posts


def test_without_its_provider_it_is_said_what_is_missing(sandbox, task, bucket):
    with pytest.raises(AirflowFailException, match="apache-airflow-providers-amazon"):
        to_the_end(task(operator(rows_path=f"s3://{HERE}/p.csv")))
