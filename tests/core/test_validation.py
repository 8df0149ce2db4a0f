"""What is said before a request is made: texts that mean nothing, links that lead nowhere."""

import time
import warnings

import pytest

from kling_integrations import InvalidRequestError, KlingClient, KlingWarning, Ledger, VideoRequest
from kling_integrations.core.validation import is_missing_text, placeholders

TEXTS = [
    *["nan", "NaN", "None", "NULL", "null", "nil", "NaT", "undefined", "NA", "N/A", "n/a"],
    *["<NA>", "<na>", "(null)", "[null]", "<null>", r"\N", " nan \n", "-1.#IND"],
    *["#N/A", "#N/A N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#SPILL!", "Err:502"],
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_left_of_a_missing_value_is_no_text(text):
    assert is_missing_text(text)


@pytest.mark.parametrize(
    "text", ["", "Nan dances", "A null", "none of them", "#cats", "#1", "no", "nano", "Err: 502"]
)
def test_a_text_that_holds_such_a_word_is_one(text):
    assert not is_missing_text(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A {product} at the {place}", ["{product}", "{place}"]),
        ("{{ animal }} and {{animal|upper}}", ["{{ animal }}", "{{animal|upper}}"]),
        ("{% if night %}dark{% endif %}", ["{% if night %}", "{% endif %}"]),
        ("{animal.upper()}, {animal!s:>9}", ["{animal.upper()}", "{animal!s:>9}"]),
        ("{', '.join(names)} {names[i]}", ["{', '.join(names)}", "{names[i]}"]),
        ("{row['cat']} {count+1} {cost:.2f}", ["{row['cat']}", "{count+1}", "{cost:.2f}"]),
        ("at {now:%H:%M}", ["{now:%H:%M}"]),
        ("{} and {0}", ["{}", "{0}"]),
        ("${ANIMAL}", ["${ANIMAL}"]),
    ],
)
def test_a_placeholder_is_found_as_it_is_written(text, found):
    assert placeholders(text) == found


@pytest.mark.parametrize(
    "text",
    [
        '{"shot": "wide", "subject": {"animal": "cat", "count": 2}}',
        "{camera: slow pan} over {a big red dog}",
        "a set {1, 2} and {red, blue}",
        "braces { and }",
        r"C {\alpha}",
    ],
)
def test_braces_around_prose_or_json_are_text(text):
    assert placeholders(text) == []


def test_a_column_with_a_space_in_its_name_is_a_placeholder_where_there_is_one():
    assert placeholders("A {product name}") == []
    assert placeholders("A {product name}", ["product name"]) == ["{product name}"]


def test_a_text_of_nothing_but_braces_is_read_in_no_time():
    begun = time.perf_counter()
    for sign in ("{", "{{", "{%", "(" * 5000 + "{", "{" + "(" * 150 + "}"):
        placeholders(sign * 2000)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("model", ["nan", "None", "<NA>", " "])
def test_a_model_that_is_missing_is_not_sent_as_it_is(model):
    with pytest.raises(InvalidRequestError, match="model is missing"):
        VideoRequest(model=model, prompt="A cat")


@pytest.mark.parametrize("image", ["", "nan", "None", "#REF!", float("nan")])
def test_a_picture_that_is_missing_makes_no_video_of_the_text_alone(image):
    with pytest.raises(InvalidRequestError, match="image"):
        VideoRequest(prompt="A cat", image=image)


def test_a_lost_picture_in_a_list_of_pictures_is_not_left_out():
    seen = "https://example.com/1.png"
    with pytest.raises(InvalidRequestError, match="image_list"):
        VideoRequest(model="v1.6-standard", prompt="a", image_list=[seen, None, seen])


def test_a_prompt_that_looks_like_a_missing_value_is_warned_of():
    with pytest.warns(KlingWarning, match="'nan'"):
        VideoRequest(prompt="nan")


PRIVATE = [
    "http://localhost:8000/a.png",
    "HTTP://LOCALHOST./a.png",
    "https://127.0.0.1/a.png",
    "https://192.168.1.4/a.png",
    "https://10.0.0.7/a.png",
    "https://[::1]/a.png",
    "https://[fd00::1]/a.png",
    "http://minio:9000/bucket/a.png",
    "https://nas.local/a.png",
    "http://files.corp.internal/a.png",
]
PUBLIC = ["https://example.com/a.png", "https://8.8.8.8/a.png", "https://[2606:4700::1]/a.png"]
IMAGE = "klingai/v2.5-turbo/pro/image-to-video"


@pytest.mark.parametrize("link", PRIVATE)
def test_a_link_that_only_this_network_can_open_is_refused_for_a_gateway_out_there(link):
    request = VideoRequest(model=IMAGE, prompt="see http://localhost", image=link)
    with pytest.raises(InvalidRequestError, match="give the file"):
        request.check_reachable("https://api.aimlapi.com")
    for near in ("http://127.0.0.1:8765/sandbox/x60", "https://gateway.internal"):
        request.check_reachable(near)


@pytest.mark.parametrize("link", PUBLIC)
def test_a_link_that_anyone_can_open_is_sent(link):
    VideoRequest(model=IMAGE, prompt="a", image=link).check_reachable("https://api.aimlapi.com")


def test_a_link_in_a_list_and_a_prompt_about_one_are_told_apart():
    lost = {"model": "not/a/model", "prompt": "http://localhost/", "extra": {"x": [PRIVATE[0]]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidRequestError, match="x is a link to localhost"):
            VideoRequest(**lost).check_reachable("https://api.aimlapi.com")
        VideoRequest(**{**lost, "extra": None}).check_reachable("https://api.aimlapi.com")


def test_an_unreachable_picture_is_refused_before_the_post_and_can_be_asked_for_anew(
    tmp_path,
):
    request = VideoRequest(model=IMAGE, prompt="a", image=PRIVATE[0])
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    with KlingClient("key", "https://gateway.example", ledger=ledger) as client:
        for _ in range(2):  # not "may have been paid"
            with pytest.raises(InvalidRequestError, match="give the file"):
                client.submit(request)
