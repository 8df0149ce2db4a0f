"""What a trigger tells the worker, from either end and from other versions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kling_integrations.airflow.events import WaitResult, from_event, to_event
from kling_integrations.airflow.exceptions import KlingTaskError
from kling_integrations.core.errors import (
    GenerationFailedError,
    GenerationNotFoundError,
    KlingError,
    NextStep,
    ServerError,
    Verb,
    WaitTimeoutError,
)
from kling_integrations.core.generation import Usage

STEPS = (
    NextStep(Verb.WAIT, "g-1"),
    NextStep(Verb.RECOVER, client_request_id="kling-1"),
    NextStep(Verb.DOWNLOAD, "g-1", output="s3://bucket/v.mp4"),
    NextStep(Verb.INSTALL, detail="jupyter"),
)


def through_json(result: WaitResult) -> WaitResult:
    return from_event(json.loads(json.dumps(to_event(result))))


def event(**error: Any) -> dict[str, Any]:
    """As the first release wrote it."""
    return {
        "format": 1,
        "generation_id": "g-1",
        "elapsed_seconds": 12.5,
        "polls": 3,
        "error": {"message": "It went wrong.", "hint": None, "kind": None, **error},
    }


def test_a_finish_makes_the_trip():
    result = WaitResult("g-1", elapsed=12.34, polls=3)
    assert through_json(result) == WaitResult("g-1", elapsed=12.3, polls=3)


def test_an_error_makes_the_trip_with_its_next_steps():
    error = ServerError("No answer.", generation_id="g-1", hint="Neutral.", next_steps=STEPS)
    again = through_json(WaitResult("g-1", error=error)).error
    assert type(again) is ServerError
    assert again.message == "No answer."
    assert again.hint == "Neutral."
    assert again.generation_id == "g-1"
    assert again.next_steps == STEPS


def test_the_kind_of_a_failed_generation_makes_the_trip():
    error = GenerationFailedError("No.", kind="moderation", generation_id="g-1")
    again = through_json(WaitResult("g-1", error=error)).error
    assert isinstance(again, GenerationFailedError)
    assert again.kind == "moderation"


@pytest.mark.parametrize("other", [None, {}, "done", [], {"format": 2, "generation_id": "x"}])
def test_anything_else_is_no_success(other):
    with pytest.raises(KlingTaskError, match="not understood"):
        from_event(other)


@pytest.mark.parametrize("no_id", [None, "", 7])
def test_an_event_without_an_id_is_no_success(no_id):
    with pytest.raises(KlingTaskError, match="names no generation"):
        from_event({"format": 1, "generation_id": no_id})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("WaitTimeoutError", WaitTimeoutError),
        ("ServerError", ServerError),
        ("GenerationNotFoundError", GenerationNotFoundError),
        ("KlingError", KlingError),
    ],
)
def test_an_error_that_the_first_release_wrote_is_read_and_gets_its_next_step(name, kind):
    """Its hints spoke to a shell; the operator of that release replaced them as well."""
    result = from_event(event(type=name, hint="Go on with: kling wait g-1"))
    assert (result.generation_id, result.elapsed, result.polls) == ("g-1", 12.5, 3)
    assert type(result.error) is kind
    assert result.error.message == "It went wrong."
    assert result.error.hint is None
    assert result.error.next_steps == (NextStep(Verb.WAIT, "g-1"),)


def test_a_failed_generation_that_the_first_release_wrote_is_not_waited_for():
    error = from_event(event(type="GenerationFailedError", kind="provider")).error
    assert isinstance(error, GenerationFailedError)
    assert error.kind == "provider"
    assert error.next_steps == ()


def test_what_a_newer_version_adds_is_passed_over():
    steps = [{"verb": "teleport"}, {"verb": "wait", "generation_id": "g-1", "warp": 9}, "odd", 7]
    newer = event(type="TeleportError", next_steps=steps) | {"warp": 9}
    error = from_event(newer).error
    assert type(error) is KlingError
    assert error.message == "It went wrong."
    assert error.next_steps == (NextStep(Verb.WAIT, "g-1"),)


@pytest.mark.parametrize("name", ["KlingWarning", "Verb", "NextStep", "describe", None])
def test_only_errors_of_the_core_are_made(name):
    assert type(from_event(event(type=name)).error) is KlingError


def test_an_error_that_is_no_object_is_still_an_error():
    broken = {"format": 1, "generation_id": "g-1", "error": "it broke"}
    error = from_event(broken).error
    assert error is not None
    assert error.message == "the trigger ended without a reason"


def test_what_a_failed_generation_cost_all_the_same_travels_with_its_event():
    usage = Usage(credits_used=1000.0)
    failed = GenerationFailedError("no", kind="provider", usage=usage, generation_id="g-1")
    event = json.loads(json.dumps(to_event(WaitResult("g-1", error=failed))))
    assert from_event(event).error.usage == usage
    del event["error"]["usage"]  # as an earlier version wrote it
    assert from_event(event).error.usage is None
