"""The sandbox speaks as the gateway's documents say."""

import dataclasses
import re

import pytest
import requests

from kling_integrations.core import catalog
from kling_integrations.sandbox import ERAS

LEGACY = "/v2/generate/video/kling/generation"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:.+")
DECIMAL = re.compile(r"\d{18}")
NANOID = re.compile(r"[A-Za-z0-9_-]{21}")

# Bodies of the gateway's own pages, one for each of the five that this project began with.
PAGES = [
    {
        "model": "klingai/v2.5-turbo/pro/text-to-video",
        "prompt": "A cheerful white raccoon running through a sequoia forest",
        "aspect_ratio": "16:9",
        "duration": "5",
        "cfg_scale": 0.9,
    },
    {
        "model": "klingai/v2-master-image-to-video",
        "prompt": "Mona Lisa puts on glasses with her hands.",
        "image_url": "https://example.com/mona-lisa.jpeg",
        "duration": "5",
    },
    {
        "model": "kling-video/v1.6/standard/multi-image-to-video",
        "image_list": ["https://example.com/cat.png", "https://example.com/hat.png"],
        "prompt": "The cat puts on the hat",
        "aspect_ratio": "16:9",
        "duration": "5",
    },
    {
        "model": "klingai/kling-video-v1.6-standard-effects",
        "image_url": "https://example.com/woman.jpg",
        "effect_scene": "heart_gesture_1",
        "duration": 5,
    },
    {
        "model": "klingai/video-v2-6-pro-text-to-video",
        "prompt": "A raccoon eats ice cream",
        "generate_audio": False,
        "duration": 10,
    },
]


def minimal(model):
    """A body with just what the model demands."""
    values = {
        "string": "A cat",
        "string or array": "https://example.com/a.png",
        "array": ["https://example.com/a.png"] * 2,
    }
    body = {"model": model.id}
    for name, parameter in model.parameters.items():
        if parameter.required:
            value = values[parameter.type]
            if parameter.format == "uri":
                value = "https://example.com/a.png"
            body[name] = parameter.enum[0] if parameter.enum else value
    if "prompt" in model.parameters:
        body.setdefault("prompt", "A cat")
    return body


@pytest.mark.parametrize("body", PAGES, ids=lambda body: body["model"])
@pytest.mark.parametrize("path", ["/v2/video/generations", LEGACY])
def test_every_page_of_the_documents_yields_its_video_on_both_urls(make, body, path):
    with make(seconds=0) as caller:
        caller.url = caller.sandbox.base_url + path
        reply = caller.post(body)
        assert reply.status_code in (200, 201)
        id = reply.json().get("id") or reply.json()["generation_id"]
        polled = caller.poll(id).json()
        assert (polled["id"], polled["status"]) == (id, "completed")
        assert polled["video"]


@pytest.mark.parametrize("model", catalog.models(), ids=lambda model: model.id)
def test_every_documented_model_is_known_and_the_withdrawn_and_the_image_one_refused(shared, model):
    reply = shared.post(minimal(model))
    expected = {200, 201}
    if model.deprecated:
        expected = {404}
    elif model.output != "video":
        expected = {400}
    assert reply.status_code in expected, reply.text
    for spelling in model.spellings:
        assert shared.post({**minimal(model), "model": spelling}).status_code in expected


def test_a_submit_on_one_url_can_be_polled_on_the_other(caller):
    id = caller.submit()
    caller.url = caller.sandbox.base_url + LEGACY
    assert caller.poll(id).json()["id"] == id


def test_the_reply_has_the_shape_of_the_models_time(make):
    """Four eras: key of the id, code, id shape, form of the video, figures of the usage."""
    with make(seconds=0) as caller:

        def both(model, **more):
            submitted = caller.post({"model": model, "prompt": "x", **more})
            id = submitted.json().get("id") or submitted.json()["generation_id"]
            return submitted, caller.poll(id).json()

        submitted, polled = both("klingai/v2.5-turbo/pro/text-to-video")
        assert submitted.status_code == 201
        assert UUID.fullmatch(submitted.json()["id"])
        assert set(polled) == {"id", "status", "video"}
        assert set(polled["video"]) == {"url", "content_type", "file_name", "file_size"}

        submitted, polled = both("kling-video/v1/standard/text-to-video")
        assert submitted.status_code == 201
        assert NANOID.fullmatch(submitted.json()["generation_id"])
        assert "id" not in submitted.json()
        assert polled["video"].keys() == {"url", "duration"}
        assert polled["duration"] == 5
        assert polled["meta"]["usage"]["tokens_used"] > 0

        submitted, polled = both("klingai/video-v2-6-pro-text-to-video")
        assert submitted.status_code == 200
        assert DECIMAL.fullmatch(submitted.json()["id"])
        assert polled["video"].keys() == {"url"}
        assert polled["error"] is None
        assert polled["meta"]["usage"]["credits_used"] > 0

        submitted, polled = both("klingai/video-v3-pro-text-to-video")
        assert submitted.json()["id"].startswith("-")
        assert submitted.json()["meta"]["usage"]
        assert isinstance(polled["video"], list)
        assert polled["status"] == "completed"
        assert polled["error"] == {"name": "text", "message": "text"}
        assert polled["meta"]["usage"]["usd_spent"] > 0
        assert polled["model"] == "klingai/video-v3-pro-text-to-video"


