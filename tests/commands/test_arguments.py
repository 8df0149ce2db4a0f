"""Flags and their values, from a line to a request, and the advice for a typing error."""

import pytest

from kling_integrations import InvalidRequestError
from kling_integrations.commands import (
    Parser,
    UsageError,
    generation_arguments,
    parser,
    request_from,
)


def parsed(*words):
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
        parsed(*words)


def test_a_prompt_in_the_place_of_a_command_is_shown_the_way():
    with pytest.raises(UsageError, match="kling generate"):
        parsed("a cat on a roof")


def test_words_beside_an_unquoted_prompt_are_not_paid_for():
    with pytest.raises(UsageError, match="quotes"):
        parsed("generate", "a", "cat")


def test_abbreviated_flags_are_refused_because_they_change_meaning_with_the_next_release():
    with pytest.raises(UsageError):
        parsed("generate", "--dur", "5", "x")


def test_an_id_that_starts_with_a_dash_goes_after_two_dashes():
    assert parsed("wait", "--", "-G3b3vVKdoC42fMNeK1T5").id == ["-G3b3vVKdoC42fMNeK1T5"]
    assert parsed("show", "--", "-G3b3vVKdoC42fMNeK1T5").id == "-G3b3vVKdoC42fMNeK1T5"
    with pytest.raises(UsageError, match="-- -G3b3vVKdoC42fMNeK1T5"):
        parsed("wait", "-G3b3vVKdoC42fMNeK1T5")


def test_the_notebook_is_answered_in_its_own_name():
    with pytest.raises(UsageError, match=r"%kling has no command .*generate") as caught:
        parser(prog="%kling").parse_args(["genrate"])
    assert caught.value.hint == "See: %kling -h"


def test_times_are_given_in_seconds_minutes_or_hours():
    times = [parsed("wait", "--timeout", text).timeout for text in ("90", "1.5m", "2h", "30s")]
    assert times == [90, 90, 7200, 30]


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
