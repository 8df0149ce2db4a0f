"""What a record of a payment says to do: the table that keeps anybody from paying twice."""

import pytest

from kling_integrations import (
    GenerationFailedError,
    InvalidRequestError,
    LedgerError,
    StoppedWaiting,
    SubmissionUncertainError,
    VideoRequest,
)
from kling_integrations.core.errors import Verb
from kling_integrations.core.generation import Status
from kling_integrations.core.submission import (
    Action,
    Entry,
    Record,
    State,
    changed,
    decide,
    refusal,
)

REQUEST = VideoRequest(prompt="a")
SAME = REQUEST.fingerprint


def record(state, fingerprint=SAME):
    intent = Record.intent(REQUEST)
    known = intent if state is State.INTENT else intent.submitted("gen-1").ended(state)
    from dataclasses import replace

    return replace(known, fingerprint=fingerprint)


@pytest.mark.parametrize(
    ("state", "asked", "action"),
    [
        (None, {}, Action.SUBMIT),
        (State.INTENT, {}, Action.REFUSE),
        (State.INTENT, {"cleared": True}, Action.REFUSE),
        (State.INTENT, {"resubmit_uncertain": True}, Action.SUBMIT),
        (State.INTENT, {"new": True}, Action.SUBMIT),
        (State.SUBMITTED, {}, Action.ATTACH),
        (State.SUBMITTED, {"cleared": True}, Action.ATTACH),
        (State.SUBMITTED, {"new": True}, Action.SUBMIT),
        (State.COMPLETED, {}, Action.ATTACH),
        (State.COMPLETED, {"saved": True}, Action.REUSE),
        (State.INTENT, {"retried": True}, Action.REFUSE),
        (State.INTENT, {"cleared": True, "regenerate": True}, Action.REFUSE),
        (State.SUBMITTED, {"retried": True}, Action.ATTACH),
        (State.SUBMITTED, {"cleared": True, "regenerate": True}, Action.ATTACH),
        (State.COMPLETED, {"retried": True}, Action.ATTACH),
        (State.COMPLETED, {"retried": True, "regenerate": True}, Action.ATTACH),
        (State.COMPLETED, {"cleared": True}, Action.ATTACH),
        (State.COMPLETED, {"saved": True, "cleared": True}, Action.REUSE),
        (State.COMPLETED, {"cleared": True, "regenerate": True}, Action.SUBMIT),
        (State.COMPLETED, {"saved": True, "cleared": True, "regenerate": True}, Action.SUBMIT),
        (State.FAILED, {"retried": True}, Action.SUBMIT),
        (State.REFUSED, {"retried": True}, Action.SUBMIT),
        (State.COMPLETED, {"saved": True, "new": True}, Action.SUBMIT),
        (State.FAILED, {}, Action.SUBMIT),
        (State.REFUSED, {}, Action.SUBMIT),
        (State.ABANDONED, {}, Action.SUBMIT),
    ],
)
def test_each_state_has_one_thing_to_do(state, asked, action):
    assert decide(state and record(state), [SAME], **asked).action is action


@pytest.mark.parametrize("state", [State.SUBMITTED, State.COMPLETED])
def test_changed_input_is_another_video(state):
    for asked in ({}, {"saved": True}, {"cleared": True}, {"retried": True, "cleared": True}):
        assert decide(record(state, "other"), [SAME], **asked).action is Action.SUBMIT


@pytest.mark.parametrize("state", [State.SUBMITTED, State.COMPLETED])
@pytest.mark.parametrize("asked", [{}, {"regenerate": True}])
def test_a_retry_goes_on_with_what_is_paid_for_whatever_its_input_says_now(state, asked):
    decision = decide(record(state, "other"), [SAME], retried=True, **asked)
    assert decision.action is Action.ATTACH


@pytest.mark.parametrize("asked", [{"retried": True}, {"cleared": True}])
def test_changed_input_of_what_failed_is_submitted(asked):
    assert decide(record(State.FAILED, "other"), [SAME], **asked).action is Action.SUBMIT


