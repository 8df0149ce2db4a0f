"""What a row asks for, and what makes it the same row again."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from kling_integrations import InvalidRequestError
from kling_integrations.core.batch.rows import Row, Table, check
from kling_integrations.core.storage.tables import from_records

URL = "https://api.example"


def rows_of(*records, **options):
    return check(from_records(records), URL, **options)


def ids(*records, **options):
    return [row.id for row in rows_of(*records, **options).rows]


def test_rows_that_ask_for_the_same_are_two_videos():
    first, second = ids({"prompt": "a"}, {"prompt": "a"})
    assert first != second


def test_sorting_and_adding_rows_changes_no_other_row():
    before = ids({"prompt": "a"}, {"prompt": "b"}, {"prompt": "b"})
    after = ids({"prompt": "new"}, {"prompt": "b"}, {"prompt": "a"}, {"prompt": "b"})
    assert set(before) < set(after)


def test_a_changed_row_is_a_new_row_and_its_foreign_columns_are_not_part_of_it():
    one = ids({"prompt": "a", "duration": 5, "title": "x"})
    assert ids({"prompt": "a", "duration": "5", "title": "y"}) == one
    assert ids({"prompt": "a", "duration": 10, "title": "x"}) != one


def test_a_row_with_a_key_of_its_own_is_known_by_it():
    one, two = ids({"key": "x", "prompt": "a"}, {"key": "y", "prompt": "a"})
    assert one != two
    assert ids({"key": "y", "prompt": "a"}, {"key": "x", "prompt": "a"}) == [two, one]


def test_the_same_key_twice_is_named():
    [problem] = rows_of(
        {"sku": 7, "prompt": "a"}, {"sku": 7.0, "prompt": "b"}, names={"key": "sku"}
    ).problems
    assert (problem.row, problem.column) == (2, "sku")
    assert "row 1" in problem.reason


def test_the_row_of_another_gateway_is_another_row():
    table = from_records([{"prompt": "a"}])
    assert check(table, URL).rows[0].id != check(table, "https://other.example").rows[0].id


def test_the_payment_of_a_first_row_is_that_of_the_request_alone():
    [row] = rows_of({"prompt": "a"}).rows
    assert row.take == 1


def test_cells_of_a_csv_become_what_they_mean():
    [row] = rows_of(
        {
            "Prompt": "a",
            "Model": "v2.6-pro",
            "Duration": "10.0",
            "CFG Scale": "0.5",
            "audio": "no",
            "aspect-ratio": " 9:16 ",
            "extra": '{"seed": 7}',
            "negative_prompt": "",
        }
    ).rows
    payload = row.request().payload()
    assert payload["duration"] == 10
    assert payload["cfg_scale"] == 0.5
    assert payload["generate_audio"] is False
    assert payload["aspect_ratio"] == "9:16"
    assert payload["seed"] == 7
    assert "negative_prompt" not in payload


def test_cells_of_a_frame_become_what_they_mean():
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    [row] = rows_of(
        {"prompt": "a", "duration": numpy.int64(10), "cfg_scale": math.nan, "image": pandas.NA}
    ).rows
    assert row.duration == 10
    assert "cfg_scale" not in row.request().payload()


def test_lists_in_a_cell_are_read_as_json():
    model = "kling-video/v1.6/standard/multi-image-to-video"
    links = '["https://x.example/a.png", "https://x.example/b.png"]'
    [row] = rows_of({"prompt": "a", "model": model, "image_list": links}).rows
    assert len(row.request().payload()["image_list"]) == 2


def test_a_default_holds_where_a_row_says_nothing():
    short, long = rows_of(
        {"prompt": "a", "duration": None}, {"prompt": "b", "duration": 10}, defaults={"duration": 5}
    ).rows
    assert (short.duration, long.duration) == (5, 10)


def test_a_foreign_column_is_no_parameter_and_a_parameter_of_another_model_neither():
    [row] = rows_of({"prompt": "a", "price": 3, "file": "x", "mode": "pro"}).rows
    assert row.request().payload().keys() == {"model", "prompt"}


def test_every_bad_row_is_named_with_its_column_and_reason():
    checked = rows_of(
        {"prompt": "a"},
        {"prompt": "  "},
        {"prompt": "c", "duration": "seven"},
        {"prompt": "d", "aspect_ratio": "2:1"},
        {"prompt": "e"},
    )
    assert [(each.row, each.column) for each in checked.problems] == [
        (2, "prompt"),
        (3, "duration"),
        (4, "aspect_ratio"),
    ]
    assert [row.number for row in checked.rows] == [1, 5]
    assert "takes 5 or 10" in checked.problems[1].reason


def test_a_warning_is_said_once_for_thousands_of_rows():
    checked = rows_of(*({"prompt": f"{n}", "model": "klingai/of-tomorrow"} for n in range(50)))
    assert len(checked.rows) == 50
    assert len(checked.notes) == 1


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(InvalidRequestError, match=r"no column 'txt'. Did you mean text\?"):
        rows_of({"text": "a"}, names={"prompt": "txt"})


def test_two_columns_of_one_meaning_are_refused():
    with pytest.raises(InvalidRequestError, match="both mean prompt"):
        rows_of({"prompt": "a", "Prompt": "b"})


def test_an_empty_table_is_refused():
    with pytest.raises(InvalidRequestError, match="no rows"):
        rows_of()


def test_a_picture_beside_the_table_is_found(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (400, 400)).save(tmp_path / "a.png")
    table = Table(["prompt", "image"], [{"prompt": "a", "image": "a.png"}], tmp_path)
    checked = check(table, URL)
    assert checked.rows[0].request().payload()["image_url"].startswith("data:image/png")


def test_a_picture_that_changes_after_the_check_is_not_paid_for(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (400, 400)).save(tmp_path / "a.png")
    [row] = rows_of({"prompt": "a", "image": str(tmp_path / "a.png")}).rows
    image.new("RGB", (400, 400), "red").save(tmp_path / "a.png")
    with pytest.raises(InvalidRequestError, match="changed after"):
        row.request()


def test_a_row_makes_its_request_anew_in_any_thread_without_a_word(tmp_path):
    rows = [{"prompt": "a", "model": f"klingai/of-tomorrow-{n}"} for n in range(20)]
    checked = check(from_records(rows), URL)
    assert len(checked.notes) == 20
    with warnings.catch_warnings(record=True) as said, ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        made = list(pool.map(Row.request, checked.rows))
        assert warnings.filters == before
        assert not said
    assert [request.model for request in made] == [row["model"] for row in rows]
