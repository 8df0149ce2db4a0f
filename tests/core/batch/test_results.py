"""What becomes of a row."""

import pytest

from kling_integrations import (
    DownloadError,
    GenerationFailedError,
    InvalidRequestError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from kling_integrations.core.batch.results import (
    COLUMNS,
    Result,
    RowStatus,
    added_columns,
    classify,
    own_columns,
    result_column,
)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (GenerationFailedError("no", kind="moderation", generation_id="x"), "failed", "moderation"),
        (GenerationFailedError("no", kind="provider", generation_id="x"), "failed", "provider"),
        (SubmissionUncertainError("?"), "uncertain", "uncertain"),
        (WaitTimeoutError("late", generation_id="x"), "running", "timeout"),
        (DownloadError("disk", generation_id="x"), "completed", "download"),
        (InvalidRequestError("no"), "refused", "input"),
    ],
)
def test_each_error_makes_of_its_row_what_it_is(error, status, kind):
    assert classify(error) == (RowStatus(status), kind)


def test_columns_of_the_table_keep_their_names():
    names = added_columns(["status", "prompt", "kling_status"])
    assert names["status"] == "kling_kling_status"
    assert names["path"] == "path"


def test_a_line_that_is_no_result_is_none():
    assert Result.of({"row": 1, "row_id": "a", "status": "splendid"}) is None
    assert Result.of({"prompt": "a"}) is None
    whole = Result(1, "a", RowStatus.COMPLETED, "id")
    assert Result.of(whole.to_json()) == whole
    assert set(whole.to_json()) == set(COLUMNS)


def test_columns_that_an_earlier_run_added_are_none_of_the_tables_own():
    own = ["prompt", "status", "size"]
    added = added_columns(own)
    assert own_columns([*own, *added.values()]) == own
    assert own_columns([*own, *reversed(added.values()), "more"]) == [*own, "more"]
    twice = [*own, *added.values()]
    twice += added_columns(twice).values()
    assert own_columns(twice) == own
    assert own_columns(["row", "row_id", "status"]) == ["row", "row_id", "status"]
    cut = [name for name in [*own, *added.values()] if name not in ("sha256", "usd")]
    assert own_columns(cut) == own


def test_a_result_column_is_found_under_the_name_that_it_had_to_take():
    columns = ["path", "kling_path", "kling_my_path"]
    assert result_column(columns, "path") == "kling_path"
    assert result_column(columns, "sha256") is None
