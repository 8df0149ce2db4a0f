"""What makes two requests the same payment."""

import base64
import io
import sqlite3
import warnings
from decimal import Decimal

import numpy as np
import pytest
from PIL import Image

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


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR4nGP4z8AARAwQCgAf7gP9i18U1AAAAABJRU5E"
    "rkJggg=="
)
IMAGE = "klingai/v2.5-turbo/pro/image-to-video"
SIGNED_SHORT = "https://b.s3.amazonaws.com/c.png?X-Amz-Signature=aa&X-Amz-Date=1"

# Both forms of the fingerprints of ordinary requests, as records hold them: they never change.
GOLDEN = [
    (
        {"prompt": "A cat"},
        "b9436d68b69efffcbe96d613fa955228e1cf2d645cd87cd3d99ff1550cd84a3c",
        "b9436d68b69efffcbe96d613fa955228e1cf2d645cd87cd3d99ff1550cd84a3c",
    ),
    (
        {"prompt": "  Zwei Kätzchen \r\n tanzen  "},
        "fa4893c5618a2da34d9cbb8c22fd90dca1633a48af2b8718e92ce27bb4bdb8ae",
        "f45a9c69bf3bd1fce68415d9387c98851745f27a533422d78067ff21c863dc72",
    ),
    (
        {
            "model": TURBO,
            "prompt": "A cat",
            "duration": "10",
            "aspect_ratio": "9:16",
            "cfg_scale": 0.7,
            "negative_prompt": "blur",
        },
        "f2e2ad34fc0541c0b9bd37a76dd25ce98b9a941c79fbe896e6d17d285699ba33",
        "f2e2ad34fc0541c0b9bd37a76dd25ce98b9a941c79fbe896e6d17d285699ba33",
    ),
    (
        {"model": TURBO, "prompt": "A cat", "duration": 5, "cfg_scale": 1.0},
        "f44da05857355080b3f5f32eeedd9e460cfeb8576800184541b3e204f96eec54",
        "43c7668e35b730d5bfc37d6e79c07b2349e7422162c9f1dfa5d2e410fcff8392",
    ),
    (
        {"model": "v3-pro", "prompt": "A cat", "audio": False, "duration": 7},
        "91e37d8765b2380baff98fecf615f18e04fbf1e1230edc700d1645eeac39a96f",
        "91e37d8765b2380baff98fecf615f18e04fbf1e1230edc700d1645eeac39a96f",
    ),
    (
        {"model": IMAGE, "prompt": "a", "image": "https://example.com/cat.png?size=2"},
        "16ee174807561541c553ce2cdb95ce0b439a0c040758610e7e36d396c4326cbe",
        "16ee174807561541c553ce2cdb95ce0b439a0c040758610e7e36d396c4326cbe",
    ),
    (
        {"model": IMAGE, "prompt": "a", "image": PNG},
        "5c0cf39675013613b4b6a0d505d23fd96736bb98efd836479968781e34394248",
        "5c0cf39675013613b4b6a0d505d23fd96736bb98efd836479968781e34394248",
    ),
    (
        {"model": IMAGE, "prompt": "a", "image": SIGNED_SHORT},
        "1a167d97e7ef934746d99910f92268245acbc44883a61a52042f962bd515fab4",
        "60ef56729218cafb6a86bca27da653c0904781f5e1be759f492e8ed59982f050",
    ),
    (
        {
            "model": "v1.6-pro",
            "prompt": "a",
            "image": PNG,
            "tail_image": "https://example.com/e.png",
        },
        "43ea856214d85b83f3859b2bc80dfcf5bd9e34a3f95f0e15a641cddd17a5d7ca",
        "43ea856214d85b83f3859b2bc80dfcf5bd9e34a3f95f0e15a641cddd17a5d7ca",
    ),
    (
        {
            "model": "not/a/model",
            "prompt": "a",
            "seed": 7,
            "strength": 0.25,
            "flag": True,
            "extra": {"a": [1, 2.5, "x", {"b": False}]},
        },
        "5b14cf17736605e099dfe776cf13b402aac4f81c0008dad0b9c930ff2ecbdb13",
        "5b14cf17736605e099dfe776cf13b402aac4f81c0008dad0b9c930ff2ecbdb13",
    ),
    (
        {"prompt": "A cat", "extra": {"seed": 12345678901234567890}},
        "64327f74797a9f3be58e45c45a5bc1a200783b181cf1a154b01420694f384f80",
        "64327f74797a9f3be58e45c45a5bc1a200783b181cf1a154b01420694f384f80",
    ),
]


