"""A person approves a video, rejects it, or pays for another take: knowingly, and once."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    Asset,
    TaskDeferred,
)

pytest.importorskip("airflow.sdk.execution_time.hitl", reason="people are asked from 3.1 on")
TaskAwaitingInput = pytest.importorskip("airflow.sdk.exceptions").__dict__.get("TaskAwaitingInput")
if TaskAwaitingInput is None:
    pytest.skip("the question waits in a trigger before 3.3", allow_module_level=True)

from kling_integrations.airflow import KlingReviewOperator, KlingVideoOperator  # noqa: E402
from kling_integrations.airflow.exceptions import KlingTaskError  # noqa: E402
from kling_integrations.airflow.review import _body, _take_path  # noqa: E402
from kling_integrations.airflow.review_record import REVIEW_KEY  # noqa: E402
from kling_integrations.airflow.spending import Spending  # noqa: E402
from kling_integrations.core.errors import (  # noqa: E402
    InvalidRequestError,
    SubmissionUncertainError,
)
from kling_integrations.core.http.client import KlingClient  # noqa: E402

pytestmark = pytest.mark.thorough


@pytest.fixture
def questions(monkeypatch):
    """The questions that reached Airflow."""
    asked = []
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail",
        lambda **question: asked.append(question),
    )
    return asked


@pytest.fixture
def reviewed(sandbox, task, tmp_path, questions):
    """``reviewed(**options)``: the review of a finished video, waiting for its answer."""
    video = task(
        lambda: KlingVideoOperator(
            task_id="film", prompt="A fox", duration=5, output_path=str(tmp_path / "film.mp4")
        )
    ).run()

    def start(**options):
        given = {"output_path": str(tmp_path / "film.mp4"), **options}
        attempt = task(
            lambda: KlingReviewOperator(task_id="review", video=video, **given), retries=2
        )
        plain = attempt.context
        attempt.context = lambda: {**plain(), "task_instance": SimpleNamespace(id="ti-1")}
        attempt.ask = lambda: ask(attempt)
        attempt.answer = lambda choice, **more: answer(attempt, choice, **more)
        attempt.ask()
        return attempt

    return start


def ask(attempt):
    with pytest.raises(TaskAwaitingInput):
        attempt.start()


def answer(attempt, choice, prompt="", note="", fields=("note", "prompt")):
    given = {"prompt": prompt, "note": note}
    event = {
        "chosen_options": [choice],
        "params_input": {name: given[name] for name in fields},
        "responded_at": datetime(2026, 11, 1, tzinfo=UTC),
        "responded_by_user": {"id": "1", "name": "Ada"},
    }
    made = attempt.make().resume_execution("execute_complete", {"event": event}, attempt.context())
    json.dumps(made)
    return made


def another(attempt, prompt="", note=""):
    """*Again*, up to the next question."""
    with pytest.raises(TaskDeferred) as deferred:
        attempt.answer("Again", prompt=prompt, note=note)
    attempt.deferred_again(deferred.value)
    with pytest.raises(TaskAwaitingInput):
        attempt.resume()


def test_the_question_shows_the_first_picture_and_what_it_cost(reviewed, questions):
    reviewed()
    (question,) = questions
    assert question["options"] == ["Approve", "Reject", "Again"]
    assert re.search(
        r"kling/dags/dag/poster\?run_id=run-\d+&task_id=video&map_index=-1", question["body"]
    )
    assert "> Take 1: A fox" in question["body"]


def test_approval_returns_the_manifest_with_the_review_and_pays_nothing(reviewed, sandbox):
    asset = Asset("approved")
    attempt = reviewed(outlets=[asset])
    made = attempt.answer("Approve", note="Lovely")
    assert made["review"]["choice"] == "Approve"
    assert (made["review"]["by"], made["review"]["note"]) == ("Ada", "Lovely")
    assert made["prompt"] == "A fox"
    assert attempt.outlet_events[asset].extra["generation_id"] == made["generation_id"]
    assert len(sandbox.posts) == 1


@pytest.mark.parametrize(
    ("on_reject", "error"), [("skip", AirflowSkipException), ("fail", AirflowFailException)]
)
def test_a_rejection_pays_and_announces_nothing(reviewed, sandbox, on_reject, error):
    asset = Asset("approved")
    attempt = reviewed(outlets=[asset], on_reject=on_reject)
    with pytest.raises(error, match="Too dark"):
        attempt.answer("Reject", note="Too dark")
    assert not attempt.outlet_events[asset].extra
    assert attempt.xcom[REVIEW_KEY]["review"]["note"] == "Too dark"
    assert len(sandbox.posts) == 1


def test_again_pays_for_one_take_with_the_new_prompt_and_asks_again(
    reviewed, sandbox, questions, tmp_path
):
    attempt = reviewed()
    another(attempt, prompt="A white fox", note="Whiter")
    assert [post.body["prompt"] for post in sandbox.posts] == ["A fox", "A white fox"]
    assert sandbox.posts[1].body["duration"] == sandbox.posts[0].body["duration"]
    assert len(questions) == 2
    assert attempt.xcom[REVIEW_KEY]["take"] == 2
    made = attempt.answer("Approve")
    assert made["path"] == str(tmp_path / "film-take2.mp4")
    assert (tmp_path / "film-take2.mp4").exists()
    assert made["review"]["takes"] == 2
    assert made["review"]["usd"] > 0
    assert made["review"]["answers"][0]["note"] == "Whiter"


def test_the_pictures_address_is_that_of_the_review_whatever_the_take(reviewed, questions):
    # Airflow keeps the first question's text; behind this address is the newest take.
    attempt = reviewed()
    another(attempt)
    addresses = [re.search(r"poster\?[^)]+", question["body"])[0] for question in questions]
    assert len(set(addresses)) == 1
    assert f"run_id={attempt.run_id}&" in addresses[0]


def test_again_without_a_prompt_repeats_the_same_one_as_another_video(reviewed, sandbox):
    attempt = reviewed()
    another(attempt)
    another(attempt)
    assert [post.body["prompt"] for post in sandbox.posts] == ["A fox"] * 3


def test_a_retry_of_the_review_pays_for_no_take_twice(reviewed, sandbox, questions):
    attempt = reviewed()
    with pytest.raises(TaskDeferred):
        attempt.answer("Again", prompt="A white fox")
    with pytest.raises(TaskDeferred) as deferred:  # the task is tried again
        attempt.make().execute(attempt.context())
    attempt.deferred_again(deferred.value)
    with pytest.raises(TaskAwaitingInput):
        attempt.resume()
    assert len(sandbox.posts) == 2
    attempt.ask()  # and once more: what was made is asked about
    assert attempt.xcom[REVIEW_KEY]["take"] == 2
    assert len(sandbox.posts) == 2


def test_there_are_no_more_takes_than_allowed(reviewed, sandbox):
    attempt = reviewed(max_takes=2)
    another(attempt)
    with pytest.raises(TaskAwaitingInput):
        attempt.answer("Again")
    assert len(sandbox.posts) == 2
    assert "the most that are allowed" in attempt.xcom[REVIEW_KEY]["refused"]


def test_a_take_beyond_the_budget_is_not_paid_and_the_question_stands(reviewed, sandbox):
    attempt = reviewed(max_cost_usd=0.01)
    with pytest.raises(TaskAwaitingInput):
        attempt.answer("Again")
    assert len(sandbox.posts) == 1
    assert "Nothing was submitted" in attempt.xcom[REVIEW_KEY]["refused"]
    assert attempt.answer("Approve")["review"]["takes"] == 1


def test_the_budget_is_for_all_takes_together(reviewed, sandbox):
    attempt = reviewed(max_cost_usd=0.7, max_takes=5)
    another(attempt)
    with pytest.raises(TaskAwaitingInput):
        attempt.answer("Again")
    assert len(sandbox.posts) == 2


def test_further_takes_count_in_the_budget_of_the_run(reviewed, sandbox, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__KLING__RECORD_PATH", (tmp_path / "shelf").as_uri())
    attempt = reviewed(max_usd_per_run=0.7, max_takes=5)
    sandbox.fails = "moderation"
    another(attempt, prompt="A red fox")  # is not billed
    sandbox.fails = None
    another(attempt)
    with pytest.raises(TaskAwaitingInput):
        attempt.answer("Again")
    assert len(sandbox.posts) == 3
    assert "is left of $0.70" in attempt.xcom[REVIEW_KEY]["refused"]


def test_a_take_that_fails_leaves_the_question_and_may_be_asked_for_again(reviewed, sandbox):
    attempt = reviewed()
    sandbox.fails = "moderation"
    another(attempt, prompt="A red fox")
    assert "moderation" in attempt.xcom[REVIEW_KEY]["refused"]
    assert attempt.xcom[REVIEW_KEY]["take"] == 1
    sandbox.fails = None
    another(attempt, prompt="A red fox")
    assert attempt.xcom[REVIEW_KEY]["take"] == 2
    assert len(sandbox.posts) == 3


def test_one_take_has_no_again(reviewed, questions):
    reviewed(max_takes=1, output_path=None)
    assert questions[0]["options"] == ["Approve", "Reject"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_takes": 0},
        {"max_takes": 2, "output_path": None},
        {"on_timeout": "again"},
        {"on_reject": "ignore"},
    ],
)
def test_what_cannot_work_is_refused_when_the_dag_is_read(wrong):
    options = {"output_path": "/a.mp4", **wrong}
    with pytest.raises(ValueError, match=r"take|on_"):
        KlingReviewOperator(task_id="review", video={}, **options)


def test_what_is_no_manifest_is_refused(task, questions):
    attempt = task(lambda: KlingReviewOperator(task_id="r", video="None", max_takes=1))
    with pytest.raises(AirflowFailException, match="no manifest"):
        attempt.start()


def test_a_prompt_draws_nothing_in_the_question():
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="review", map_index=-1)
    body = _body({"prompt": "![x](http://evil.test/x.png)\n# Big", "task_id": "film"}, 1, 1, ti)
    assert "![x]" not in body
    assert "\n# Big" not in body


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/film.mp4", "/a/film-take2.mp4"),
        ("s3://b/film.mp4", "s3://b/film-take2.mp4"),
        ("/a/film", "/a/film-take2.mp4"),
        ("/a/folder/", "/a/folder/"),
    ],
)
def test_each_take_has_its_own_file(path, expected):
    assert _take_path(path, 2) == expected


# --- what is paid for is found without its request ------------------------------------------------


@pytest.fixture
def reviewed_picture(sandbox, task, tmp_path, questions, monkeypatch):
    """The review of a video that was made of a picture; the run has a budget."""
    from PIL import Image

    monkeypatch.setenv("AIRFLOW__KLING__RECORD_PATH", str(tmp_path / "records"))
    picture = tmp_path / "first.png"
    Image.new("RGB", (400, 400), "teal").save(picture)
    video = task(
        lambda: KlingVideoOperator(
            task_id="film", prompt="A fox", image=str(picture), output_path=f"{tmp_path}/film.mp4"
        )
    ).run()
    attempt = task(
        lambda: KlingReviewOperator(
            task_id="review", video=video, output_path=f"{tmp_path}/film.mp4", max_usd_per_run=50
        ),
        retries=3,
    )
    plain = attempt.context
    attempt.context = lambda: {**plain(), "task_instance": SimpleNamespace(id="ti-1")}
    ask(attempt)
    return attempt, picture


def test_a_paid_take_is_had_though_the_first_ones_picture_is_gone(sandbox, reviewed_picture):
    attempt, picture = reviewed_picture
    with pytest.raises(TaskDeferred):
        answer(attempt, "Again", "A white fox")
    picture.unlink()
    assert isinstance(attempt.start(), TaskDeferred)  # the next try
    with pytest.raises(TaskAwaitingInput):
        attempt.resume()
    record = attempt.store.get(REVIEW_KEY)
    assert [made["prompt"] for made in record["takes"]] == ["A fox", "A white fox"]
    assert len(sandbox.posts) == 2


def test_a_take_of_a_record_without_its_fingerprint_is_had_too(sandbox, reviewed_picture):
    """As an earlier version wrote it."""
    attempt, picture = reviewed_picture
    with pytest.raises(TaskDeferred):
        answer(attempt, "Again", "A white fox")
    record = attempt.store.get(REVIEW_KEY)
    del record["pending"]["fingerprint"]
    attempt.store.set(REVIEW_KEY, record)
    picture.unlink()
    assert isinstance(attempt.start(), TaskDeferred)
    assert len(sandbox.posts) == 2


def test_a_take_in_doubt_stays_wanted_and_reserved_where_there_is_no_log(
    sandbox, reviewed_picture, monkeypatch
):
    attempt, picture = reviewed_picture
    sandbox.fault("submit", "drop-after")
    with pytest.raises(KlingTaskError):
        answer(attempt, "Again", "A white fox")

    def no_log(*_, **__):
        raise InvalidRequestError("Cannot GET /v2/logs")

    released = []
    monkeypatch.setattr(KlingClient, "recover", no_log)
    monkeypatch.setattr(Spending, "release", lambda self: released.append(self))
    picture.unlink()
    with pytest.raises(KlingTaskError) as raised:
        attempt.start()
    assert isinstance(raised.value.error, SubmissionUncertainError)
    assert attempt.store.get(REVIEW_KEY)["pending"]["prompt"] == "A white fox"
    assert (released, len(sandbox.posts)) == ([], 2)


def test_a_take_whose_picture_is_gone_before_it_was_paid_is_refused(sandbox, reviewed_picture):
    attempt, picture = reviewed_picture
    picture.unlink()
    with pytest.raises(TaskAwaitingInput):
        answer(attempt, "Again", "A white fox")
    assert attempt.store.get(REVIEW_KEY)["pending"] is None
    assert len(sandbox.posts) == 1


def test_a_killed_review_submits_no_further_take(sandbox, reviewed_picture):
    attempt, _ = reviewed_picture
    killed = attempt.make()
    killed.on_kill()
    attempt.make = lambda: killed
    with pytest.raises(KlingTaskError):
        answer(attempt, "Again", "A white fox")
    assert len(sandbox.posts) == 1
    assert attempt.store.get(REVIEW_KEY)["pending"]["prompt"] == "A white fox"
