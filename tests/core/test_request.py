"""VideoRequest: what the documents exclude is refused before anything is sent."""

import json
import warnings

import pytest

from kling_integrations import InvalidRequestError, KlingWarning, VideoRequest

T2V = "klingai/v2.5-turbo/pro/text-to-video"
PICTURE = "https://example.com/cat.png"


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", KlingWarning)
        yield


SEEDS = [
    (
        dict(model=T2V, prompt="A raccoon", aspect_ratio="16:9", duration="5", cfg_scale=0.9),
        {"model": T2V, "prompt": "A raccoon", "aspect_ratio": "16:9", "duration": 5}
        | {"cfg_scale": 0.9},
    ),
    (
        dict(
            model="klingai/v2.5-turbo/pro/image-to-video",
            prompt="Mona Lisa puts on glasses",
            image=PICTURE,
            duration="5",
        ),
        {
            "model": "klingai/v2.5-turbo/pro/image-to-video",
            "prompt": "Mona Lisa puts on glasses",
            "image_url": PICTURE,
            "duration": 5,
        },
    ),
    (
        dict(model="klingai/v2-master-text-to-video", prompt="A raccoon", duration="5"),
        {"model": "klingai/v2-master-text-to-video", "prompt": "A raccoon", "duration": 5},
    ),
    (
        dict(
            model="klingai/video-v2-6-pro-text-to-video",
            prompt="A raccoon",
            aspect_ratio="16:9",
            duration="5",
        ),
        {
            "model": "klingai/video-v2-6-pro-text-to-video",
            "prompt": "A raccoon",
            "aspect_ratio": "16:9",
            "duration": 5,
        },
    ),
]


@pytest.mark.parametrize(("given", "payload"), SEEDS, ids=[s[0]["model"] for s in SEEDS])
def test_the_documented_calls_give_the_documented_payload_with_an_integer_duration(given, payload):
    sent = VideoRequest(**given).payload()
    assert sent == payload
    assert type(sent["duration"]) is int


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(duration=7), "duration 7 is not possible: it takes 5 or 10"),
        (dict(duration="five"), "it takes 5 or 10"),
        (dict(duration=True), "it takes 5 or 10"),
        (dict(cfg_scale=3), "cfg_scale 3 is not possible: it takes a number from 0 to 1"),
        (dict(cfg_scale=float("nan")), "from 0 to 1"),
        (dict(aspect_ratio="4:3"), "it takes 16:9, 9:16 or 1:1"),
        (dict(prompt="   "), "prompt is blank"),
        (dict(prompt=None), "needs a prompt"),
        (dict(prompt=5), "must be text"),
        (dict(model="v2.6-pro", prompt="x" * 2501), "2,501 characters; at most 2,500"),
        (dict(model="v2.5-turbo-pro-image-to-video"), "needs an image"),
        (dict(model="v3-pro", prompt=None), "needs a prompt or a multi_prompt"),
        (dict(model="v3-turbo-pro", multi_prompt=[{"prompt": "a"}]), "not both"),
        (dict(model="v3-turbo-pro", prompt=None, multi_prompt=[]), "0 items; 1 to 6"),
        (
            dict(model="v3-turbo-pro", prompt=None, multi_prompt=[{"duration": 3}]),
            "needs prompt",
        ),
        (
            dict(model="v3-omni-720p", image=PICTURE, tail_image=PICTURE),
            "turn the audio off",
        ),
        (dict(model="klingai/image-o1", prompt="a cat"), "makes images, synchronously"),
        (dict(model="v2.1"), "several models: say v2.1-master"),
        (dict(model=" "), "model is missing"),
        (
            dict(model="v1.6-pro-effects", prompt=None, image=PICTURE, effect_scene="hugg"),
            "Did you mean hug",
        ),
        (
            dict(camera_control="sideways", model="v1-pro"),
            "down_back, forward_up, right_turn_forward or left_turn_forward",
        ),
        (dict(shot_type=object(), model="v3-pro"), "customize or intelligent"),
        (dict(extra={"when": object()}), "cannot be written as JSON"),
    ],
)
def test_a_value_that_the_documents_exclude_is_refused_in_one_sentence(given, says):
    with pytest.raises(InvalidRequestError, match=_plain(says)) as caught:
        VideoRequest(**{"model": T2V, "prompt": "A raccoon", **given})
    assert "\n" not in str(caught.value)


def _plain(text):
    import re

    return re.escape(text)


def test_2500_characters_are_allowed_where_2500_are_documented():
    assert len(VideoRequest(model="v2.6-pro", prompt="x" * 2500).prompt) == 2500


def test_tail_image_goes_out_under_the_name_that_the_model_documents():
    omni = VideoRequest(
        model="v3-omni-720p", prompt="a", image=PICTURE, tail_image=PICTURE, audio=False
    )
    o1 = VideoRequest(model="o1", prompt="a", image=PICTURE, tail_image=PICTURE)
    assert omni.payload()["tail_image_url"] == PICTURE
    assert o1.payload()["last_image_url"] == PICTURE


def test_no_audio_is_dropped_where_there_is_none_to_turn_off():
    assert "generate_audio" not in VideoRequest(model=T2V, prompt="a", audio=False).payload()


