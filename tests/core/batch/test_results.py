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
