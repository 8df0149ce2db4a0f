"""Whole batches against the sandbox: one POST a row, one result a row."""

import json
import threading
from contextlib import suppress

import pytest
from core.batch.conftest import Desk, prompts

from kling_integrations import InvalidRequestError, KlingWarning
from kling_integrations.core.batch.job import BadRowsError
from kling_integrations.sandbox import Sandbox

pytestmark = pytest.mark.thorough  # whole lives of tasks, side by side and one after the other


def statuses(outcome):
    return [result.status for result in outcome.results]


def test_each_row_is_one_payment_and_one_line_in_order_and_again_nothing_is_paid(desk):
    rows = [{"name": "é", **row} for row in prompts(12)]
    outcome = desk(rows, at_once=5)
    assert statuses(outcome) == ["completed"] * 12
    assert desk.posts == desk.sandbox.paid == 12
    lines = [json.loads(line) for line in desk.results.read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [row["prompt"] for row in rows]
    assert {line["name"] for line in lines} == {"é"}
    assert len({line["path"] for line in lines}) == 12
    before = desk.sandbox.requests
    assert statuses(desk(rows)) == ["completed"] * 12
    assert desk.sandbox.requests - before == {"models": 1}  # the price list


def test_duplicate_rows_are_two_videos_and_a_changed_row_is_one_more(desk):
    rows = [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}]
    desk(rows)
    assert desk.sandbox.paid == 3
    desk([{"prompt": "a"}, {"prompt": "B"}, {"prompt": "a"}])
    assert desk.sandbox.paid == 4


def test_without_the_results_of_the_earlier_run_the_ledger_still_knows(desk):
    first = desk(prompts(4))
    desk.results.unlink()
    before = desk.sandbox.requests["download"]
    again = desk(prompts(4))
    assert desk.posts == 4
    assert desk.sandbox.requests["download"] == before
    assert [each.generation_id for each in again.results] == [
        each.generation_id for each in first.results
    ]


def test_videos_that_are_gone_are_fetched_again_and_not_paid_again(desk):
    first = desk(prompts(3))
    (desk.folder / "out" / first.results[1].path).unlink()
    assert statuses(desk(prompts(3))) == ["completed"] * 3
    assert desk.posts == 3
    assert (desk.folder / "out" / first.results[1].path).exists()


def test_a_failed_row_is_a_row_and_only_a_providers_failure_is_paid_for_again(desk):
    rows = [
        {"prompt": "good"},
        {"prompt": "bad [fail:moderation]"},
        {"prompt": "unlucky [fail:provider]"},
    ]
    outcome = desk(rows)
    assert statuses(outcome) == ["completed", "failed", "failed"]
    assert [each.error_kind for each in outcome.results] == [None, "moderation", "provider"]
    assert statuses(desk(rows)) == ["completed", "failed", "failed"]
    assert desk.posts == 3
    desk.results.unlink()  # what failed, and how, is in the records, too
    assert [each.error_kind for each in desk(rows).results] == [None, "moderation", "provider"]
    assert desk.posts == 3
    desk(rows, retry_failed=True)
    assert [post.body["prompt"] for post in desk.sandbox.posts[3:]] == [rows[2]["prompt"]]


def test_fifty_rows_that_race_for_five_dollars_spend_five(desk):
    outcome = desk(prompts(50), max_cost=5.0, at_once=50)
    assert desk.sandbox.paid == 10  # at 0.50 each
    assert statuses(outcome).count("completed") == 10
    assert {each.error_kind for each in outcome.results} == {None, "budget"}
    desk(prompts(50), max_cost=5.0, at_once=50)
    assert desk.sandbox.paid == 10  # the limit is for the batch, not for each run of it
    desk(prompts(50), max_cost=7.4, at_once=50)
    assert desk.sandbox.paid == 14


def test_failed_rows_leave_their_money_to_others(desk):
    rows = [{"prompt": f"{n} [fail:provider]"} for n in range(3)] + prompts(5)
    outcome = desk(rows, max_cost=2.0, at_once=2)
    assert statuses(outcome) == ["failed"] * 3 + ["completed"] * 4 + ["not_submitted"]


def test_a_limit_without_a_price_is_refused_before_anything_is_paid(desk):
    with Sandbox(speed=1000, seconds=60, unknown_models=True) as sandbox:
        own = Desk(sandbox, desk.folder)
        with pytest.raises(InvalidRequestError, match="row 1 .*unknown beforehand"):
            own([{"prompt": "a", "model": "klingai/of-tomorrow"}], max_cost=5.0)
        assert not sandbox.posts


def test_bad_rows_are_all_named_before_anything_is_paid(desk):
    rows = [{"prompt": "a"}, {"prompt": ""}, {"prompt": "b", "duration": 7}]
    with pytest.raises(BadRowsError) as caught:
        desk(rows)
    assert [each.row for each in caught.value.problems] == [2, 3]
    assert "row 3, duration: " in caught.value.message
    assert desk.posts == 0
    outcome = desk(rows, skip_bad=True)
    assert statuses(outcome) == ["completed", "refused", "refused"]
    assert desk.posts == 1


def test_a_429_is_learned_from_and_every_row_gets_its_video(desk):
    desk.sandbox.fault("submit", "429", 6)
    outcome = desk(prompts(10), at_once=10)
    assert statuses(outcome) == ["completed"] * 10
    assert desk.sandbox.paid == 10


