"""Results on disk."""

import csv
import datetime
import json
from decimal import Decimal

import pytest

from kling_integrations import InvalidRequestError
from kling_integrations.core.batch.results import Result, RowStatus
from kling_integrations.core.storage import result_files, tables
from kling_integrations.core.storage.result_files import Journal


def result(number, **more):
    return Result(number, f"id{number}", RowStatus.COMPLETED, **more).to_json()


def test_what_was_written_before_a_kill_is_there_again(tmp_path):
    journal = Journal(tmp_path / "r.jsonl")
    journal.add({"prompt": "a", **result(1)})
    journal.add({"prompt": "b", **result(2)})
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-30])  # killed in the middle of the second line
    again = Journal(journal.path)
    assert list(again.earlier()) == ["id1"]
    again.add({"prompt": "b", **result(2)})
    assert journal.path.read_bytes() == whole
    again.close()


def test_the_last_line_of_a_row_counts_and_own_columns_are_not_taken_for_it(tmp_path):
    journal = Journal(tmp_path / "r.jsonl")
    own = {"status": "completed", "kling_status": "mine"}
    line = result(1)
    line["kling_kling_status"] = line.pop("status")
    journal.add({**own, **line, "kling_kling_status": "failed"})
    journal.close()
    assert Journal(journal.path).earlier()["id1"].status == "failed"


