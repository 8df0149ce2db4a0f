"""What can be said, and what is answered to a slip of the fingers."""

import argparse
import contextlib
import io

import pytest

from kling_integrations import InvalidRequestError
from kling_integrations.commands import (
    Parser,
    UsageError,
    exit_code,
    generation_arguments,
    parser,
    request_from,
)
from kling_integrations.core import errors


def said(*words):
    return parser().parse_args(words)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["genrate", "x"], "generate"),
        (["hstory"], "history"),
        (["generate", "--durtion", "5", "x"], "--duration"),
        (["generate", "--mdel=v3-pro", "x"], "--model"),
        (["wait", "--timout", "5"], "--timeout"),
        (["history", "--serach", "x"], "--search"),
    ],
)
def test_a_near_miss_gets_a_did_you_mean(words, meant):
    with pytest.raises(UsageError, match=f"Did you mean {meant}\\?"):
        said(*words)


def test_a_prompt_in_the_place_of_a_command_is_shown_the_way():
    with pytest.raises(UsageError, match="kling generate"):
        said("a cat on a roof")


def test_words_beside_an_unquoted_prompt_are_not_paid_for():
    with pytest.raises(UsageError, match="quotes"):
        said("generate", "a", "cat")


def test_abbreviated_flags_are_refused_because_they_change_meaning_with_the_next_release():
    with pytest.raises(UsageError):
        said("generate", "--dur", "5", "x")


def test_mistakes_are_errors_with_exit_code_2_and_not_the_end_of_the_process():
    for words in (["generate", "-d"], ["frames", "last"], ["wait", "--timeout", "soon"], ["nope"]):
        with pytest.raises(errors.KlingError) as caught:
            said(*words)
        assert exit_code(caught.value) == 2


def test_an_id_that_starts_with_a_dash_goes_after_two_dashes():
    assert said("wait", "--", "-G3b3vVKdoC42fMNeK1T5").id == ["-G3b3vVKdoC42fMNeK1T5"]
    assert said("show", "--", "-G3b3vVKdoC42fMNeK1T5").id == "-G3b3vVKdoC42fMNeK1T5"
    with pytest.raises(UsageError, match="-- -G3b3vVKdoC42fMNeK1T5"):
        said("wait", "-G3b3vVKdoC42fMNeK1T5")


def test_flags_for_all_commands_stand_on_either_side_of_the_command():
    assert said("--json", "history").json
    assert said("history", "--json").json
    assert not hasattr(said("history"), "json")


def commands():
    root = parser()
    found = next(a for a in root._actions if isinstance(a, argparse._SubParsersAction))
    return sorted(found.choices)


def test_every_command_that_is_promised_is_there():
    promised = (
        "generate gen jobs wait show history models cost balance download frames extend export "
        "recover config version sandbox demo"
    )
    assert set(promised.split()) <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as left:
        said(command, "-h")
    assert left.value.code == 0
    assert f"usage: kling {command}" in shown.getvalue()


def test_the_notebook_is_answered_in_its_own_name():
    with pytest.raises(UsageError, match=r"%kling has no command .*generate") as caught:
        parser(prog="%kling").parse_args(["genrate"])
    assert caught.value.hint == "See: %kling -h"


def test_times_are_told_in_seconds_minutes_or_hours():
    times = [said("wait", "--timeout", text).timeout for text in ("90", "1.5m", "2h", "30s")]
    assert times == [90, 90, 7200, 30]


# --- from flags to a request ------------------------------------------------------------------


def cell(*words):
    """The flags of a cell, which has a parser of its own."""
    made = Parser(prog="%%kling")
    generation_arguments(made)
    return made.parse_args(words)


def test_flags_become_the_payload():
    request = request_from(
        cell("-m", "v2.6-pro", "-d", "10", "-a", "9:16", "-n", "rain", "--cfg-scale", "0.3",
             "--no-audio"),
        "A cat",
    )  # fmt: skip
    assert request.payload() == {
        "model": "klingai/video-v2-6-pro-text-to-video",
        "prompt": "A cat",
        "duration": 10,
        "aspect_ratio": "9:16",
        "negative_prompt": "rain",
        "cfg_scale": 0.3,
        "generate_audio": False,
    }


def test_an_image_makes_it_image_to_video(tmp_path):
    request = request_from(cell("-i", "https://example.com/a.png"), "It moves")
    assert request.model == "klingai/v2.5-turbo/pro/image-to-video"


def test_an_object_takes_the_place_of_the_name_that_the_flag_gave():
    picture = b"\x89PNG\r\n\x1a\n" + b"0" * 64
    request = request_from(cell("-i", "still"), "It moves", image=picture)
    assert request.payload()["image_url"].startswith("data:image/png;base64,")


def test_other_parameters_are_json_or_plain_words():
    args = cell("-m", "v3-pro", "-p", "shot_type=customize", "-p", 'multi_prompt=["a", "b"]')
    assert args.param == [("shot_type", "customize"), ("multi_prompt", ["a", "b"])]
    numbers = cell("-p", "seed=7", "-p", "loop=true", "-p", "text=a=b").param
    assert numbers == [("seed", 7), ("loop", True), ("text", "a=b")]


def test_a_parameter_that_is_given_twice_is_an_error():
    with pytest.raises(UsageError, match="duration is given twice"):
        request_from(cell("-d", "5", "-p", "duration=10"), "A cat")
    with pytest.raises(UsageError, match="audio is given twice"):
        request_from(cell("--audio", "-p", "generate_audio=false"), "A cat")


def test_a_value_that_the_documents_exclude_is_refused_in_one_sentence():
    with pytest.raises(InvalidRequestError, match="duration 7 is not possible: it takes 5 or 10"):
        request_from(cell("-d", "7"), "A cat")
    with pytest.raises(InvalidRequestError, match="duration 'five'"):
        request_from(cell("-d", "five"), "A cat")


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
        (errors.SubmissionUncertainError("x"), 5),
        (errors.StoppedWaiting(None, "kling-1"), 5),
        (errors.StoppedWaiting(), 130),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError(), 70),
    ],
)
def test_each_error_has_its_exit_code(error, code):
    assert exit_code(error) == code
