"""Rows whose POST has no known outcome: never paid twice, and counted for as long as it lasts."""

import asyncio
import json
import sqlite3
import threading

import pytest
from core.batch.conftest import prompts

from kling_integrations import InvalidRequestError, Ledger
from kling_integrations.core import recovery
from kling_integrations.core.batch.tally import Tally

pytestmark = pytest.mark.thorough  # whole batches, with another process beside them


def statuses(outcome):
    return [result.status for result in outcome.results]


def requests(desk, count):
    return [row.request() for row in desk.batch(prompts(count)).checked.rows]


def test_a_row_that_another_process_submits_is_waited_for(desk, monkeypatch):
    """And not looked up, let alone paid for a second time, however much that was asked for."""
    [request] = requests(desk, 1)
    other = Ledger(desk.ledger.path)
    lock = other.lock(request)
    assert lock.try_acquire()
    _, record = other.claim(request, desk.sandbox.base_url)
    looked, is_submitting = threading.Event(), Ledger.is_submitting

    def look(self, entry):
        looked.set()
        return is_submitting(self, entry)

    monkeypatch.setattr(Ledger, "is_submitting", look)
    outcomes = []
    batch = threading.Thread(
        target=lambda: outcomes.append(desk(prompts(1), retry_uncertain=True, timeout=1))
    )
    batch.start()
    assert looked.wait(30)
    other.advance(record.submitted("gen-of-another"))
    lock.release()
    batch.join(60)
    assert outcomes[0].results[0].generation_id == "gen-of-another"
    assert desk.posts == 0
    assert not desk.sandbox.requests["logs"]


def test_what_got_its_id_between_the_plan_and_the_look_is_attached(desk):
    [request] = requests(desk, 1)
    _, record = desk.ledger.claim(request, desk.sandbox.base_url)
    batch = desk.batch(prompts(1), retry_uncertain=True, timeout=1)
    prepared = batch.prepare(asyncio.run(batch.prices()))
    desk.ledger.advance(record.submitted("gen-1"))
    [result] = batch.run_to_end(prepared).results
    assert result.generation_id == "gen-1"
    assert desk.posts == 0


def test_only_the_post_that_was_looked_up_is_passed_over(desk):
    """A second doubt, of another process, is a question of its own."""
    [request] = requests(desk, 1)
    url = desk.sandbox.base_url
    _, first = desk.ledger.claim(request, url)
    _, second = desk.ledger.claim(request, url, new=True)
    with pytest.raises(Exception, match="no known outcome"):
        desk.ledger.claim(request, url, resubmit=first.client_request_id)
    decision, _ = desk.ledger.claim(request, url, resubmit=second.client_request_id)
    assert decision.pays


@pytest.mark.parametrize("kind", ["503", "401", "drop-before", "html"])
def test_a_log_that_cannot_be_read_says_nothing_about_a_post(desk, kind):
    desk.sandbox.fault("submit", "drop-after", 1)
    desk.sandbox.fault("logs", kind, None)
    outcome = desk(prompts(2), retry_uncertain=True)
    assert sorted(statuses(outcome)) == ["completed", "uncertain"]
    assert "cannot be looked up" in next(r.error for r in outcome.results if r.error)
    assert desk.posts == 2
    desk.sandbox.clear_faults()
    assert statuses(desk(prompts(2))) == ["completed"] * 2  # the log names it
    assert desk.posts == 2


def test_a_log_that_is_too_long_to_be_read_says_nothing_about_a_post(desk, monkeypatch):
    monkeypatch.setattr(recovery, "_MOST_PAGES", 0)
    desk.sandbox.fault("submit", "drop-before", 1)
    outcome = desk(prompts(1), retry_uncertain=True)
    assert statuses(outcome) == ["uncertain"]
    assert desk.posts == 1


