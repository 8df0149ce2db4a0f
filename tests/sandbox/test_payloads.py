"""The bodies of all eras, of failures and of errors."""

import dataclasses
import re

import pytest

from kling_integrations.sandbox import ERAS

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:.+")
DECIMAL = re.compile(r"\d{18}")
NANOID = re.compile(r"[A-Za-z0-9_-]{21}")


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


def test_an_older_model_refuses_in_the_older_envelope(caller):
    reply = caller.post({"model": "klingai/v2.5-turbo/pro/text-to-video", "prompt": ""})
    body = reply.json()
    assert body.keys() == {"message", "path", "requestId", "statusCode", "timestamp"}
    assert body["statusCode"] == "400"


def test_a_seed_makes_ids_and_durations_repeatable(make):
    runs = []
    for seed in (1, 1, 2):
        with make(seconds=None, seed=seed) as caller:
            id = caller.submit()
            runs.append((id, caller.sandbox.jobs[id].seconds))
    assert runs[0] == runs[1] != runs[2]


def test_without_a_seed_no_id_comes_twice(make):
    ids = []
    for _ in range(2):
        with make(seed=None) as caller:
            ids.append(caller.submit())
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("kind", "status", "looks"),
    [
        ("moderation", "error", lambda e: "content policy" in e["message"]),
        ("provider", "error", lambda e: e["name"] == "Error"),
        ("credits", "error", lambda e: e["data"]["kind"] == "err_insufficent_credits"),
        ("string", "error", lambda e: isinstance(e, str)),
        ("null", "error", lambda e: e is None),
        ("failed", "failed", lambda e: e["message"]),
        ("face_detection", "error", lambda e: e["detail"][0]["type"] == "face_detection_error"),
    ],
)
def test_a_job_can_fail_in_every_documented_form(make, kind, status, looks):
    with make(fail=kind, seconds=0) as caller:
        body = caller.poll(caller.submit()).json()
        assert body["status"] == status
        assert looks(body["error"])
        assert not body.get("video")


def test_an_error_comes_in_the_envelope_of_choice(caller):
    id = caller.submit()
    for style, content_type in (
        ("problem", "application/problem+json"),
        ("legacy", "application/json"),
        ("html", "text/html"),
        ("empty", "text/plain"),
    ):
        caller.sandbox.fault("poll", "502", envelope=style)
        reply = caller.poll(id)
        assert reply.status_code == 502
        assert reply.headers["content-type"].startswith(content_type)
        if style == "legacy":
            assert reply.json()["statusCode"] == "502"
        elif style == "html":
            assert "<h1>502: Bad Gateway</h1>" in reply.text
        elif style == "empty":
            assert reply.content == b""
        assert "Retry-After" not in reply.headers
