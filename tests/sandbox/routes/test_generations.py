"""Submit and poll, as the gateway's documents describe them; what a fault at a submit accepts."""

import math
import time

import pytest
from support.outcomes import outcome

from kling_integrations.core import catalog
from kling_integrations.sandbox import KINDS

LEGACY = "/v2/generate/video/kling/generation"
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
# The submit was taken (and is billed), although the reply looks like this.
ACCEPTED = {
    "drop-after": {},
    "status-after": {"code": 502},
    "hang-after": {},
    "cut": {},
    "cut-json": {},
    "garbage": {},
    "not-http": {},
    "html": {},
    "empty": {},
    "no-id": {},
    "oversized": {"mb": 1},
    "bomb": {"mb": 1},
    "wrong-type": {},
    "odd-status": {},
    "reply": {"body": []},
    "slow": {"seconds": 0},
}
REFUSED = {"status": {}, "drop-before": {}, "hang": {}, "redirect": {"to": "http://127.0.0.1:9/"}}


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


def test_an_id_may_spell_its_model_in_another_way_than_the_request(caller):
    id = caller.submit(model="klingai/v2-master-text-to-video")
    assert id.endswith(":kling-video/v2/master/text-to-video")


def test_headers_tie_a_reply_to_its_request(caller):
    reply = caller.post(headers={"X-Client-Request-Id": "order:8f21_c4.x"})
    id = reply.json()["id"]
    assert reply.headers["x-inference-id"] == id
    assert reply.headers["x-client-request-id"] == "order:8f21_c4.x"
    assert reply.headers["x-request-id"]
    assert caller.poll(id).headers["x-inference-id"] == id
    assert caller.sandbox.jobs[id].client_request_id == "order:8f21_c4.x"


@pytest.mark.parametrize("mark", ["with space", "x" * 129, "ümlaut".encode().decode("latin-1")])
def test_a_malformed_client_request_id_is_ignored(caller, mark):
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


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(caller, data):
    reply = caller.session.post(caller.url, data=data, timeout=10)
    assert reply.status_code == 400
    assert reply.headers["content-type"].startswith("application/problem+json")


def test_an_unknown_model_is_404_unless_the_sandbox_accepts_it(caller, make):
    body = {"model": "klingai/video-v4-pro-text-to-video", "prompt": "x"}
    assert caller.post(body).status_code == 404
    with make(unknown_models=True) as accepting:
        assert accepting.post(body).ok


def test_a_body_beyond_the_limit_is_413(make):
    with make(max_body=1000) as caller:
        reply = caller.post({"model": "m", "prompt": "x" * 2000})
        assert reply.status_code == 413
        assert reply.json()["status"] == 413
        assert len(caller.sandbox.posts) == 1
        assert caller.submit()


def test_a_documented_model_takes_about_its_documented_time(make):
    model = next(m for m in catalog.models() if m.id == "klingai/v2-master-text-to-video")
    with make(seconds=None) as caller:
        for duration in (5, 10):
            id = caller.submit(model=model.id, duration=duration)
            expected = model.expected_seconds(duration)
            assert expected is not None
            assert 0.8 * expected < caller.sandbox.jobs[id].seconds < 1.3 * expected


def test_seconds_may_be_a_function_of_model_and_payload(make):
    with make(seconds=lambda model, payload: 10.0 * payload["duration"]) as caller:
        ids = [caller.submit(duration=duration) for duration in (5, 10)]
        assert [caller.sandbox.jobs[id].seconds for id in ids] == [50, 100]


def test_a_word_in_the_prompt_makes_a_job_fail(make):
    with make(seconds=0) as caller:
        assert caller.poll(caller.submit(prompt="x [fail:moderation]")).json()["status"] == "error"
        assert caller.poll(caller.submit(prompt="x")).json()["status"] == "completed"


def test_fail_may_be_a_function(make):
    with make(seconds=0, fail=lambda _, body: "string" if "dog" in body["prompt"] else None) as it:
        assert it.poll(it.submit(prompt="a dog")).json()["error"] == "Generation failed"
        assert it.poll(it.submit(prompt="a cat")).json()["status"] == "completed"


def test_every_submit_is_recorded_whether_accepted_or_not(caller):
    caller.post({"model": "nothing"}, headers={"X-Client-Request-Id": "first"})
    id = caller.submit(prompt="second")
    refused, accepted = caller.sandbox.posts
    assert (refused.accepted, refused.status, refused.generation_id) == (False, 404, None)
    assert refused.client_request_id == "first"
    assert refused.body == {"model": "nothing"}
    assert (accepted.accepted, accepted.status, accepted.generation_id) == (True, 201, id)
    assert accepted.time == pytest.approx(time.time(), abs=5)
    assert accepted.headers["Content-Type"] == "application/json"
    assert caller.sandbox.paid == 1
    assert caller.sandbox.requests == {"submit": 2}


def test_a_faulty_reply_to_a_poll_does_not_count_as_a_report_of_the_end(caller):
    id = caller.submit()
    caller.sandbox.finish(id)
    caller.sandbox.fault("poll", "status")
    assert caller.poll(id).status_code == 503
    assert caller.sandbox.jobs[id].first_seen_finished is None
    caller.poll(id)
    assert caller.sandbox.jobs[id].first_seen_finished is not None


def test_a_submit_that_costs_more_than_is_left_is_403(make):
    with make(balance=0.75) as caller:
        caller.submit()
        assert caller.post().status_code == 403
        caller.sandbox.finish(fail="provider")
        assert caller.post().ok


@pytest.mark.thorough
def test_a_thousand_waiting_jobs_cost_little(make):
    """Generous: a poll that grew with the number of jobs would take far longer."""
    with make() as caller:
        ids = [caller.submit() for _ in range(1000)]
        before = time.process_time()
        for id in ids:
            assert caller.poll(id).ok
        assert time.process_time() - before < 6  # this side and the sandbox, for 1,000 polls
        assert math.isinf(caller.sandbox.jobs[ids[0]].seconds)


@pytest.mark.parametrize(("kind", "options"), (ACCEPTED | REFUSED).items())
def test_a_fault_at_submit_is_before_or_after_the_acceptance(caller, kind, options):
    fault = caller.sandbox.fault("submit", kind, **options)
    outcome(lambda: caller.post(timeout=0.3, allow_redirects=False))
    assert fault.hits == 1
    (post,) = caller.sandbox.posts
    assert post.accepted is (kind in ACCEPTED)
    assert post.fault == kind
    assert caller.sandbox.paid == (kind in ACCEPTED)
    assert caller.post().ok  # once, and then all is well


def test_the_lists_above_name_every_fault_of_a_submit():
    assert (ACCEPTED | REFUSED).keys() == {k for k, v in KINDS.items() if "submit" in v.moments}


def test_accept_overrides_what_a_fault_accepts(caller):
    caller.sandbox.fault("submit", "html", accept=False)
    caller.sandbox.fault("submit", "status", accept=True, code=500)
    assert caller.post().headers["content-type"] == "text/html"
    assert caller.sandbox.paid == 0
    assert caller.post().status_code == 500
    assert caller.sandbox.paid == 1


def test_a_refused_body_is_not_accepted_by_a_fault(caller):
    caller.sandbox.fault("submit", "drop-after")
    assert caller.post({"model": "nothing"}).status_code == 404
    assert caller.sandbox.paid == 0
