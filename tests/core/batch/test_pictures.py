"""Pictures in the rows of a table: in object storage, and read once for all rounds."""

from __future__ import annotations

import pytest
from support.object_storage import BUCKET, s3_server
from support.pictures import png

from kling_integrations.core.batch import pictures
from kling_integrations.core.batch.frames import table_of
from kling_integrations.core.batch.rows import check
from kling_integrations.core.storage.tables import from_records

URL = "http://127.0.0.1:1"
MODEL = "klingai/v2.5-turbo/pro/image-to-video"


def table(tmp_path, colour=0):
    (tmp_path / "a.png").write_bytes(png(colour))
    rows = [
        {"prompt": "move", "image": str(tmp_path / "a.png")},
        {"prompt": "move", "image": "https://example.com/a.png"},
        {"prompt": "move", "image": ""},
    ]
    return from_records(rows)


def test_what_was_read_of_the_pictures_is_kept_for_the_same_table_alone(tmp_path):
    first = check(table(tmp_path), URL).rows
    digest = pictures.digest(table(tmp_path), URL, {}, {})
    kept = pictures.to_json(first, digest)
    assert list(kept["fingerprints"]) == [1]
    known = pictures.from_json(kept, digest)
    assert check(table(tmp_path, colour=7), URL, known=known).rows == first
    assert check(table(tmp_path, colour=7), URL).rows[0] != first[0]
    assert pictures.from_json(kept, pictures.digest(table(tmp_path), URL, {"a": 1}, {})) == {}
    assert pictures.from_json({"odd": 1}, digest) == {}
    assert pictures.to_json(first[1:], digest) is None


@pytest.mark.thorough  # the server is a process of its own
def test_a_table_and_its_pictures_in_a_bucket_are_read_with_the_platforms_credentials(
    desk, monkeypatch
):
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem()
        for number in range(20):
            files.pipe(f"{BUCKET}/in/{number}.png", png(number))
        files.pipe(f"{BUCKET}/in/text.png", b"no picture")
        names = [*range(20), "gone", "text"]
        lines = [f"move,s3://{BUCKET}/in/{name}.png" for name in names]
        files.pipe(f"{BUCKET}/in/p.csv", "\n".join(["prompt,image", *lines]).encode())
        rows = table_of(f"s3://{BUCKET}/in/p.csv").records
        outcome = desk(rows, skip_bad=True, defaults={"model": MODEL}, at_once=10)
        s3fs.S3FileSystem.clear_instance_cache()
    assert [each.status for each in outcome.results] == ["completed"] * 20 + ["refused"] * 2
    assert "There is no s3://" in outcome.results[20].error
    assert "is not an image" in outcome.results[21].error
    sent = {post.body["image_url"] for post in desk.sandbox.posts}
    assert len(sent) == 20
    assert all(each.startswith("data:image/png;base64,") for each in sent)