def fingerprints(**given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return VideoRequest(**given).fingerprints


@pytest.mark.parametrize(("given", "today", "first"), GOLDEN)
def test_the_fingerprint_of_an_ordinary_request_is_what_records_hold(given, today, first):
    assert fingerprints(**given) == (today, first)


# --- numbers and structures ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"cfg_scale": np.float32(0.7)}, {"cfg_scale": 0.7}),
        ({"cfg_scale": float(np.float32(0.7))}, {"cfg_scale": 0.7}),
        ({"cfg_scale": Decimal("0.70")}, {"cfg_scale": "0.7"}),
        ({"cfg_scale": 0.1 + 0.2}, {"cfg_scale": 0.3}),
        ({"cfg_scale": -0.0}, {"cfg_scale": 0}),
        ({"duration": Decimal("10")}, {"duration": "10.0"}),
        ({"duration": np.int64(10)}, {"duration": 10.0}),
        ({"extra": {"duration": "10"}}, {"duration": 10}),
        ({"extra": {"duration": "5"}}, {}),
        ({"extra": {"a": np.array([0.7], "float32")}}, {"extra": {"a": [0.7]}}),
        ({"extra": {"a": 1, "b": None, "c": {"d": None}}}, {"extra": {"a": 1, "c": {}}}),
        ({"extra": [("a", 1)]}, {"extra": {"a": 1}}),
        ({"extra": None}, {"extra": {}}),
        ({"prompt": "\ufeffA cat"}, {}),
        ({"model": "v3-pro", "audio": "no"}, {"model": "v3-pro", "audio": False}),
        ({"model": "v3-pro", "audio": 1.0}, {"model": "v3-pro", "audio": np.bool_(True)}),
    ],
)
def test_numbers_and_structures_are_one_payment_whatever_library_wrote_them(one, other):
    assert request(**one).fingerprint == request(**other).fingerprint


def test_what_is_sent_is_the_number_that_is_meant():
    sent = request(cfg_scale=np.float32(0.7), duration=Decimal("10.0"), extra={"a": Decimal("0.1")})
    payload = sent.payload()
    assert (payload["cfg_scale"], payload["duration"], payload["a"]) == (0.7, 10, 0.1)


@pytest.mark.parametrize("name", ["cfg_scale", "duration", "negative_prompt"])
def test_a_value_that_is_missing_is_refused_and_not_the_default(name):
    for nothing in (float("nan"), Decimal("NaN"), np.float32("nan")):
        with pytest.raises(InvalidRequestError, match=name):
            request(**{name: nothing})


@pytest.mark.parametrize("extra", ["see the brief", [1], 7, [("a", 1), 2]])
def test_an_extra_that_is_no_object_is_refused_by_its_name(extra):
    with pytest.raises(InvalidRequestError, match=r"^extra is an object"):
        request(extra=extra)


def earlier(payload, model):
    """The fingerprint as earlier releases made it: over the payload that they sent."""
    return identity._fingerprint(payload, model)


def test_a_row_of_32_bits_that_was_paid_for_with_all_its_digits_is_found():
    from kling_integrations.core import catalog

    written = {"model": TURBO, "prompt": "A cat", "cfg_scale": 0.699999988079071}
    old = earlier(written, catalog.find(TURBO))
    asked = request(cfg_scale=float(np.float32(0.7)))
    assert old in asked.fingerprints[1:-1]
    assert old not in request(cfg_scale=0.7).fingerprints