def test_the_window_fills_up_before_the_first_one_ends(desk):
    with Sandbox(speed=1000, seconds=float("inf"), size=(160, 90)) as sandbox:
        own = Desk(sandbox, desk.folder)

        def end_them_all():
            with suppress(TimeoutError):
                sandbox.wait_for(lambda _: len(sandbox.jobs) == 12, 20)
            seen.append(len(sandbox.jobs))
            sandbox.wait_for(lambda _: not sandbox.finish() and len(sandbox.jobs) == 15, 20)
            sandbox.finish()

        seen: list[int] = []
        thread = threading.Thread(target=end_them_all)
        thread.start()
        outcome = own(prompts(15), at_once=12)
        thread.join()
    assert seen == [12]
    assert statuses(outcome) == ["completed"] * 15


def test_a_post_without_a_reply_is_looked_up_and_not_repeated(desk):
    desk.sandbox.fault("submit", "drop-after", 2)
    desk.sandbox.fault("submit", "502-after", 1, header=False)
    outcome = desk(prompts(8), at_once=4)
    assert statuses(outcome) == ["completed"] * 8
    assert desk.sandbox.paid == desk.posts == 8


def test_a_post_that_the_log_does_not_name_stays_uncertain_until_the_user_says(desk):
    desk.sandbox.fault("submit", "drop-before", 1)
    outcome = desk(prompts(3), at_once=1)
    assert statuses(outcome) == ["uncertain", "completed", "completed"]
    assert statuses(desk(prompts(3))) == ["uncertain", "completed", "completed"]
    assert desk.posts == 3
    assert statuses(desk(prompts(3), retry_uncertain=True)) == ["completed"] * 3
    assert desk.sandbox.paid == 3


def test_a_gateway_that_takes_posts_and_never_answers_well_is_not_asked_for_long(desk):
    desk.sandbox.fault("submit", "500-after", None, header=False)
    outcome = desk(prompts(40), at_once=2)
    assert desk.posts <= 5 + 2
    assert outcome.stopped is not None
    assert statuses(outcome).count("completed") == desk.posts  # all of them are in the log


def test_an_account_without_credits_stops_the_batch_and_loses_nothing(desk, monkeypatch):
    desk(prompts(2))
    monkeypatch.setenv("AIML_API_KEY", "broke")
    outcome = desk(prompts(20))
    assert statuses(outcome) == ["completed"] * 2 + ["not_submitted"] * 18
    assert outcome.stopped is not None
    assert desk.posts <= 2 + 10


def test_an_interrupt_keeps_what_runs_and_the_next_run_goes_on_with_it(tmp_path):
    with Sandbox(speed=1000, seconds=float("inf"), size=(160, 90), fps=8) as sandbox:
        desk = Desk(sandbox, tmp_path)
        main = threading.main_thread().ident

        def interrupt(tally):
            if tally.running == 3 and tally.paid_now == 3 and not told.is_set():
                told.set()
                import signal

                signal.pthread_kill(main, signal.SIGINT)

        told = threading.Event()
        outcome = desk(prompts(8), interrupt, at_once=3)
        assert outcome.interrupted
        assert statuses(outcome) == ["running"] * 3 + ["not_submitted"] * 5
        assert len(desk.results.read_text().splitlines()) == 8
        sandbox.finish()
        before = {each.generation_id for each in outcome.results[:3]}
        outcome = desk(prompts(3))
        assert {each.generation_id for each in outcome.results} == before
        assert statuses(outcome) == ["completed"] * 3
        assert desk.posts == 3


def test_two_runs_of_one_batch_do_not_go_at_once(desk):
    refused = []

    def try_a_second():
        try:
            desk(prompts(2))
        except InvalidRequestError as error:
            refused.append(error.message)

    def second(tally):
        if tally.running == 2 and not refused:
            other = threading.Thread(target=try_a_second)
            other.start()
            other.join()

    desk(prompts(2), second, at_once=2)
    assert "Another run of this batch" in refused[0]
    assert desk.posts == 2


def test_a_display_that_fails_ends_no_batch(desk):
    def broken(tally):
        raise ValueError("no screen")

    with pytest.warns(KlingWarning, match="no screen"):
        outcome = desk(prompts(3), broken)
    assert statuses(outcome) == ["completed"] * 3


def test_results_of_somebody_else_are_left_as_they_are(desk):
    desk.results.write_text("my own notes\n")
    with pytest.raises(InvalidRequestError, match="was not made here"):
        desk(prompts(2))
    assert desk.posts == 0
    desk(prompts(2), overwrite=True)
    assert len(desk.results.read_text().splitlines()) == 2


def test_a_download_that_fails_is_a_completed_row_without_a_path(desk):
    desk.sandbox.fault("download", "404", None, match=None)
    outcome = desk(prompts(2))
    assert statuses(outcome) == ["completed"] * 2
    assert [each.error_kind for each in outcome.results] == ["download"] * 2
    desk.sandbox.clear_faults()
    outcome = desk(prompts(2))
    assert all(each.path for each in outcome.results)
    assert [each.error_kind for each in outcome.results] == [None] * 2
    assert desk.posts == 2


def test_a_gateway_that_cannot_be_reached_for_a_while_loses_no_row(desk):
    def pause(tally):
        if tally.done == 2 and not paused:
            paused.append(threading.Timer(0.3, desk.sandbox.resume))
            desk.sandbox.pause()
            paused[0].start()

    paused = []
    outcome = desk(prompts(12), pause, at_once=2)
    assert paused
    assert {"completed", "uncertain"} >= set(statuses(outcome))
    assert desk.posts == desk.sandbox.paid
