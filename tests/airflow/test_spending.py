"""The budget of a DAG run: reserved before each POST, settled after, kept by all of its tasks."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from kling_integrations.airflow import KlingVideoOperator
from kling_integrations.airflow.durable import SubmissionStore
from kling_integrations.airflow.exceptions import KlingTaskError
from kling_integrations.airflow.facts import FAILURE_KEY
from kling_integrations.airflow.spending import Spending
from kling_integrations.core.catalog import DEFAULT_MODEL
from kling_integrations.core.storage.folder_records import FolderRecords
from kling_integrations.core.storage.shared_budget import SharedBudget, Totals

RUN = "scheduled__1"
PRICE = 0.5


@pytest.fixture(autouse=True)
def prices(sandbox):
    """Each video costs half a dollar, by the list and in the end."""
    unit = {"name": "video", "price": PRICE}
    entry = {"id": DEFAULT_MODEL, "pricing": {"kind": "fixed", "units": [unit]}}
    body = {"object": "list", "data": [entry]}
    return sandbox.fault("models", "reply", body=body, times=None)


@pytest.fixture
def shelf(tmp_path):
    return tmp_path / "shelf"


@pytest.fixture
def video(task, shelf, deferrable):
    """``video(3)`` is the task instance with that map index, of one and the same run."""

    def make(map_index=-1, *, limit=5.0, run_id=RUN, retries=0, **changes):
        options = {
            "task_id": "video",
            "prompt": f"number {map_index}",
            "deferrable": deferrable,
            "record_path": shelf.as_uri(),
            "max_usd_per_run": limit,
            **changes,
        }
        return task(
            lambda: KlingVideoOperator(**options),
            run_id=run_id,
            map_index=map_index,
            retries=retries,
        )

    return make


@pytest.fixture
def totals(shelf, video):
    def read() -> Totals:
        attempt = video()
        attempt.started = None
        spending = Spending(attempt.make(), attempt.context())
        return SharedBudget(FolderRecords(shelf), spending._run).totals()

    return read


def outcome(attempt):
    try:
        attempt.run()
    except AirflowFailException as error:
        return str(error)
    return "paid"


@pytest.mark.thorough
def test_of_fifty_mapped_tasks_that_race_for_five_dollars_ten_pay(sandbox, video, totals):
    barrier = threading.Barrier(50)

    def run(number):
        attempt = video(number)
        barrier.wait(60)
        return outcome(attempt)

    with ThreadPoolExecutor(50) as pool:
        said = Counter(pool.map(run, range(50)))
    assert said.pop("paid") == 10
    assert said.total() == 40
    assert all("$0.00 is left of $5.00" in words for words in said)
    assert len(sandbox.posts) == 10
    assert totals() == Totals(5.0, 0.0)


def test_the_refusal_has_the_figures_and_pays_nothing(sandbox, video):
    video(0, limit=0.75).run()
    with pytest.raises(AirflowFailException) as caught:
        video(1, limit=0.75).run()
    assert str(caught.value).startswith(
        "This is expected to cost $0.50, and $0.25 is left of $0.75: $0.50 is spent and $0.00 "
        "reserved for what is under way. Nothing was submitted.\n  The limit is max_usd_per_run"
    )
    assert len(sandbox.posts) == 1
    refused = video(2, limit=0.75)
    with pytest.raises(AirflowFailException):
        refused.run()
    assert refused.xcom[FAILURE_KEY]["prompt"] == "number 2"
    assert video(1, limit=0.75, run_id="scheduled__2").run()["status"] == "completed"


def test_a_retry_and_a_clear_count_once(sandbox, video, totals):
    attempt = video(limit=0.5, retries=1)
    busy = sandbox.fault("submit", "429", None)
    with pytest.raises(KlingTaskError):
        attempt.run()
    assert totals() == Totals(0.0, 0.0)
    busy.times = busy.hits
    attempt.run()
    attempt.clear()
    attempt.run()
    assert len(sandbox.jobs) == 1
    assert totals() == Totals(0.5, 0.0)


def test_a_clear_that_pays_again_needs_what_is_left(sandbox, video, totals):
    attempt = video(limit=0.75, on_clear="regenerate")
    attempt.run()
    attempt.clear()
    with pytest.raises(AirflowFailException, match=r"\$0.25 is left"):
        attempt.run()
    assert totals() == Totals(0.5, 0.0)
    assert len(sandbox.jobs) == 1


class Killed(BaseException):
    pass


def test_a_kill_between_reservation_and_post_is_counted_once(sandbox, video, totals, monkeypatch):
    attempt = video(limit=0.5, retries=3)

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(SubmissionStore, "intend", die)
        for _ in range(3):
            with pytest.raises(Killed):
                attempt.run()
    assert totals() == Totals(0.0, 0.5)
    attempt.run()
    assert len(sandbox.posts) == 1
    assert totals() == Totals(0.5, 0.0)


def test_a_kill_before_the_id_is_noted_is_counted_once(sandbox, video, totals, monkeypatch):
    attempt = video(limit=0.5, retries=1)

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(SharedBudget, "paid", die)
        with pytest.raises(Killed):
            attempt.run()
    assert totals() == Totals(0.0, 0.5)
    sandbox.finish()
    attempt.run()
    assert len(sandbox.posts) == 1
    assert totals() == Totals(0.5, 0.0)


def test_a_failed_generation_gives_its_part_back(sandbox, video, totals):
    with pytest.raises(AirflowFailException):
        video(0, limit=0.5, prompt="a [fail:moderation]").run()
    assert totals() == Totals(0.0, 0.0)
    assert video(1, limit=0.5).run()["status"] == "completed"


def test_a_refused_post_gives_its_part_back(sandbox, video, totals, connect):
    connect(sandbox, key="broke")
    with pytest.raises(AirflowFailException, match="credits"):
        video(0).run()
    assert totals() == Totals(0.0, 0.0)


def test_a_post_in_doubt_stays_counted(sandbox, video, totals):
    sandbox.fault("submit", "drop-after")
    with pytest.raises(KlingTaskError):
        video(0).run()
    assert totals() == Totals(0.0, 0.5)


def test_without_a_place_that_all_reach_it_says_what_to_set(sandbox, video):
    with pytest.raises(AirflowFailException, match=r"Set record_path in the section \[kling\]"):
        video(record_path=None).run()
    assert sandbox.posts == []


def test_an_unknown_price_is_refused(sandbox, video, prices):
    prices.options["body"] = {"object": "list", "data": []}
    with pytest.raises(AirflowFailException, match="so max_usd_per_run cannot be kept"):
        video().run()
    assert sandbox.posts == []


@pytest.mark.parametrize("wrong", ["None", "", -1, "nan", "a lot"])
def test_a_limit_that_is_none_is_refused(sandbox, video, wrong):
    with pytest.raises(AirflowFailException, match="max_usd_per_run"):
        video(limit=wrong).run()
    assert sandbox.posts == []


def test_a_budget_out_of_reach_pays_nothing_and_is_tried_again(sandbox, video, shelf):
    shelf.write_text("a file where the folder should be")
    with pytest.raises(KlingTaskError) as caught:
        video().run()
    assert not isinstance(caught.value, AirflowFailException)
    assert sandbox.posts == []


def test_the_configuration_has_it_for_all_tasks(monkeypatch, shelf):
    monkeypatch.setenv("AIRFLOW__KLING__MAX_USD_PER_RUN", "2.5")
    assert KlingVideoOperator(task_id="v", prompt="x").max_usd_per_run == "2.5"
    assert KlingVideoOperator(task_id="v", prompt="x", max_usd_per_run=1).max_usd_per_run == 1


def test_default_args_make_it_the_whole_dags():
    from airflow.sdk import DAG

    with DAG("films", schedule=None, default_args={"max_usd_per_run": 10}):
        film = KlingVideoOperator(task_id="film", prompt="x")
    assert film.max_usd_per_run == 10


def test_the_record_has_the_id_before_the_budget_is_written(task, operator, monkeypatch):
    seen = []

    def paid(self, generation_id):
        seen.append(attempt.store.get("kling_submission")["generation_id"] == generation_id)

    monkeypatch.setattr(Spending, "paid", paid)
    attempt = task(operator())
    attempt.run()
    assert seen == [True]
