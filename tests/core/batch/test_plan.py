"""What a row still needs, by what its records and an earlier run say."""

from dataclasses import replace

import pytest
from PIL import Image

from kling_integrations.core.batch.plan import Need, Wishes, plan
from kling_integrations.core.batch.results import Result, RowStatus
from kling_integrations.core.batch.rows import check
from kling_integrations.core.storage.tables import from_records
from kling_integrations.core.submission import Action, Decision, Entry, Record, State

URL = "http://127.0.0.1:1"
MODERATED = "Failed (moderation): no. A failed generation is not billed."


class Records:
    """The ledger of one row whose generation failed."""

    def __init__(self, error, error_kind):
        self.error, self.error_kind = error, error_kind

    def prefetch(self, base_url, requests):
        return self

    def preview(self, request, base_url, *, take=1):
        record = replace(Record.intent(request).submitted("a:b"), state=State.FAILED)
        entry = Entry.intent(request, record, base_url, take, None)
        entry = replace(entry, error=self.error, error_kind=self.error_kind)
        return Decision(Action.SUBMIT, "it failed", entry)


def step(error, error_kind, before=None, **wishes):
    rows = check(from_records([{"prompt": "a"}]), URL).rows
    earlier = {} if before is None else {rows[0].id: Result(1, rows[0].id, *before)}
    records = Records(error, error_kind)
    return plan(rows, records, URL, earlier, Wishes(**wishes), lambda request: 0.5)[0]


@pytest.mark.parametrize(
    ("error", "error_kind", "kind"),
    [
        (MODERATED, "provider", "provider"),  # the field, whatever the words
        ("busy", "unknown", "unknown"),
        (MODERATED, None, "moderation"),  # older records say it in their words
        ("Generation a:b failed (provider): busy.", None, "provider"),
        ("Failed: it says failed (moderation) of somebody else.", None, "unknown"),
        (None, None, "unknown"),
    ],
)
def test_the_kind_of_a_failure_is_that_of_its_record(error, error_kind, kind):
    found = step(error, error_kind)
    assert found.need is Need.NOTHING
    assert found.result.error_kind == kind
    again = step(error, error_kind, retry_failed=True)
    assert (again.need is Need.SUBMIT) == (kind != "moderation")


def test_what_an_earlier_run_said_of_a_row_that_ran_is_not_why_it_failed():
    before = (RowStatus.RUNNING, "a:b", None, None, None, None, None, None, "timeout")
    assert step("busy", None, before).result.error_kind == "unknown"
    assert step("busy", "provider", before, retry_failed=True).need is Need.SUBMIT


def test_a_row_says_what_its_failed_generation_was_also_without_an_earlier_result():
    assert step("busy", "provider").result.generation_id == "a:b"
    assert step("busy", "provider").result.submitted_at


def test_a_row_whose_picture_has_gone_since_it_was_checked_is_refused_with_the_reason(tmp_path):
    picture = tmp_path / "cat.png"
    Image.new("RGB", (320, 320)).save(picture)
    table = from_records([{"prompt": "a", "image": str(picture)}])
    [row] = check(table, URL).rows
    picture.unlink()
    [found] = plan([row], Records(None, None), URL, {}, Wishes(), lambda request: 0.5)
    assert found.need is Need.NOTHING
    assert found.result.status == RowStatus.REFUSED
    assert "cat.png" in found.result.error
