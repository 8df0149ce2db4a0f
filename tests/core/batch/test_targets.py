"""Where the results of a batch go, and whose they are: seen before anything is paid."""

import json
import os
from pathlib import Path

import pytest
from core.batch.conftest import prompts
from support.object_storage import BUCKET, s3_server

from kling_integrations import InvalidRequestError
from kling_integrations.core.batch import cells
from kling_integrations.core.batch.job import BadRowsError, Batch, Order
from kling_integrations.core.storage import object_files, result_files, tables
from kling_integrations.core.storage.result_files import Journal


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_second_table_leaves_the_results_of_the_first_where_they_are(desk):
    desk([{"prompt": "monday 1", "own": "x"}, {"prompt": "monday 2"}])
    before = {row["prompt"]: row for row in read(desk.results)}
    desk([{"prompt": "tuesday"}])
    after = read(desk.results)
    assert [row["prompt"] for row in after] == ["tuesday", "monday 1", "monday 2"]
    assert after[1] == before["monday 1"]
    desk([{"prompt": "monday 2"}, {"prompt": "monday 1"}])
    assert len(read(desk.results)) == 3
    assert desk.posts == 3


def test_a_row_that_is_removed_stays_in_the_journal_and_not_in_the_table(desk):
    table = desk.folder / "r.csv"
    desk(prompts(3), results=table)
    desk(prompts(2), results=table)
    assert len(tables.read(table).records) == 2
    assert len(read(desk.folder / "r.jsonl")) == 3


def test_results_given_back_as_the_table_are_replaced(desk):
    first = desk(prompts(2))
    lines = desk.batch(prompts(2)).lines(first.results)
    other = {"results": desk.folder / "other.jsonl"}
    again = desk(lines, **other)
    assert desk.posts == 2
    batch = desk.batch(lines, **other)
    assert [*batch.lines(again.results)[0]] == [*lines[0]]
    second, first_lines = read(desk.folder / "other.jsonl"), read(desk.results)
    for line in (*second, *first_lines):
        del line["submitted_at"]  # once by the reply, once by the record: a second may lie between
    assert second == first_lines


def test_a_crash_between_journal_and_table_loses_nothing(desk, monkeypatch):
    table = desk.folder / "r.csv"

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(result_files, "_write_csv", full)
        outcome = desk(prompts(2), results=table)
    assert "No space left" in outcome.trouble
    assert not table.exists()
    assert desk(prompts(2), results=table).trouble == ""
    assert len(tables.read(table).records) == 2
    assert desk.posts == 2


@pytest.mark.parametrize("left", [b"", b'{"prompt": "number 0", "row": 1, "row_id": "0123'])
def test_a_batch_goes_on_after_a_disk_that_was_full_at_its_first_row(desk, left):
    desk.results.write_bytes(left)
    desk(prompts(1))
    assert [row["status"] for row in read(desk.results)] == ["completed"]


@pytest.mark.parametrize("name", ["linked.jsonl", "hard.jsonl", "prompts.jsonl", "prompts.csv"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_table_itself_is_no_place_for_its_results(desk, name, overwrite):
    path = desk.folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in prompts(3)))
    (desk.folder / "linked.jsonl").symlink_to(path)
    (desk.folder / "hard.jsonl").hardlink_to(path)
    before = path.read_bytes()
    order = Order(folder=desk.folder / "out", results=desk.folder / name, overwrite=overwrite)
    with pytest.raises(InvalidRequestError, match="left as it is"):
        Batch(tables.read(path), order, desk.ledger, desk.sandbox.base_url)
    assert path.read_bytes() == before


def test_a_table_of_results_may_be_replaced_by_its_new_results(desk):
    table = desk.folder / "r.csv"
    desk(prompts(2), results=table)
    order = Order(folder=desk.folder / "out", results=table)
    batch = Batch(tables.read(table), order, desk.ledger, desk.sandbox.base_url)
    batch.run_to_end(batch.prepare({}))
    assert tables.read(table).columns[:3] == ["prompt", "row", "row_id"]
    assert desk.posts == 2
    journal = desk.folder / "r.jsonl"  # which grows while it would be read
    order = Order(folder=desk.folder / "out", results=journal)
    with pytest.raises(InvalidRequestError, match="the table itself"):
        Batch(tables.read(journal), order, desk.ledger, desk.sandbox.base_url)


