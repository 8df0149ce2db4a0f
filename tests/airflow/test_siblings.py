"""A mapped task whose list comes in another order pays for what is new in it, nothing else."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from kling_integrations.airflow import KlingHook, KlingVideoOperator, siblings
from kling_integrations.airflow.exceptions import KlingTaskError
from kling_integrations.airflow.siblings import Siblings
from kling_integrations.airflow.task_identity import TaskIdentity
from kling_integrations.core.request import VideoRequest
from kling_integrations.core.storage.folder_records import FolderRecords
from kling_integrations.core.submission import Record

from .conftest import Gateway, Store, Task

pytestmark = pytest.mark.thorough  # whole lives of tasks, side by side and one after the other

PROMPTS = {letter: f"A film about the letter {letter}" for letter in "abcdex"}
DONE, QUEUED, RUNNING, DEFERRED = "success", "queued", "running", "deferred"


class Mapped:
    """The instances of a mapped task, and their states as Airflow tells them."""

    def __init__(self, tmp_path: Any, **options: Any) -> None:
        self.tasks: dict[int, Task] = {}
        self.states: dict[int, str | None] = {}
        self.options = {"record_path": str(tmp_path / "records"), **options}
        self.folder = tmp_path / "records"
        self.has_state_store = True

    def get_task_states(self, *, map_index: int, run_ids: Any, task_ids: Any, **_: Any) -> Any:
        if map_index not in self.states:
            return {}
        return {run_ids[0]: {f"{task_ids[0]}_{map_index}": self.states[map_index]}}

    def becomes(self, letters: str) -> None:
        """The list as it is now: every instance is cleared, and those beyond it are removed."""
        for index, letter in enumerate(letters):
            if index in self.tasks:
                self.tasks[index].clear()
            else:
                store = Store() if self.has_state_store else None
                self.tasks[index] = Task(lambda: None, store, 1, run_id="run", map_index=index)
            self.tasks[index].make = self._maker(letter)
            self.states[index] = QUEUED
        for index in [index for index in self.tasks if index >= len(letters)]:
            del self.tasks[index]
            self.states[index] = "removed"

    def _maker(self, letter: str) -> Callable[[], Any]:
        return lambda: KlingVideoOperator(
            task_id="video", prompt=PROMPTS[letter], output_path=None, **self.options
        )

    def records(self) -> list[dict[str, Any]]:
        found = [json.loads(file.read_text()) for file in self.folder.rglob("*.json")]
        return [each for each in found if "client_request_id" in each]

    def run(self, *order: int) -> list[str]:
        """The ids of the generations, by index."""
        made = {}
        for index in order or sorted(self.tasks):
            self.states[index] = RUNNING
            made[index] = self.tasks[index].run()["generation_id"]
            self.states[index] = DONE
        return [made[index] for index in sorted(made)]


@pytest.fixture
def mapped(tmp_path, monkeypatch) -> Mapped:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    made = Mapped(tmp_path)
    monkeypatch.setattr(
        RuntimeTaskInstance, "get_task_states", staticmethod(made.get_task_states), raising=False
    )
    monkeypatch.setattr(siblings, "_PATIENCE", 0.3)
    monkeypatch.setattr(siblings, "_INTERVAL", 0.02)
    return made


def prompts_of(sandbox: Any) -> str:
    letters = {prompt: letter for letter, prompt in PROMPTS.items()}
    return "".join(letters[post.body["prompt"]] for post in sandbox.posts)


def is_right(sandbox: Any, ids: list[str], letters: str) -> bool:
    """Whether each instance delivered a video of its own input, and no two the same."""
    return len(set(ids)) == len(ids) and all(
        sandbox.jobs[generation_id].prompt == PROMPTS[letter]
        for generation_id, letter in zip(ids, letters, strict=True)
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_list_in_another_order_pays_for_what_is_new_in_it(sandbox, mapped, order):
    mapped.becomes("abc")
    mapped.run()
    for letters, posts in (("cad", "abcd"), ("dcb", "abcd"), ("bde", "abcde")):
        mapped.becomes(letters)
        assert is_right(sandbox, mapped.run(*order), letters)
        assert prompts_of(sandbox) == posts


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1)])
def test_a_list_that_grew_at_its_beginning_pays_for_the_new_one(sandbox, mapped, order):
    mapped.becomes("abc")
    mapped.run()
    mapped.becomes("xabc")
    assert is_right(sandbox, mapped.run(*order), "xabc")
    assert prompts_of(sandbox) == "abcx"


def test_a_list_that_shrank_leaves_its_videos_to_those_who_want_them(sandbox, mapped):
    mapped.becomes("abc")
    mapped.run()
    mapped.becomes("c")
    assert is_right(sandbox, mapped.run(), "c")
    assert prompts_of(sandbox) == "abc"


@pytest.mark.parametrize("state", [DONE, DEFERRED, RUNNING, "up_for_retry", "failed"])
def test_the_same_input_twice_is_two_videos(sandbox, mapped, state):
    mapped.becomes("aa")
    mapped.run(0)
    mapped.states[0] = state
    mapped.run(1)
    assert prompts_of(sandbox) == "aa"
    assert len(sandbox.jobs) == 2


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_same_input_twice_in_a_new_order_pays_for_one_more(sandbox, mapped, order):
    mapped.becomes("abc")
    mapped.run()
    mapped.becomes("cac")
    assert is_right(sandbox, mapped.run(*order), "cac")
    assert prompts_of(sandbox) == "abcc"


def test_one_that_waits_for_its_retry_and_lost_its_video_pays_for_its_own(sandbox, mapped):
    """Which of the two delivers which does not matter, that there are two does."""
    mapped.becomes("aa")
    mapped.run(0)
    mapped.states[0] = QUEUED  # its retry
    (first,) = mapped.run(1)
    assert prompts_of(sandbox) == "a"
    assert mapped.run(0) != [first]
    assert prompts_of(sandbox) == "aa"


def test_a_clear_of_one_alone_finds_its_own(sandbox, mapped):
    mapped.becomes("abc")
    ids = mapped.run()
    mapped.tasks[1].clear()
    mapped.states[1] = QUEUED
    assert mapped.run(1) == [ids[1]]
    assert prompts_of(sandbox) == "abc"


def test_one_that_has_just_started_is_waited_for(sandbox, mapped):
    """It runs, and has not looked yet whether it still wants what it holds."""
    mapped.becomes("ab")
    mapped.run()
    mapped.becomes("bx")
    mapped.states[1] = RUNNING
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(mapped.tasks[0].run)
        second = mapped.tasks[1].run()
        ids = [first.result()["generation_id"], second["generation_id"]]
    assert is_right(sandbox, ids, "bx")
    assert sorted(prompts_of(sandbox)) == ["a", "b", "x"]


@pytest.mark.parametrize("letters", ["bca", "cab", "bac"])
def test_all_at_once_in_a_circle_do_not_wait_for_one_another(sandbox, mapped, monkeypatch, letters):
    monkeypatch.setattr(siblings, "_PATIENCE", 20.0)
    mapped.becomes("abc")
    mapped.run()
    mapped.becomes(letters)
    mapped.states = dict.fromkeys(range(3), RUNNING)

    def run(index: int) -> str:
        made = mapped.tasks[index].run()["generation_id"]
        mapped.states[index] = DONE
        return made

    begin = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        ids = list(pool.map(run, range(3)))
    assert time.monotonic() - begin < 10
    assert is_right(sandbox, ids, letters)
    assert prompts_of(sandbox) == "abc"


def test_a_record_of_3_4_that_a_clear_discarded_is_found_as_well(sandbox, mapped):
    mapped.becomes("abc")
    mapped.run()
    mapped.becomes("bca")
    for each in mapped.tasks.values():
        each.store.rows.clear()
    assert is_right(sandbox, mapped.run(), "bca")
    assert prompts_of(sandbox) == "abc"


def test_without_a_task_state_store_it_is_the_same(sandbox, mapped):
    mapped.has_state_store = False
    mapped.becomes("abc")
    mapped.run()
    mapped.becomes("bca")
    assert is_right(sandbox, mapped.run(), "bca")
    assert prompts_of(sandbox) == "abc"


def test_of_many_that_want_the_same_one_at_the_same_moment_one_gets_it(tmp_path, mapped):
    """Its maker has gone; whoever took it runs, so the others leave it alone."""
    store = FolderRecords(tmp_path)
    running: set[int] = set()

    def of(index: int) -> Siblings:
        task = TaskIdentity("dag", "run", "video", index)
        state = lambda task, asked: "running" if asked in running else None  # noqa: E731
        return Siblings(store, task, logging.getLogger(), state)

    def take(index: int, record: Record) -> bool:
        barrier.wait()
        taken = of(index).take([record.fingerprint])
        if taken is None:
            return False
        store.write(of(index).task.record_name, record.to_json())
        return True

    for turn in range(20):
        running = set(range(1, 7))
        barrier = threading.Barrier(6)
        record = Record.intent(VideoRequest(prompt=f"number {turn}")).submitted(f"g-{turn}")
        of(0).first_place(record).write(record.to_json())
        with ThreadPoolExecutor(6) as pool:
            taken = list(pool.map(take, range(1, 7), [record] * 6))
        assert taken.count(True) == 1


def test_what_failed_is_not_taken(sandbox, mapped):
    sandbox.fails = "provider"
    mapped.becomes("ab")
    for index in (0, 1):
        with pytest.raises(KlingTaskError):
            mapped.run(index)
    sandbox.fails = None
    mapped.becomes("ba")
    assert is_right(sandbox, mapped.run(), "ba")
    assert prompts_of(sandbox) == "abba"


def test_what_failed_and_could_not_be_noted_is_looked_at_before_it_is_taken(sandbox, mapped):
    mapped.options["deferrable"] = True
    mapped.becomes("ab")
    for index in (0, 1):
        mapped.tasks[index].start()  # deferred, and the task is lost
    sandbox.fails = "provider"
    for job in sandbox.jobs.values():
        job.fail = "provider"
    sandbox.finish()
    failed = {job.id for job in sandbox.jobs.values() if job.fail}
    sandbox.fails = None
    mapped.becomes("ba")
    for index in (0, 1):
        assert mapped.tasks[index].run()["generation_id"] not in failed


def test_how_far_a_generation_came_is_what_its_maker_knows(tmp_path):
    """The links of the chain may be older than the record of the one that holds it."""
    store = FolderRecords(tmp_path)
    record = Record.intent(VideoRequest(prompt="a fox"))
    maker, other = (TaskIdentity("dag", "run", "video", index) for index in (0, 1))
    place = Siblings(store, maker, logging.getLogger()).first_place(record)
    place.write(record.to_json())
    store.write(maker.record_name, record.submitted("g-1").to_json())
    others = Siblings(store, other, logging.getLogger(), lambda task, index: None)
    taken, _ = others.take([record.fingerprint])
    assert taken.generation_id == "g-1"


def test_wherever_a_video_is_held_it_says_how_it_ended(sandbox, mapped):
    mapped.becomes("ab")
    mapped.run()
    for file in mapped.folder.rglob("*.json"):  # as if its process had died right after the POST
        file.write_text(file.read_text().replace('"completed"', '"submitted"'))
    for task in mapped.tasks.values():
        task.store.rows.clear()
    mapped.run()
    assert prompts_of(sandbox) == "ab"
    newest = {file.parent: file for file in sorted(mapped.folder.rglob("inputs/*/*/*.json"))}
    states = [json.loads(file.read_text())["state"] for file in newest.values()]
    assert states == ["completed", "completed"]


def test_one_that_may_pay_gives_nothing_up_while_a_record_cannot_be_read(sandbox, mapped):
    mapped.becomes("ab")
    mapped.run()
    mapped.becomes("ba")
    mapped.tasks[0].store.rows["kling_submission"] = '{"format": 99}'
    with pytest.raises((AirflowFailException, KlingTaskError), match="unreadable"):
        mapped.run(0)
    assert not any(each.get("given_up") for each in mapped.records())
    assert prompts_of(sandbox) == "ab"


def test_a_post_in_doubt_is_settled_by_the_one_that_wants_it_now(sandbox, mapped):
    mapped.becomes("ab")
    mapped.run(0)
    sandbox.fault("submit", "drop-after")
    with pytest.raises(KlingTaskError):
        mapped.run(1)
    sandbox.finish()
    mapped.becomes("bx")
    assert is_right(sandbox, mapped.run(), "bx")
    assert prompts_of(sandbox) == "abx"


def test_a_post_in_doubt_that_the_log_does_not_name_stops_the_one_that_wants_it(sandbox, mapped):
    sandbox.seconds = 1e9
    mapped.becomes("ab")
    sandbox.fault("submit", "drop-after")
    with pytest.raises(KlingTaskError):
        mapped.run(1)
    mapped.becomes("bx")
    with pytest.raises(AirflowFailException, match="no known outcome"):
        mapped.run(0)
    assert prompts_of(sandbox) == "b"


def test_a_refused_post_leaves_nothing_that_another_could_take(sandbox, mapped):
    mapped.becomes("ab")
    ids = mapped.run()
    mapped.becomes("xb")
    sandbox.fault("submit", "429", None)
    with pytest.raises(KlingTaskError):
        mapped.run(0)
    sandbox.clear_faults()
    mapped.becomes("bx")
    assert is_right(sandbox, mapped.run(), "bx")
    mapped.becomes("ab")
    assert mapped.run() == ids
    assert len([post for post in sandbox.posts if post.generation_id]) == 3


def test_where_airflow_does_not_say_nothing_is_paid(sandbox, mapped, monkeypatch):
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    mapped.becomes("ab")
    mapped.run()
    mapped.becomes("bx")

    def away(**_: Any) -> Any:
        raise RuntimeError("the API server is away")

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(away), raising=False)
    with pytest.raises(KlingTaskError, match="Airflow does not say") as caught:
        mapped.run(0)
    assert not isinstance(caught.value, AirflowFailException)
    assert prompts_of(sandbox) == "ab"


@pytest.mark.parametrize("garbage", [b"{", b"[]", b'{"format": 9}'])
def test_an_unreadable_record_of_this_input_stops_it_before_it_pays(sandbox, mapped, garbage):
    mapped.becomes("ab")
    mapped.run()
    for file in mapped.folder.rglob("inputs/**/*.json"):
        file.write_bytes(garbage)
    mapped.becomes("bx")
    with pytest.raises(AirflowFailException, match="unreadable"):
        mapped.run(0)
    assert prompts_of(sandbox) == "ab"


def test_what_is_paid_for_is_delivered_while_the_records_of_the_others_are_away(
    sandbox, mapped, monkeypatch
):
    mapped.becomes("ab")
    ids = mapped.run()
    shutil.rmtree(mapped.folder)
    mapped.folder.write_text("no folder")
    mapped.becomes("ab")
    assert mapped.run() == ids
    assert prompts_of(sandbox) == "ab"


def test_regenerating_takes_nothing_over(sandbox, mapped):
    mapped.options["on_clear"] = "regenerate"
    mapped.becomes("ab")
    mapped.run()
    mapped.becomes("ba")
    assert is_right(sandbox, mapped.run(), "ba")
    assert prompts_of(sandbox) == "abba"


# --- other tasks of the run -----------------------------------------------------------------------


@pytest.fixture
def named(tmp_path, monkeypatch):
    """``named(task_id)``: a task of one run; ``named.states`` are what Airflow says of them."""
    states: dict[str, str] = {}

    def states_of(*, task_ids, run_ids, **_):
        return {run_ids[0]: {name: states[name] for name in task_ids if name in states}}

    monkeypatch.setattr(
        "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states", states_of
    )

    def make(task_id, *, run_id="run", **options):
        given = {"prompt": "A fox", "output_path": f"{tmp_path}/fox.mp4", "deferrable": True}
        return Task(
            lambda: KlingVideoOperator(task_id=task_id, **{**given, **options}),
            run_id=run_id,
            task_id=task_id,
        )

    make.states = states
    return make


def test_a_renamed_task_goes_on_with_what_its_removed_name_made(sandbox, named):
    named("clip").start()
    named.states["clip"] = "removed"
    assert named("movie").run()["status"] == "completed"
    assert len(sandbox.posts) == 1


def test_so_does_a_task_that_is_renamed_once_more(sandbox, named):
    named("clip").start()
    named.states["clip"] = "removed"
    named("movie").start()
    named.states["movie"] = "removed"
    assert named("film").run()["status"] == "completed"
    assert len(sandbox.posts) == 1


@pytest.mark.parametrize("state", [DONE, RUNNING, DEFERRED, "failed", None])
def test_two_tasks_of_one_input_are_two_videos(sandbox, named, state):
    named("clip").run()
    named.states["clip"] = state
    named("movie").run()
    assert len(sandbox.posts) == 2


def test_two_new_names_do_not_share_one_video(sandbox, named):
    named("clip").start()
    named.states["clip"] = "removed"
    ids = set()
    for name in ("movie", "film"):
        ids.add(named(name).run()["generation_id"])
        named.states[name] = DONE
    assert len(ids) == len(sandbox.posts) == 2


def test_a_removed_task_of_another_run_or_input_is_another_matter(sandbox, named):
    named("clip").start()
    named.states["clip"] = "removed"
    named("movie", run_id="another").run()
    named("film", prompt="A cat").run()
    assert len(sandbox.posts) == 3


def test_a_post_in_doubt_of_a_removed_task_is_settled_first(slower_sandbox, named):
    slower_sandbox.fault("submit", "drop-after")
    with pytest.raises(KlingTaskError):
        named("clip", deferrable=False).start()
    named.states["clip"] = "removed"
    assert named("movie", deferrable=False).run()["status"] == "completed"
    assert len(slower_sandbox.posts) == 1


def test_what_a_removed_task_made_is_not_paid_again_while_airflow_does_not_answer(
    sandbox, named, monkeypatch
):
    named("clip").start()

    def silent(**_):
        raise ConnectionError

    monkeypatch.setattr(
        "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states", silent
    )
    with pytest.raises(KlingTaskError):
        named("movie").start()
    assert len(sandbox.posts) == 1


# --- tests of a task ------------------------------------------------------------------------------

TEMPORARY = "__airflow_temporary_run_2026-11-{:02d}__"


def test_a_task_that_is_tested_again_goes_on_with_what_is_paid_for(sandbox, named):
    named("clip", run_id=TEMPORARY.format(1)).start()
    made = [named("clip", run_id=TEMPORARY.format(day)).run() for day in (2, 3)]
    assert {each["status"] for each in made} == {"completed"}
    assert len(sandbox.posts) == 1


def test_each_input_of_a_tested_task_is_paid_for_once(sandbox, named):
    for day, prompt in enumerate(["A fox", "A cat", "A fox", "A cat"], 1):
        named("clip", run_id=TEMPORARY.format(day), prompt=prompt).run()
    assert [post.body["prompt"] for post in sandbox.posts] == ["A fox", "A cat"]


def test_a_test_that_asks_for_another_video_pays_for_it(sandbox, named):
    for day in (1, 2):
        named("clip", run_id=TEMPORARY.format(day), on_clear="regenerate").run()
    assert len(sandbox.posts) == 2


def test_a_test_takes_nothing_from_a_run_and_a_run_nothing_from_a_test(sandbox, named):
    named("clip", run_id=TEMPORARY.format(1)).run()
    named("clip", run_id="scheduled").run()
    assert len(sandbox.posts) == 2


def test_a_test_on_another_sandbox_begins_anew(sandbox, connect, named):
    """As test suites have it, which start one each time."""
    named("clip", run_id=TEMPORARY.format(1)).run()
    with Gateway() as other:
        connect(other)
        assert named("clip", run_id=TEMPORARY.format(2)).run()["status"] == "completed"
        assert len(other.posts) == 1


def test_a_hooks_client_in_a_test_goes_on_with_what_is_paid_for(sandbox, named, monkeypatch):
    for day in (1, 2):
        attempt = named("clip", run_id=TEMPORARY.format(day))
        attempt.tries, attempt.started = 1, attempt.dag_run.run_after
        context = attempt.context()
        monkeypatch.setattr(
            "kling_integrations.airflow.version_compat.current_context", lambda c=context: c
        )
        KlingHook().client.submit(VideoRequest(prompt="A fox"))
    assert len(sandbox.posts) == 1