# --- pictures ------------------------------------------------------------------------------------


def gradient(mode="RGB", size=(64, 48)):
    return Image.linear_gradient("L").resize(size).convert(mode)


@pytest.fixture
def other_deflate(monkeypatch):
    """From here on Pillow compresses as another zlib would: other bytes, the same pixels."""
    save = Image.Image.save

    def set_level(level):
        def saved(self, target, format=None, **options):
            return save(self, target, format, **{"compress_level": level, **options})

        monkeypatch.setattr(Image.Image, "save", saved)

    return set_level


class Shown:
    """An object with a PNG for notebooks, as charts of many libraries are."""

    def __init__(self, image):
        self.image = image

    def _repr_png_(self):
        data = io.BytesIO()
        self.image.save(data, "PNG")
        return data.getvalue()


@pytest.mark.parametrize(
    "drawn",
    [
        gradient(),
        gradient("RGBA"),
        gradient("L"),
        gradient("1"),
        gradient().quantize(16),
        gradient("CMYK"),
        np.asarray(gradient()),
        np.asarray(gradient()) / 255,
        Shown(gradient()),
    ],
    ids=lambda drawn: f"{type(drawn).__name__} {getattr(drawn, 'mode', '')}",
)
def test_a_picture_is_known_by_its_pixels_however_they_are_compressed(drawn, other_deflate):
    first = picture(drawn)
    other_deflate(1)
    second = picture(drawn)
    assert first.payload() != second.payload()
    assert first.fingerprint == second.fingerprint


def profiled(profile):
    image = gradient()
    image.info["icc_profile"] = profile
    return image


def see_through(colour):
    image = gradient()
    image.info["transparency"] = colour
    return image


def touched():
    image = gradient()
    image.putpixel((0, 0), (1, 2, 3))
    return image


def test_pictures_that_differ_in_anything_that_shows_are_other_payments():
    shown = [
        gradient(),
        touched(),
        gradient(size=(48, 64)),
        gradient("L"),
        gradient("RGBA"),
        profiled(b"one"),
        profiled(b"other"),
        see_through((0, 0, 0)),
        see_through((1, 1, 1)),
    ]
    assert len({picture(each).fingerprint for each in shown}) == len(shown)


def test_an_image_and_the_array_of_its_pixels_are_one_picture():
    assert picture(gradient()).fingerprint == picture(np.asarray(gradient())).fingerprint


def test_what_pillow_notes_about_a_file_makes_no_other_picture():
    image = gradient()
    image.info |= {"dpi": (72, 72), "gamma": 0.45, "comment": b"made with something"}
    assert picture(image).fingerprint == picture(gradient()).fingerprint


def test_a_record_of_a_picture_by_its_compressed_bytes_is_found(sandbox, tmp_path):
    """As earlier releases wrote it, for a picture that is an object."""
    from kling_integrations.core import catalog

    asked = picture(gradient())
    old = earlier(asked.payload(), catalog.find(IMAGE))
    assert asked.fingerprints == (
        asked.fingerprint,
        old,
        identity.first_fingerprint(asked.payload()),
    )
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        first = client.generate(asked)
        with sqlite3.connect(ledger.path) as db:
            db.execute("UPDATE submissions SET fingerprint = ?", (old,))
        assert client.generate(picture(gradient())).id == first.id
    assert len(sandbox.posts) == 1


def test_a_file_is_known_by_its_bytes(tmp_path):
    data = io.BytesIO()
    gradient().save(data, "PNG")
    (tmp_path / "a.png").write_bytes(data.getvalue())
    assert picture(tmp_path / "a.png").fingerprint == picture(data.getvalue()).fingerprint
    assert len(picture(data.getvalue()).fingerprints) == 2