def test_a_journal_of_a_run_that_was_killed_is_a_table_of_each_row_once(desk):
    desk(prompts(2))
    lines = desk.results.read_bytes()
    killed = desk.folder / "killed.jsonl"
    killed.write_bytes(lines + lines.splitlines(keepends=True)[0])
    order = Order(folder=desk.folder / "out", results=desk.folder / "again.jsonl")
    batch = Batch(tables.read(killed), order, desk.ledger, desk.sandbox.base_url)
    outcome = batch.run_to_end(batch.prepare({}))
    assert [result.status for result in outcome.results] == ["completed"] * 2
    assert desk.posts == 2


def test_what_is_overwritten_is_not_what_a_run_of_ours_wrote(desk):
    desk([{"prompt": "monday"}])
    desk([{"prompt": "tuesday"}], overwrite=True)
    assert len(read(desk.results)) == 2


@pytest.mark.parametrize(
    "order",
    [
        {"folder": Path("s3://bucket/videos")},
        {"folder": "s3://bucket/videos/"},
        {"folder": Path("/dev/null/videos")},
        {"results": "s3//bucket/r.csv"},
        {"results": "None"},
        {"results": "https://host/r.csv"},
        {"results": "s3://bucket/r.xlsx"},
        {"results": Path("/dev/null/r.csv")},
    ],
)
def test_a_target_that_cannot_be_is_refused(desk, order, monkeypatch):
    monkeypatch.chdir(desk.folder)
    before = sorted(os.listdir())
    with pytest.raises(InvalidRequestError):
        desk(prompts(1), **order)
    assert sorted(os.listdir()) == before
    assert not desk.posts


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv", "r.parquet"])
def test_results_go_to_object_storage(desk, monkeypatch, name):
    s3fs = pytest.importorskip("s3fs")
    with s3_server() as environment:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        s3fs.S3FileSystem.clear_instance_cache()
        address = f"s3://{BUCKET}/a b?c[1]/{name}"
        outcome = desk([*prompts(2), {"prompt": "x [fail:moderation]"}], results=address)
        assert outcome.files[-1] == address
        found = tables.at(address)
        assert [row["status"] for row in found.records] == ["completed", "completed", "failed"]
        assert len(read(desk.folder / "out" / "results.jsonl")) == 3
        desk(prompts(1), results=address)  # ours: replaced
        assert len(tables.at(address).records) == 1
        assert desk.posts == 3
        own = f"s3://{BUCKET}/own-{name}"
        object_files.write(own, b"prompt\nmine\n")
        for refused in (own, f"s3://missing/{name}"):
            with pytest.raises(InvalidRequestError):
                desk([{"prompt": "new"}], results=refused)
        assert object_files.read(own) == b"prompt\nmine\n"
        assert desk.posts == 3


# --- the same rows as before ---------------------------------------------------------------------


def test_a_key_that_is_given_later_pays_for_nothing_again_and_is_then_a_key(desk):
    rows = [{"sku": f"A{n}", "prompt": "the same"} for n in range(3)]
    desk(rows)
    ids = {row["generation_id"] for row in read(desk.results)}
    keyed = {"names": {"key": "sku"}}
    desk(rows[::-1], **keyed)
    assert desk.posts == 3
    assert {row["generation_id"] for row in read(desk.results)} == ids
    by_sku = {row["sku"]: row["generation_id"] for row in read(desk.results)}
    desk([{"sku": "A9", "prompt": "the same"}, *rows], **keyed)
    assert desk.posts == 4  # a new key is a new row
    again = {row["sku"]: row["generation_id"] for row in read(desk.results)}
    assert {sku: again[sku] for sku in by_sku} == by_sku
    desk(rows)  # without the key
    assert desk.posts == 4