def test_what_may_have_been_paid_counts_in_every_later_run(desk):
    [request] = requests(desk, 1)
    price = desk(prompts(1), max_cost=100).results[0].expected_usd
    assert price
    desk.ledger.path.unlink()
    desk.results.unlink()
    desk.ledger.claim(request, desk.sandbox.base_url)
    assert statuses(desk(prompts(1), max_cost=price)) == ["uncertain"]
    # Its money is not there for another row, nor for a second POST of the same one.
    assert statuses(desk(prompts(2), max_cost=price)) == ["uncertain", "not_submitted"]
    posts = desk.posts
    assert statuses(desk(prompts(1), max_cost=price, retry_uncertain=True)) == ["not_submitted"]
    assert desk.posts == posts
    assert statuses(desk(prompts(1), max_cost=2 * price, retry_uncertain=True)) == ["completed"]
    assert desk.posts == posts + 1
    # A third video does not fit into what two POSTs have cost, though one of them left no trace.
    assert statuses(desk(prompts(2), max_cost=2 * price)) == ["completed", "not_submitted"]


def test_a_doubt_stays_one_where_the_records_are_gone(desk):
    """On another machine, say: the results of the earlier run are all that tells of it."""
    [request] = requests(desk, 1)
    desk.ledger.claim(request, desk.sandbox.base_url)
    price = desk(prompts(1), max_cost=100).results[0].expected_usd
    desk.ledger.path.unlink()
    desk.ledger = Ledger(desk.folder / "another home" / "ledger.sqlite3")
    assert statuses(desk(prompts(1), max_cost=100)) == ["uncertain"]
    assert desk.posts == 0
    again = desk(prompts(1), max_cost=price, retry_uncertain=True)
    assert statuses(again) == ["not_submitted"]  # what may have been paid counts


def test_rows_that_were_edited_or_taken_out_count_for_the_whole_batch(desk):
    price = desk(prompts(2), max_cost=100).results[0].expected_usd
    edited = [{"prompt": "number 0"}, {"prompt": "another one"}]
    assert statuses(desk(edited, max_cost=2 * price)) == ["completed", "not_submitted"]
    assert statuses(desk(edited, max_cost=3 * price)) == ["completed", "completed"]
    assert desk.posts == 3


def test_a_doubt_that_was_passed_over_counts_also_once_its_row_is_edited(desk):
    [request] = requests(desk, 1)
    desk.ledger.claim(request, desk.sandbox.base_url)
    assert statuses(desk(prompts(1), max_cost=100)) == ["uncertain"]
    outcome = desk(prompts(1), max_cost=100, retry_uncertain=True)
    price = outcome.results[0].expected_usd
    edited = [{"prompt": "another one"}]
    assert statuses(desk(edited, max_cost=2 * price)) == ["not_submitted"]
    assert statuses(desk(edited, max_cost=3 * price)) == ["completed"]


@pytest.mark.parametrize("usd", [-5.0, 0.0])
def test_an_odd_figure_of_an_earlier_run_frees_no_money(desk, usd):
    price = desk(prompts(1), max_cost=100).results[0].expected_usd
    [entry] = desk.ledger.history()
    with sqlite3.connect(desk.ledger.path) as db:
        db.execute("UPDATE submissions SET usage = ?", (json.dumps({"usd_spent": usd}),))
    desk.results.unlink()  # so that the record says what it cost
    assert entry.generation_id
    assert statuses(desk(prompts(3), max_cost=2 * price)).count("completed") == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at_once", "10"),
        ("at_once", 2.5),
        ("at_once", True),
        ("timeout", "9"),
        ("timeout", float("nan")),
        ("requests_per_second", 0),
        ("requests_per_second", "x"),
        ("max_cost", -1),
    ],
)
def test_what_no_batch_can_be_run_with_is_refused_before_anything_is_paid(desk, name, value):
    with pytest.raises(InvalidRequestError, match=name):
        desk.batch(prompts(1), **{name: value})


def test_a_gateway_that_cannot_be_reached_ends_a_batch_that_never_got_through(desk):
    lines: list[str] = []

    def note(tally: Tally) -> None:
        lines.append(tally.line())

    batch = desk.batch(prompts(3))
    prepared = batch.prepare(asyncio.run(batch.prices()))
    desk.sandbox.pause()
    outcome = batch.run_to_end(prepared, note)
    assert statuses(outcome) == ["not_submitted"] * 3
    assert outcome.stopped is not None
    assert {result.error_kind for result in outcome.results} == {"stopped"}
    assert any("submitting" in line for line in lines)
    assert "nothing more is submitted" in lines[-1]
