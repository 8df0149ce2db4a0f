"""Ugly tables of other people's making."""

import pytest

from kling_integrations import InvalidRequestError
from kling_integrations.core.storage import tables


def test_a_csv_of_a_spreadsheet_is_read(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes('\ufeffprompt;size;size;\r\n"a; b\r\nc";1;2;3\r\n\r\n;;;\r\nd;4\r\n'.encode())
    table = tables.read(file)
    assert table.columns == ["prompt", "size", "size (2)", "column 4"]
    assert [row["prompt"] for row in table.records] == ["a; b\r\nc", "d"]
    assert table.records[1].get("size (2)") is None
    assert not table.bad
    assert table.folder == tmp_path


def test_unicode_text_of_a_spreadsheet_is_read():
    table = tables.parse("prompt\tn\ncafé 🦝\t1\n".encode("utf-16"), "a.txt")
    assert table.records == [{"prompt": "café 🦝", "n": "1"}]


def test_a_line_with_too_many_cells_is_a_bad_row():
    table = tables.parse(b"prompt,n\na,1\nred, green,2\nb,3\n", "a.csv")
    assert list(table.bad) == [2]
    assert "quotes" in table.bad[2]
    assert len(table.records) == 3


@pytest.mark.parametrize(
    ("data", "name", "says"),
    [
        (b"prompt\ncaf\xe9\n", "a.csv", "no UTF-8 text .line 2."),
        (b"", "a.csv", "is empty"),
        (b"a\0b\n", "a.csv", "zero bytes"),
        (b"{}", "a.json", "no list of rows"),
        (b"[1]", "a.json", "Row 1 is a int"),
        (b"nonsense", "a.json", "no JSON"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(data, name, says):
    with pytest.raises(InvalidRequestError, match=says):
        tables.parse(data, name)


def test_a_bad_line_of_json_is_a_bad_row():
    table = tables.parse(
        b'{"prompt": "a"}\n\nnonsense\n[1]\n{"prompt": "b\xe2\x80\xa8c", "x": 1}\n', "a.jsonl"
    )
    assert list(table.bad) == [2, 3]
    assert table.columns == ["prompt", "x"]
    assert table.records[3]["prompt"] == "b\u2028c"


def test_stdin_is_told_by_its_first_sign():
    assert tables.parse(b'{"prompt": "a"}\n').records == [{"prompt": "a"}]
    assert tables.parse(b'[{"prompt": "a"}]').records == [{"prompt": "a"}]
    assert tables.parse(b"prompt\na\n").records == [{"prompt": "a"}]


def test_parquet_is_read_as_it_is(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        arrow.table({"prompt": ["a", None], "duration": [5, 10]}), tmp_path / "a.parquet"
    )
    assert tables.read(tmp_path / "a.parquet").records == [
        {"prompt": "a", "duration": 5},
        {"prompt": None, "duration": 10},
    ]
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(InvalidRequestError, match="no Parquet"):
        tables.read(tmp_path / "b.parquet")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidRequestError, match="cannot be read: No such file"):
        tables.read(tmp_path / "a.csv")