def test_a_row_that_an_older_version_recorded_under_its_key_is_found_in_ledger_and_journal(desk):
    """It kept the text of the cell, ``7.0``, where that is 7 now."""
    [row] = desk.batch([{"prompt": "a", "key": "7"}]).checked.rows
    [former] = row.older
    desk([{"prompt": "a", "key": "7"}])
    result = Journal(desk.results).earlier()[row.id]
    desk.results.unlink()
    journal = Journal(desk.results)
    journal.add({"prompt": "a", **result.to_json(), "row_id": row.id_with(former)})
    journal.close()
    desk([{"prompt": "a", "key": 7.0}])
    assert [line["row_id"] for line in read(desk.results)] == [row.id]
    assert desk.posts == 1


@pytest.mark.parametrize("cell", ["7.0", b"A1", True, "2026-11-30 00:00:00", "x" * 300])
def test_a_record_under_the_key_of_an_earlier_version_is_the_rows(desk, monkeypatch, cell):
    with monkeypatch.context() as before:
        before.setattr(cells, "normal_key", cells._as_before)
        desk([{"prompt": "a", "key": cell}])
    desk.results.unlink()
    desk([{"prompt": "a", "key": cell}])
    desk([{"prompt": "a", "key": cell}])
    assert desk.posts == 1


def test_what_the_results_say_is_paid_for_is_not_paid_again_without_the_records(desk):
    first = desk(prompts(2))
    for result in first.results:
        Path(result.path).unlink()
    for file in desk.ledger.path.parent.glob("ledger*"):
        file.unlink()
    again = desk(prompts(2))
    assert [each.generation_id for each in again.results] == [
        each.generation_id for each in first.results
    ]
    assert all(Path(each.path).exists() for each in again.results)
    assert desk.posts == 2


# --- rows that cannot be meant -------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "nan"},
        {"prompt": " #REF! "},
        {"prompt": "\\N"},
        {"prompt": "a", "negative_prompt": "None"},
        {"prompt": "a", "key": "NaT"},
        {"prompt": "prompt", "key": "key", "negative_prompt": "negative_prompt"},
        {"prompt": "A {product} at night", "product": "lamp"},
        {"prompt": "A {{ animal }}"},
        {"prompt": "A {animal.upper()}"},
    ],
)
def test_a_row_that_cannot_be_meant_is_named_and_goes_when_it_is_said_to_be(desk, row):
    with pytest.raises(BadRowsError, match="1 of 2 rows") as error:
        desk([{"prompt": "a real one"}, row])
    assert [problem.row for problem in error.value.problems] == [2]
    assert [step.verb.value for step in error.value.next_steps] == [
        "skip-bad-rows",
        "take-literally",
    ]
    assert desk.posts == 0
    outcome = desk([{"prompt": "a real one"}, row], skip_bad=True)
    assert [each.status for each in outcome.results] == ["completed", "refused"]
    desk([row], raw=True)
    assert desk.posts == 2


def test_a_picture_that_one_row_lost_is_no_video_of_its_text(desk):
    picture = "https://example.com/a.png"
    rows = [{"prompt": "a", "image": picture}, {"prompt": "b", "image": None}]
    with pytest.raises(BadRowsError, match="row 2, image"):
        desk(rows)
    text = "klingai/v2.5-turbo/pro/text-to-video"
    desk([{**rows[0], "model": None}, {**rows[1], "model": text}])
    desk(rows, defaults={"image": picture})
    desk([{"prompt": "b", "image": None}])
    assert desk.posts == 3


def test_columns_are_filled_into_the_prompt_of_all_rows(desk):
    rows = [{"product": "lamp", "place": "beach"}, {"product": "cup", "prompt": "A cup, own text"}]
    text = {"prompt": "A {product} at the {place}"}
    desk(rows, defaults=text)
    sent = sorted(post.body["prompt"] for post in desk.sandbox.posts)
    assert sent == ["A cup, own text", "A lamp at the beach"]
    with pytest.raises(BadRowsError, match="row 1, place"):
        desk([{"product": "lamp", "place": None}], defaults=text)
    with pytest.raises(InvalidRequestError, match="{thing}.*{product}, {place}"):
        desk(rows[:1], defaults={"prompt": "A {thing}"})
    desk(rows[:1], defaults={"prompt": "A {thing}"}, raw=True)
    assert desk.posts == 3