def test_an_id_may_spell_its_model_in_another_way_than_the_request(caller):
    id = caller.submit(model="klingai/v2-master-text-to-video")
    assert id.endswith(":kling-video/v2/master/text-to-video")


def test_an_era_of_choice_rules_all_replies(make):
    era = dataclasses.replace(
        ERAS["2026-01"], ids="uuid", words={"queued": "waiting", "completed": "succeeded"}
    )
    with make(era=era) as caller:
        id = caller.submit()
        assert UUID.fullmatch(id)
        assert caller.poll(id).json()["status"] == "waiting"
        caller.sandbox.finish(id)
        assert caller.poll(id).json()["status"] == "succeeded"


def test_headers_tie_a_reply_to_its_request(caller):
    reply = caller.post(headers={"X-Client-Request-Id": "order:8f21_c4.x"})
    id = reply.json()["id"]
    assert reply.headers["x-inference-id"] == id
    assert reply.headers["x-client-request-id"] == "order:8f21_c4.x"
    assert reply.headers["x-request-id"]
    assert caller.poll(id).headers["x-inference-id"] == id
    assert caller.sandbox.jobs[id].client_request_id == "order:8f21_c4.x"


@pytest.mark.parametrize("mark", ["with space", "x" * 129, "ümlaut".encode().decode("latin-1")])
def test_a_malformed_client_request_id_is_dropped_without_a_word(caller, mark):
    reply = caller.post(headers={"X-Client-Request-Id": mark})
    assert reply.ok
    assert "x-client-request-id" not in reply.headers
    assert caller.sandbox.jobs[reply.json()["id"]].client_request_id is None


def test_an_unknown_id_is_404_and_a_malformed_one_is_not_echoed(caller):
    known_shape = caller.poll("NVOeetazzu2Xlca6ghTMx")
    assert known_shape.status_code == 404
    assert known_shape.json()["message"] == "Inference not found"
    assert known_shape.headers["x-inference-id"] == "NVOeetazzu2Xlca6ghTMx"
    malformed = caller.poll("what is this")
    assert malformed.status_code == 404
    assert "x-inference-id" not in malformed.headers


def test_polling_without_an_id_gives_status_unknown(caller):
    body = caller.poll("").json()
    assert (body["id"], body["status"]) == ("", "unknown")
    assert body["error"]["message"] == "invalid params, task_id cannot by empty"


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"prompt": None}, "prompt: Required. Expected string, received undefined"),
        ({"prompt": "  "}, "prompt: Expected at least 1 character(s)"),
        ({"prompt": 7}, "prompt: Expected string, received integer"),
        ({"duration": 7}, "Expected 5 | 10, received 7"),
        ({"duration": "6"}, "Expected 5 | 10, received 6"),
        ({"duration": 5.5}, "duration: Expected integer, received number"),
        ({"aspect_ratio": "4:3"}, "Expected '16:9' | '9:16' | '1:1', received '4:3'"),
        ({"cfg_scale": 3}, "cfg_scale: Expected a number <= 1, received 3"),
        ({"cfg_scale": "much"}, "cfg_scale: Expected number, received string"),
        (
            {"model": "klingai/video-v2-6-pro-text-to-video", "prompt": "x" * 2501},
            "prompt: Expected at most 2500 character(s), received 2501",
        ),
        (
            {"model": "klingai/v2.5-turbo/pro/image-to-video"},
            "image_url: Required. Expected string, received undefined",
        ),
        (
            {"model": "klingai/v2.5-turbo/pro/image-to-video", "image_url": "my cat.png"},
            "image_url: Invalid url. Expected a URL or a data URI, received 'my cat.png'",
        ),
        (
            {"model": "klingai/video-v3-pro-text-to-video", "prompt": ""},
            "Expected prompt or multi_prompt, received neither",
        ),
        (
            {
                "model": "klingai/video-v3-omni-720p-image-to-video",
                "image_url": "https://example.com/a.png",
                "tail_image_url": "https://example.com/b.png",
            },
            "tail_image_url: Expected generate_audio=false with it, received true",
        ),
        (
            {
                "model": "kling-video/v1.6/standard/multi-image-to-video",
                "image_list": ["https://example.com/a.png"],
            },
            "image_list: Expected at least 2 item(s), received 1",
        ),
        (
            {
                "model": "kling-video/v1/standard/text-to-video",
                "advanced_camera_control": {"movement_type": "spin", "movement_value": 3},
            },
            "advanced_camera_control.movement_type: Invalid enum value.",
        ),
    ],
)
def test_a_bad_value_gets_400_with_what_was_expected_and_what_received(caller, changes, hint):
    body = {"model": "klingai/v2.5-turbo/pro/text-to-video", "prompt": "A cat", **changes}
    reply = caller.post({name: value for name, value in body.items() if value is not None})
    assert reply.status_code == 400
    assert "Body validation error!" in reply.text
    message = reply.json()["message"]
    assert hint in (message if isinstance(message, str) else "; ".join(message))
    assert caller.sandbox.paid == 0
    assert not caller.sandbox.posts[0].accepted