def test_a_file_of_somebody_else_is_no_journal(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.raises(InvalidRequestError, match="holds no results"):
        Journal(tmp_path / "r.jsonl").earlier()
    assert not result_files.is_ours(tmp_path / "r.jsonl")


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_table_is_written_as_its_name_ends_and_known_as_ours(tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"r{ending}"
    rows = [
        {"prompt": 'é 🦝, "x"\ny', "n": 1, "odd": [1], **result(1, usd=0.5)},
        {"prompt": None, "n": 2, "odd": "text", **result(2)},
    ]
    result_files.write_table(path, list(rows[0]), rows)
    assert result_files.is_ours(path)
    if ending == ".csv":
        found = list(csv.DictReader(path.open(newline="")))
        assert found[0]["prompt"] == rows[0]["prompt"]
        assert (found[0]["odd"], found[0]["usd"], found[1]["usd"]) == ("[1]", "0.5", "")
    elif ending == ".jsonl":
        assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    else:
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(path).to_pylist()
        assert found[0]["prompt"] == rows[0]["prompt"]
        assert [row["usd"] for row in found] == [0.5, None]


def test_an_ending_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(InvalidRequestError, match="written as"):
        result_files.check_target(tmp_path / "r.xlsx")


LONG = b"x" * 2**21  # a picture in a cell


class Stubborn:
    def __str__(self):
        raise RuntimeError("no text")


def circular():
    cell = [1]
    cell.append(cell)
    return cell


def deep():
    cell = []
    for _ in range(5000):
        cell = [cell]
    return cell


CELLS = {
    "keys that are tuples": {("paper", "boat"): 2},
    "keys that are days": {datetime.date(2026, 11, 30): 1, b"x": None},
    "keys that become one": {1: "a", "1": "b"},
    "no keys at all": {},
    "itself": circular(),
    "five thousand levels": deep(),
    "an object": object(),
    "an object without a text": Stubborn(),
    "a set": {1},
    "unsigned 64 bits": 2**63 + 5,
    "70 bits": 2**70,
    "half a surrogate pair": "\ud83d cut",
    "infinity": float("inf"),
    "infinity within": {"x": [float("-inf"), float("nan")]},
    "the first day": datetime.datetime(1, 1, 1),
    "the last day": datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),
    "a zone": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "many digits": Decimal("1" * 90 + ".5"),
    "bytes": b"\xff\x00",
    "an interval": datetime.timedelta(days=400),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_whatever_a_carried_cell_holds_the_results_are_written(tmp_path, cell, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"r{ending}"
    for others in ([], ["text"], [None], [7]):  # of its column
        own = [CELLS[cell], *others]
        rows = [{"own": each, "\ud83d": 1, **result(n)} for n, each in enumerate(own, 1)]
        result_files.write_table(path, list(rows[0]), rows)
        found = tables.read(path).records
        assert [str(row["row_id"]) for row in found] == [row["row_id"] for row in rows]
        if ending == ".jsonl":  # for strict readers, too: JSON knows no Infinity
            for line in path.read_text().splitlines():
                json.loads(line, parse_constant=pytest.fail)
        Journal(tmp_path / "j.jsonl").add(rows[0])
    assert list(Journal(tmp_path / "j.jsonl").earlier()) == ["id1"]


def test_what_a_format_can_hold_keeps_its_type(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"hash": 2**63 + 5, "day": datetime.date(2026, 1, 1), "tags": ["a"], "half": 0.5},
        {"hash": None, "day": None, "tags": None, "half": float("nan")},
    ]
    result_files.write_table(tmp_path / "r.parquet", list(rows[0]), rows)
    found = parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert found == [rows[0], dict.fromkeys(rows[0])]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", b""),
        ("r.csv", b""),
        ("r.jsonl", b'{"prompt": "a", "row": 1, "row_id": "x", "sta'),
        ("r.JSONL", b'{"row": 1, "row_id": "x", "status": "completed"}\n'),
        ("r.NDJSON", b'{"row": 1, "row_id": "x", "status": "failed", "own": "%s"}\n' % LONG),
        ("r.CSV", b"prompt,row,row_id,kling_status,generation_id\n"),
    ],
)
def test_a_file_that_a_run_began_is_ours(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert result_files.is_ours(tmp_path / name)
    assert result_files.journal_of(tmp_path / name).suffix.lower() in (".jsonl", ".ndjson")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", b'{"prompt": "a"}'),
        ("r.jsonl", b'{"prompt": "a"'[:-1] + b"}\n"),
        ("r.jsonl", b"notes"),
        ("r.csv", b"row_id,status,prompt\n1,new,a\n"),
        ("r.csv", b"prompt\na\n"),
        ("r.parquet", b"PAR1"),
    ],
)
def test_a_file_of_the_users_own_is_not(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert not result_files.is_ours(tmp_path / name)


def test_rows_of_other_tables_stay_in_a_journal_unless_nothing_was_paid_for_them(tmp_path):
    journal = Journal(tmp_path / "r.jsonl")
    nothing = Result(3, "id3", RowStatus.NOT_SUBMITTED).to_json()
    for row in (result(1), {"own": "\u00e9", **result(2)}, nothing, result(1, usd=2.0)):
        journal.add(row)
    journal.close()
    first, second = journal.others([])
    assert json.loads(first)["usd"] == 2.0
    assert json.loads(second)["own"] == "\u00e9"
    assert journal.others(["id1"]) == [second]
    rows = [result(4)]
    result_files.write_table(journal.path, list(rows[0]), rows, others=journal.others(["id4"]))
    assert list(Journal(journal.path).earlier()) == ["id4", "id1", "id2"]


def test_the_input_is_known_by_each_of_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "prompts.jsonl"
    table.write_text('{"prompt": "a"}\n')
    (tmp_path / "linked.jsonl").symlink_to(table)
    (tmp_path / "hard.jsonl").hardlink_to(table)
    (tmp_path / "other.jsonl").write_bytes(table.read_bytes())
    source = tables.at("prompts.jsonl").source
    (tmp_path / "folder").mkdir()
    for name in ("prompts.jsonl", "linked.jsonl", "hard.jsonl", "folder/../prompts.jsonl"):
        assert result_files.is_input(tmp_path / name, source)
    assert not result_files.is_input(tmp_path / "other.jsonl", source)
    assert not result_files.is_input(tmp_path / "prompts.jsonl", None)
    assert result_files.is_input("s3://b/t.jsonl", "s3a://b/t.jsonl")
    assert not result_files.is_input("s3://b/t.jsonl", "s3://b/u.jsonl")
    assert tables.at(f"file://{table}").source == table