@pytest.mark.parametrize("asked", [{}, {"retried": True}, {"cleared": True}])
def test_changed_input_does_not_excuse_an_open_payment(asked):
    assert decide(record(State.INTENT, "other"), [SAME], **asked).action is Action.REFUSE


def test_what_changed_is_named_with_both_values():
    from dataclasses import replace

    before = replace(record(State.SUBMITTED), inputs={"prompt": "a", "seed": 1, "image": None})
    now = {"prompt": "b" * 200, "seed": 1, "cfg_scale": 0.5}
    assert changed(before, now) == [
        f"prompt: '{'b' * 79}… (was 'a')",
        "cfg_scale: 0.5 (was None)",
    ]
    assert changed(before, dict(before.inputs)) == []
    assert changed(record(State.SUBMITTED), now) == []  # it does not say


def test_the_refusal_says_when_and_under_which_id_to_look():
    intent = record(State.INTENT)
    error = refusal(intent)
    assert error.client_request_id == intent.client_request_id
    assert intent.client_request_id in str(error)
    assert "UTC" in str(error)
    assert "client.recover()" in str(error)
    assert [step.verb for step in error.next_steps] == [Verb.RECOVER, Verb.SUBMIT_NEW]
    assert error.next_steps[0].client_request_id == intent.client_request_id


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (InvalidRequestError("no"), State.REFUSED),
        (SubmissionUncertainError("?"), State.INTENT),
        (StoppedWaiting("gen-9"), State.SUBMITTED),
        (StoppedWaiting(None, "kling-1"), State.INTENT),
        (StoppedWaiting(), State.REFUSED),
        (KeyboardInterrupt(), State.INTENT),
        (MemoryError(), State.INTENT),
        (LedgerError("disk full"), State.INTENT),
        (GenerationFailedError("no", generation_id="gen-9"), State.SUBMITTED),
    ],
)
def test_an_error_closes_the_record_only_where_surely_nothing_was_paid(error, state):
    after = Record.intent(REQUEST).after(error)
    assert after.state is state
    assert (after.generation_id == "gen-9") is (state is State.SUBMITTED)


def test_an_exception_that_carries_an_id_is_a_submission_whatever_its_class():
    terminated = RuntimeError("SIGTERM")
    terminated.generation_id = "gen-9"
    assert Record.intent(REQUEST).after(terminated).generation_id == "gen-9"


@pytest.mark.parametrize("state", list(State))
def test_a_record_survives_json(state):
    import json
    from dataclasses import replace

    kept = record(state)
    assert Record.from_json(json.loads(json.dumps(kept.to_json()))) == kept
    told = replace(kept, inputs={"prompt": "a", "cfg_scale": None}, replaced=("g-1", "g-2"))
    assert Record.from_json(json.loads(json.dumps(told.to_json()))) == told


@pytest.mark.parametrize("stored", [None, "x", [], {}, {"state": "paid"}, 5, {"fingerprint": "f"}])
def test_an_unreadable_record_is_an_error_and_not_nothing(stored):
    with pytest.raises(LedgerError, match="nothing is submitted"):
        Record.from_json(stored)


def test_the_first_released_form_of_a_record_still_loads():
    stored = {
        "format": 1,
        "state": "submitted",
        "fingerprint": "f" * 64,
        "client_request_id": "kling-0123",
        "model": "klingai/v2.5-turbo/pro/text-to-video",
        "created_at": 1795000000.0,
        "generation_id": "-abc",
        "max_tries": 2,
    }
    assert Record.from_json(stored).to_json() == stored


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.SUBMITTED, Status.UNKNOWN),
        (State.COMPLETED, Status.COMPLETED),
        (State.FAILED, Status.UNKNOWN),
    ],
)
def test_only_the_record_of_a_finished_generation_says_that_it_is(state, status):
    entry = Entry.intent(REQUEST, record(state), "https://api.aimlapi.com", 1, None)
    assert (entry.generation().id, entry.generation().status) == ("gen-1", status)
