"""Results on disk."""

import csv
import json

import pytest

from kling_integrations import InvalidRequestError
from kling_integrations.core.batch.results import Result, RowStatus
from kling_integrations.core.storage import result_files
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