@pytest.mark.parametrize("duration", [5, "5", 10, "10"])
def test_a_duration_may_be_a_number_or_text(caller, duration):
    assert caller.submit(duration=duration)


def test_what_the_documents_do_not_name_passes(caller):
    assert caller.submit(external_task_id="mine", sparkle=True)


def test_bare_base64_is_an_image_too(caller):
    assert caller.submit(model="klingai/v2.5-turbo/pro/image-to-video", image_url="iVBORw0KGgo" * 9)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(caller, data):
    reply = caller.session.post(caller.url, data=data, timeout=10)
    assert reply.status_code == 400
    assert reply.headers["content-type"].startswith("application/problem+json")


def test_an_unknown_model_is_404_unless_welcome(caller, make):
    body = {"model": "klingai/video-v4-pro-text-to-video", "prompt": "x"}
    assert caller.post(body).status_code == 404
    with make(unknown_models=True) as open_minded:
        assert open_minded.post(body).ok


@pytest.mark.parametrize("header", [None, "Bearer ", "Basic abc", "Bearer a-bad-key"])
def test_a_missing_or_wrong_key_is_401_in_the_problem_envelope(caller, header):
    url = caller.url
    headers = {} if header is None else {"Authorization": header}
    for reply in (
        requests.post(url, json={}, headers=headers, timeout=10),
        requests.get(url, params={"generation_id": "1"}, headers=headers, timeout=10),
        requests.get(f"{caller.sandbox.base_url}/v2/billing", headers=headers, timeout=10),
    ):
        assert reply.status_code == 401
        body = reply.json()
        assert (body["title"], body["status"]) == ("Unauthorized", 401)
        assert body["error"]["name"] == "UnauthorizedException"
        assert body["requestId"] == reply.headers["x-request-id"]
        assert body["instance"].startswith("/sandbox/")


def test_a_broke_key_is_403_with_the_gateways_own_spelling(caller):
    caller.session.headers["Authorization"] = "Bearer broke"
    reply = caller.post()
    assert reply.status_code == 403
    assert reply.json()["error"]["data"]["kind"] == "err_insufficent_credits"
    assert caller.get("/v2/billing").json()["current_balance"] == 0
    assert caller.sandbox.paid == 0


def test_the_key_is_kept_in_no_record(caller):
    caller.session.headers["Authorization"] = "Bearer very-secret"
    caller.poll(caller.submit())
    assert "very-secret" not in caller.get("/_jobs").text
    assert "very-secret" not in repr(caller.sandbox.posts) + repr(caller.sandbox.jobs)


def test_a_body_beyond_the_limit_is_413(make):
    with make(max_body=1000) as caller:
        reply = caller.post({"model": "m", "prompt": "x" * 2000})
        assert reply.status_code == 413
        assert reply.json()["status"] == 413
        assert len(caller.sandbox.posts) == 1
        assert caller.submit()


def test_an_older_model_complains_in_the_older_envelope(caller):
    reply = caller.post({"model": "klingai/v2.5-turbo/pro/text-to-video", "prompt": ""})
    body = reply.json()
    assert body.keys() == {"message", "path", "requestId", "statusCode", "timestamp"}
    assert body["statusCode"] == "400"


def test_every_reply_says_that_it_is_the_sandbox(caller):
    assert caller.post().headers["x-kling-sandbox"] == "1"
    assert "SANDBOX" in caller.get("/").text
    assert "/sandbox/x60" in caller.sandbox.base_url


def test_another_path_is_404_and_names_the_base_url(caller):
    reply = requests.get(f"{caller.sandbox.origin}/v2/billing", timeout=10)
    assert reply.status_code == 404
    assert caller.sandbox.base_url in reply.json()["message"]
