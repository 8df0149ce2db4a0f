"""What makes two requests the same payment."""

import sqlite3

import pytest

from kling_integrations import InvalidRequestError, KlingClient, Ledger, VideoRequest
from kling_integrations.core import identity

TURBO = "klingai/v2.5-turbo/pro/text-to-video"
SIGNED = (
    "https://bucket.s3.amazonaws.com/cat.png?versionId=7&X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIA%2F2026&X-Amz-Date={day}T000000Z&X-Amz-Expires=3600"
    "&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}"
)


def request(**given):
    return VideoRequest(**{"model": TURBO, "prompt": "A cat", **given})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"cfg_scale": 1}, {"cfg_scale": 1.0}),
        ({"prompt": "A cat"}, {"prompt": " A cat \n"}),
        ({"prompt": "A cat\nruns"}, {"prompt": "A cat\r\nruns"}),
        ({"prompt": "A cat  \nruns"}, {"prompt": "A cat\nruns"}),
        ({"prompt": "caf\u00e9"}, {"prompt": "cafe\u0301"}),
        ({}, {"duration": 5}),
        ({"duration": "5"}, {"duration": 5}),
        ({"model": "v2.5-turbo-pro"}, {"model": TURBO}),
        ({"extra": {"a": [1, 2.0]}}, {"extra": {"a": (1.0, 2)}}),
    ],
)
def test_requests_that_the_gateway_cannot_tell_apart_are_one_payment(one, other):
    assert request(**one).fingerprint == request(**other).fingerprint
    assert request(**one) == request(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"prompt": "A cat"}, {"prompt": "A Cat"}),
        ({"prompt": "A cat"}, {"prompt": "A  cat"}),
        ({"duration": 5}, {"duration": 10}),
        ({"cfg_scale": 0.5}, {"cfg_scale": 0.6}),
        ({"extra": {"a": True}}, {"extra": {"a": "true"}}),
        ({"extra": {"seed": 1}}, {"extra": {"seed": "1"}}),
    ],
)
def test_other_requests_are_other_payments(one, other):
    assert request(**one).fingerprint != request(**other).fingerprint


def test_two_documented_spellings_of_a_model_are_one_payment():
    from kling_integrations.core import catalog

    spelled = [model for model in catalog.models() if model.spellings and model.output == "video"]
    assert spelled
    for model in spelled:
        hashes = {
            identity.fingerprint({"model": name, "prompt": "a"}, model)
            for name in (model.id, *model.spellings)
        }
        assert len(hashes) == 1


def picture(url):
    model = "klingai/v2.5-turbo/pro/image-to-video"
    return VideoRequest(model=model, prompt="a", image=url)


def test_a_link_that_is_only_signed_anew_is_the_same_picture():
    one = picture(SIGNED.format(day="20261101", signature="aa"))
    other = picture(SIGNED.format(day="20261102", signature="bb"))
    assert one.fingerprint == other.fingerprint
    assert one.payload() != other.payload()  # what is sent is what was given
    third = picture(
        SIGNED.format(day="20261101", signature="aa").replace("versionId=7", "versionId=8")
    )
    assert third.fingerprint != one.fingerprint


def test_parameters_of_a_link_that_is_not_signed_count():
    one, other = (picture(f"https://example.com/i.png?expires={n}") for n in (1, 2))
    assert one.fingerprint != other.fingerprint


def test_a_dictionary_that_is_changed_later_changes_nothing_in_the_request():
    extra = {"camera": {"zoom": 1}, "seeds": [1]}
    made = request(extra=extra)
    before, hashed = made.payload(), made.fingerprint
    extra["camera"]["zoom"] = 2
    extra["seeds"].append(2)
    made.payload()["camera"]["zoom"] = 3
    assert made.payload() == before
    assert made.fingerprint == hashed == request(extra=before | {}).fingerprint


def test_one_dictionary_changed_in_a_loop_makes_different_videos(sandbox, tmp_path):
    extra = {"camera": {"zoom": 0}}
    requests = []
    for zoom in (1, 2, 3):
        extra["camera"]["zoom"] = zoom
        requests.append(VideoRequest(model="not/a/model", prompt="a", extra=extra))
    assert [each.payload()["camera"]["zoom"] for each in requests] == [1, 2, 3]
    assert len({each.fingerprint for each in requests}) == 3


@pytest.mark.parametrize("word", ["timeout", "take", "new", "file", "max_cost", "ledger"])
def test_a_word_of_a_verb_is_refused_as_a_parameter(word):
    with pytest.raises(InvalidRequestError, match=f"{word} is no parameter"):
        request(**{word: 1})


def test_text_that_is_no_unicode_is_refused_in_a_sentence():
    with pytest.raises(InvalidRequestError, match="not Unicode"):
        request(prompt="a\ud800b")


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://API.aimlapi.com", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com:443/", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com.", "https://api.aimlapi.com"),
        ("http://localhost:8765/sandbox/x60", "http://127.0.0.1:8765/sandbox/x60"),
        ("http://[::1]:8765", "http://127.0.0.1:8765"),
    ],
)
def test_one_gateway_is_one_account_however_it_is_written(url, same):
    assert identity.account(url) == identity.account(same)


def test_what_was_paid_under_another_spelling_of_the_gateway_is_picked_up(sandbox, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    other = sandbox.base_url.replace("127.0.0.1", "localhost")
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        first = client.generate(request())
    with KlingClient("sandbox", other, ledger=ledger) as client:
        assert client.generate(request(duration=5)).id == first.id
    assert len(sandbox.posts) == 1


def test_a_record_of_the_first_version_is_found(sandbox, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    asked = request(cfg_scale=1.0)
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        first = client.generate(asked)
        with sqlite3.connect(ledger.path) as db:
            db.execute(
                "UPDATE submissions SET fingerprint = ?, base_url = ?",
                (identity.first_fingerprint(asked.payload()), sandbox.base_url),
            )
        assert client.generate(request(cfg_scale=1.0)).id == first.id
    assert len(sandbox.posts) == 1


def test_an_address_of_the_sixth_version_keeps_its_brackets():
    assert identity.account("https://[2001:DB8::1]:8443/") == "https://[2001:db8::1]:8443"
    assert identity.account("https://api.aimlapi.com:8443") == "https://api.aimlapi.com:8443"