def test_an_unknown_model_goes_through_with_one_warning_that_suggests():
    with pytest.warns(KlingWarning, match=r"not in the catalogue.*Did you mean") as seen:
        request = VideoRequest(model="klingai/v2.5-turbo/ultra/text-to-video", prompt="a", foo=1)
    assert len(seen) == 1
    assert request.payload() == {
        "model": "klingai/v2.5-turbo/ultra/text-to-video",
        "prompt": "a",
        "foo": 1,
    }


def test_an_unknown_parameter_goes_through_with_one_warning_that_suggests():
    with pytest.warns(KlingWarning, match="does not document aspectratio.*aspect_ratio") as seen:
        request = VideoRequest(model=T2V, prompt="a", aspectratio="1:1")
    assert len(seen) == 1
    assert request.payload()["aspectratio"] == "1:1"


def test_extra_is_sent_unchecked_and_wins():
    request = VideoRequest(model=T2V, prompt="a", duration=5, extra={"duration": 7, "new": [1]})
    assert request.payload()["duration"] == 7
    assert request.payload()["new"] == [1]


def test_the_same_input_has_the_same_fingerprint_however_it_is_spelled():
    by_alias = VideoRequest(model="v2.5-turbo/pro", prompt="a", duration="5")
    by_id = VideoRequest(model=T2V, prompt="a", duration=5)
    assert by_alias.fingerprint == by_id.fingerprint
    assert by_alias == by_id


@pytest.mark.parametrize("other", [dict(prompt="b"), dict(duration=10), dict(seed=1)])
def test_any_difference_changes_the_fingerprint(other):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KlingWarning)
        changed = VideoRequest(**{"model": T2V, "prompt": "a", "duration": 5, **other})
    assert changed.fingerprint != VideoRequest(model=T2V, prompt="a", duration=5).fingerprint


def test_a_local_picture_travels_as_a_data_uri_and_shows_as_a_hash(tmp_path, png):
    file = tmp_path / "cat.png"
    file.write_bytes(png)
    request = VideoRequest(model="v2.5-turbo-pro", prompt="a", image=file)
    assert request.model == "klingai/v2.5-turbo/pro/image-to-video"
    assert request.payload()["image_url"].startswith("data:image/png;base64,")
    assert "base64" not in repr(request)
    assert (
        request.fingerprint
        != VideoRequest(model="v2.5-turbo-pro", prompt="a", image=png + b"\0").fingerprint
    )


def test_pictures_inside_lists_and_elements_are_encoded_too(tmp_path, png):
    file = tmp_path / "cat.png"
    file.write_bytes(png)
    request = VideoRequest(
        model="o1",
        prompt="a",
        image_list=[str(file), PICTURE],
        elements=[{"reference_image_urls": [file], "frontal_image_url": PICTURE}],
    )
    sent = request.payload()
    assert sent["image_list"][0].startswith("data:image/png")
    assert sent["image_list"][1] == PICTURE
    assert sent["elements"][0]["reference_image_urls"][0].startswith("data:image/png")


def test_a_prompt_that_names_a_file_stays_a_prompt(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_text("secret")
    assert VideoRequest(model=T2V, prompt=str(secret)).payload()["prompt"] == str(secret)


@pytest.fixture
def png():
    import base64

    return base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
        "gg=="
    )


@pytest.mark.parametrize("form", ["data:image/png;base64,{}", "DATA:image/png;base64,{}", "{}"])
def test_a_picture_shrinks_in_a_summary_in_every_spelling(form):
    import base64

    body = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 30_000).decode()
    made = VideoRequest(
        model="klingai/v2.5-turbo/pro/image-to-video", prompt="a", image=form.format(body)
    )
    assert len(str(made.summary())) < 400
    assert len(repr(made)) < 400


def test_a_long_prompt_is_kept_whole_in_a_summary():
    prompt = "A raccoon runs. " * 100
    assert VideoRequest(prompt=prompt).summary()["prompt"] == prompt


@pytest.mark.parametrize("scheme", ["https://", "HTTPS://", " https://"])
def test_a_signature_shows_in_no_summary(scheme):
    made = VideoRequest(
        model="klingai/v2.5-turbo/pro/image-to-video",
        prompt="a",
        image=f"{scheme}example.com/cat.png?Signature=s3cret",
    )
    assert "s3cret" not in str(made.summary())


@pytest.mark.parametrize(
    "parameters",
    [
        {"duration": "--5"},
        {"duration": "9" * 5000},
        {"duration": 10**5000},
        {"duration": "⁵"},
        {"cfg_scale": 10**400},
        {"extra": {"a": 10**5000}},
        {"extra": {"deep": json.loads("[" * 600 + "]" * 600)}},
    ],
)
def test_odd_values_are_refused_as_such(parameters):
    with pytest.raises(InvalidRequestError) as caught:
        VideoRequest(prompt="A cat", **parameters)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("prompt", ["http://[x", "https://["])
def test_a_prompt_that_begins_like_a_broken_address_has_a_summary(prompt):
    assert VideoRequest(prompt=prompt).summary()["prompt"]
