"""How a command ended: the code for the shell, the JSON for a program."""

import pytest

from kling_integrations.commands import UsageError, exit_code, failure, hint
from kling_integrations.core import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.GenerationFailedError("x"), 1),
        (errors.InvalidRequestError("x"), 2),
        (errors.AuthenticationError("x"), 2),
        (errors.InsufficientCreditsError("x"), 2),
        (UsageError("x"), 2),
        (errors.WaitTimeoutError("x"), 3),
        (errors.StoppedWaiting("id"), 3),
        (errors.RateLimitedError("x"), 4),
        (errors.ServerError("x"), 4),
        (errors.GenerationNotFoundError("x"), 4),
        (errors.DownloadError("x"), 4),
        (errors.LedgerError("x"), 4),
        (OSError("x"), 4),
        (BrokenPipeError(), 141),
        (errors.SubmissionUncertainError("x"), 5),
        (errors.StoppedWaiting(None, "kling-1"), 5),
        (errors.StoppedWaiting(), 130),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError(), 70),
    ],
)
def test_each_error_has_its_exit_code(error, code):
    assert exit_code(error) == code


def test_the_json_of_an_error_has_its_advice_as_text_and_as_data():
    error = errors.ServerError(
        "No answer.",
        generation_id="abc",
        hint="It goes on.",
        next_steps=[errors.NextStep(errors.Verb.WAIT, "abc", output="a.mp4")],
    )
    assert failure(error) == {
        "generation_id": "abc",
        "client_request_id": None,
        "status": None,
        "exit_code": 4,
        "error": {
            "type": "ServerError",
            "message": "No answer.",
            "hint": "It goes on. Go on with: kling wait --out a.mp4 abc",
            "next_steps": [{"verb": "wait", "generation_id": "abc", "output": "a.mp4"}],
        },
    }
    in_a_notebook = failure(error, lambda step: hint(step, "%kling"))
    assert in_a_notebook["error"]["hint"].endswith("%kling wait --out a.mp4 abc")


def test_the_json_of_an_interrupt_says_what_runs():
    stopped = failure(errors.StoppedWaiting("abc"))
    assert (stopped["status"], stopped["exit_code"]) == ("running", 3)
    assert stopped["error"]["hint"] == "Go on with: kling wait abc"
    assert "kling wait" not in stopped["error"]["message"]
    assert failure(OSError("disk"))["error"] == {"type": "OSError", "message": "disk"}
