"""What a reply means: every documented shape, and everything that is none."""

import json
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_integrations import (
    AuthenticationError,
    InsufficientCreditsError,
    InvalidRequestError,
    KlingError,
    KlingWarning,
    ServerError,
    Status,
    SubmissionUncertainError,
    VideoRequest,
)
from kling_integrations.core import payloads, protocol
from kling_integrations.core.errors import GenerationNotFoundError
from kling_integrations.core.generation import Generation
from kling_integrations.core.payloads import Reply
from kling_integrations.core.protocol import Endpoint, Sent, Trouble

IDS = [
    "a248abc5-3122-45a9-a9ee-352e4642e01c:klingai/v2.5-turbo/pro/text-to-video",
    "789392067490349060",
    "NVOeetazzu2Xlca6ghTMx",
    "-G3b3vVKdoC42fMNeK1T5",
]
ID = IDS[0]
URL = "https://cdn.example.com/v.mp4?ksTime=6a000000&sign=s3cret"


def reply(body, status=200, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def polled(body, status=200):
    return protocol.read_poll(reply(body, status), ID)


def submitted(body, status=200, **headers):
    return protocol.read_submit(reply(body, status, **headers), "kling-1")


# --- calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("legacy", "path"),
    [(False, "/v2/video/generations"), (True, "/v2/generate/video/kling/generation")],
)
def test_a_submit_posts_the_payload_to_the_url_of_its_form(legacy, path):
    request = VideoRequest(prompt="Ein Bär “läuft”", duration="5")
    call = Endpoint("https://api.aimlapi.com", "k3y", legacy).submit(request, "kling-1")
    assert (call.method, call.url) == ("POST", "https://api.aimlapi.com" + path)
    assert json.loads(call.body) == request.payload()
    assert call.headers["Authorization"] == "Bearer k3y"
    assert call.headers["X-Client-Request-Id"] == "kling-1"
    assert call.headers["User-Agent"].startswith("kling-integrations/")


@pytest.mark.parametrize("generation_id", IDS)
def test_an_id_is_encoded_in_the_url_and_comes_back_whole(generation_id):
    from urllib.parse import parse_qs, urlsplit

    url = Endpoint("https://api.aimlapi.com", "k").poll(generation_id).url
    assert parse_qs(urlsplit(url).query) == {"generation_id": [generation_id]}
    assert "/" not in urlsplit(url).query


def test_the_key_is_in_no_repr():
    endpoint = Endpoint("https://api.aimlapi.com", "k3y")
    assert "k3y" not in repr(endpoint)
    assert "k3y" not in repr(endpoint.balance())


def test_a_client_request_id_has_the_form_that_the_gateway_keeps():
    import re

    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", protocol.new_client_request_id())


# --- submit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("key", ["id", "generation_id"])
@pytest.mark.parametrize("generation_id", IDS)
def test_an_accepted_submit_gives_the_id_in_any_of_its_shapes(status, key, generation_id):
    answer = submitted({key: generation_id, "status": "queued"}, status)
    assert (answer.id, answer.status) == (generation_id, Status.QUEUED)


def test_a_numeric_id_becomes_text():
    assert submitted({"id": 789392067490349060, "status": "queued"}).id == IDS[1]


@pytest.mark.parametrize(
    "body", [b"<html>ok</html>", b"", b'{"id": "abc', b"[]", b"null", b'{"status": "queued"}']
)
def test_an_unreadable_2xx_is_uncertain_unless_a_header_names_the_id(body):
    with pytest.raises(SubmissionUncertainError, match="kling-1") as caught:
        submitted(body)
    assert caught.value.client_request_id == "kling-1"
    assert "client.recover()" in str(caught.value)
    assert submitted(body, x_inference_id=ID).id == ID


@pytest.mark.parametrize("status", [500, 502, 503, 504, 524, 408, 409, 301, 302, 303, 307, 100])
def test_a_status_that_may_hide_an_accepted_job_is_uncertain(status):
    with pytest.raises(SubmissionUncertainError):
        submitted({"message": "oops"}, status)


def test_a_server_error_that_names_the_generation_is_not_lost():
    answer = submitted({"message": "oops"}, 502, x_inference_id=ID)
    assert answer.id == ID
    assert not answer.is_terminal


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            400,
            {"message": ["Body validation error!", "Expected 5"], "status": 400},
            InvalidRequestError,
        ),
        (404, {"title": "NotFoundException"}, InvalidRequestError),
        (413, b"", InvalidRequestError),
        (422, {"detail": [{"loc": ["body"], "msg": "no"}]}, InvalidRequestError),
        (401, {"message": "This request requires a valid API key"}, AuthenticationError),
        (
            403,
            {"message": "no", "error": {"data": {"kind": "err_insufficent_credits"}}},
            InsufficientCreditsError,
        ),
        (403, {"message": "You've run out of funds."}, InsufficientCreditsError),
        (402, {}, InsufficientCreditsError),
        (403, {"message": "Model is not for you"}, AuthenticationError),
    ],
)
def test_a_refusal_is_final_and_certain(status, body, error):
    with pytest.raises(error):
        submitted(body, status)


def test_only_what_surely_did_not_arrive_may_be_repeated():
    refused = Trouble("connection refused", Sent.NO)
    assert protocol.read_submit(refused, "kling-1") is refused
    with pytest.raises(SubmissionUncertainError):
        protocol.read_submit(Trouble("connection lost", Sent.MAYBE), "kling-1")


@pytest.mark.parametrize(
    ("value", "seconds"), [("3", 3), ("2.5", 2.5), ("soon", None), ("nan", None), ("-5", 0)]
)
def test_a_429_may_be_repeated_after_the_stated_seconds(value, seconds):
    answer = submitted({"message": "Too Many Requests"}, 429, retry_after=value)
    assert (answer.sent, answer.retry_after) == (Sent.NO, seconds)


def test_retry_after_may_be_a_date():
    answer = submitted({}, 429, retry_after=formatdate(time.time() + 60, usegmt=True))
    assert 55 < answer.retry_after <= 60


def test_the_gateways_words_reach_the_user_from_either_envelope():
    problem = {
        "title": "BadRequestException",
        "status": 400,
        "message": ["duration: Expected 5 | 10, received 7"],
        "requestId": "r",
    }
    legacy = {"message": "Body validation error!", "statusCode": "400", "path": "/v2"}
    for body, words in ((problem, "Expected 5 | 10"), (legacy, "Body validation error!")):
        with pytest.raises(InvalidRequestError, match=words.replace("|", r"\|")):
            submitted(body, 400)


def test_a_page_of_html_is_described_and_not_printed():
    with pytest.raises(InvalidRequestError) as caught:
        submitted(b"<html>" + b"x" * 5000, 400, content_type="text/html; charset=utf-8")
    assert "text/html" in str(caught.value)
    assert len(str(caught.value)) < 200


# --- poll ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("queued", Status.QUEUED),
        ("waiting", Status.QUEUED),
        ("active", Status.GENERATING),
        ("generating", Status.GENERATING),
        ("processing", Status.GENERATING),
        ("error", Status.FAILED),
        ("failed", Status.FAILED),
        ("Generating", Status.GENERATING),
        ("paused", Status.UNKNOWN),
    ],
)
def test_every_status_word_has_a_meaning(word, status):
    assert polled({"id": ID, "status": word}).status is status


@pytest.mark.parametrize("word", ["completed", "succeeded"])
@pytest.mark.parametrize("video", [{"url": URL}, [{"url": URL}], [{"url": URL}, {"url": "x"}]])
def test_a_finished_video_comes_as_object_or_array(word, video):
    generation = polled({"id": ID, "status": word, "video": video})
    assert generation.status is Status.COMPLETED
    assert generation.video.url == URL


def test_completed_with_a_placeholder_error_is_completed():
    body = {"status": "completed", "video": {"url": URL}, "error": {"name": "", "message": ""}}
    assert polled(body).status is Status.COMPLETED
    assert polled(body).error is None


@pytest.mark.parametrize("video", [None, [], {}, {"url": None}, {"url": ""}, "x", [None], 5])
def test_completed_without_a_video_is_asked_again(video):
    assert isinstance(polled({"status": "completed", "video": video}), Trouble)


def test_an_undocumented_status_is_pending_and_told():
    generation = polled({"status": "paused"})
    assert "paused" in protocol.odd_status(generation)
    assert protocol.odd_status(polled({"status": "queued"})) == ""


@pytest.mark.parametrize(
    "body", [{"status": "queued"}, {"status": "completed", "video": {"url": URL}}]
)
def test_a_reply_about_another_generation_is_trouble_and_never_taken_for_ours(body):
    for key in ("id", "generation_id"):
        answer = polled({key: "another", **body})
        assert isinstance(answer, Trouble)
        assert "another" in answer.reason


@pytest.mark.parametrize("named", [ID, ID.upper(), f"{ID}:klingai/v2", 0])
def test_the_same_id_in_another_spelling_is_ours_under_the_id_that_was_asked_for(named):
    asked = "4711" if named == 0 else ID
    body = {"id": named or 4711, "status": "queued"}
    answer = protocol.read_poll(Reply(200, {}, json.dumps(body).encode()), asked)
    assert answer.id == asked


def test_all_figures_of_all_eras_are_read():
    body = {
        "status": "completed",
        "video": {
            "url": URL,
            "content_type": "video/mp4",
            "file_name": "output.mp4",
            "file_size": 20235536,
        },
        "duration": 5.04,
        "model": "kling",
        "meta": {"usage": {"credits_used": 590100, "usd_spent": "0.295", "tokens_used": None}},
    }
    generation = polled(body)
    assert generation.video.file_size == 20235536
    assert generation.video.duration == 5.04
    assert generation.usage.to_json() == {"credits_used": 590100, "usd_spent": 0.295}
    assert generation.model == "kling"
    assert generation.video.expires_at.year == 2026


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ({"name": "Error", "message": "content violates the policy"}, "moderation", "policy"),
        (
            {
                "detail": [
                    {"msg": "Could not detect face in the image", "type": "face_detection_error"}
                ]
            },
            "input",
            "detect face",
        ),
        ("Internal server error", "provider", "Internal"),
        ({"name": "OutOfFunds", "message": "not enough credits"}, "credits", "credits"),
        ("it rained", "unknown", "rained"),
        (None, "unknown", "no reason"),
        ([], "unknown", "no reason"),
    ],
)
def test_a_failure_is_told_in_words_and_sorted(error, kind, words):
    failure = polled({"status": "error", "error": error}).error
    assert failure.kind == kind
    assert words in failure.message


@pytest.mark.parametrize("status", [404, 408, 425, 429, 500, 502, 503, 504, 524, 302, 307])
def test_a_poll_outlives_what_passes(status):
    assert isinstance(polled({"message": "x"}, status), Trouble)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, AuthenticationError), (403, AuthenticationError), (400, InvalidRequestError)],
)
def test_a_poll_that_can_never_succeed_ends_at_once_and_names_the_generation(status, error):
    with pytest.raises(error) as caught:
        polled({"message": "x"}, status)
    assert caught.value.generation_id == ID
    assert "client.wait(" in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"status": "gen', b"[]", b"3", b'"x"', b'{"id": "x"}', b"\xff\xfe"]
)
def test_an_unreadable_poll_is_asked_again(body):
    assert isinstance(polled(body), Trouble)


def test_the_reply_for_an_id_that_was_not_understood_is_the_callers_error():
    body = {"id": "", "status": "unknown", "error": {"name": "Error", "message": "task_id"}}
    with pytest.raises(GenerationNotFoundError):
        polled(body)


def test_an_oversized_body_is_not_parsed():
    huge = b'{"status": "completed", "x": "' + b"x" * payloads.MAX_BODY_BYTES + b'"}'
    assert isinstance(polled(huge), Trouble)


def test_a_signed_url_shows_in_no_repr_and_no_message():
    generation = polled({"status": "completed", "video": {"url": URL}})
    assert "s3cret" not in repr(generation)
    failed = polled({"status": "error", "error": f"could not fetch {URL} today"})
    assert "s3cret" not in failed.error.message


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["id", "status", "video", "url", "error", "meta", "usage", "detail", "message"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(body=_json, status=st.integers(100, 599))
def test_whatever_json_comes_only_a_klingerror_comes_out(body, status):
    raw = json.dumps(body).encode()
    _reads(Reply(status, {}, raw))


@given(raw=st.binary(max_size=200), status=st.integers(100, 599))
def test_whatever_bytes_come_only_a_klingerror_comes_out(raw, status):
    _reads(Reply(status, {"x-inference-id": "", "retry-after": "x"}, raw))


def _reads(outcome):
    for read in (protocol.read_submit, protocol.read_poll):
        try:
            answer = read(outcome, "kling-1")
        except KlingError as error:
            assert str(error)
        else:
            assert isinstance(answer, Generation | Trouble)
            assert isinstance(answer, Trouble) or answer.id
    try:
        protocol.read_service(outcome, "the balance")
    except KlingError as error:
        assert isinstance(error, ServerError) or str(error)


def test_deeply_nested_json_is_refused_without_a_crash():
    raw = b"[" * 100_000 + b"]" * 100_000
    assert isinstance(protocol.read_poll(Reply(200, {}, raw), ID), Trouble)
    nested = b'{"status": "error", "error": ' + b'{"message":' * 500 + b'"x"' + b"}" * 501
    assert protocol.read_poll(Reply(200, {}, nested), ID).status is Status.FAILED


def test_log_rows_pair_the_two_ids():
    row = {"client_request_id": "kling-1", "inference_id": ID, "status": "succeeded"}
    odd = {"client_request_id": "kling-2", "inference_id": "x\ny"}
    page = {"data": [row, {"x": 1}, None, odd, {**row, "status": "?"}]}
    assert protocol.read_logs(page) == [
        protocol.LogRow("kling-1", ID, True),
        protocol.LogRow("kling-1", ID, None),
    ]
    assert protocol.read_logs("nonsense") == []


# --- words of other gateways -------------------------------------------------------------------


@pytest.mark.parametrize("word", ["succeed", "Success", "done", "finished", "ready", None])
def test_a_video_that_is_there_is_taken_whatever_the_word(word):
    body = {"id": ID, "status": word, "video": {"url": URL}}
    generation = polled({k: v for k, v in body.items() if v is not None})
    assert generation.status is Status.COMPLETED
    assert generation.video.url == URL
    assert ("documented" in protocol.odd_status(generation)) == (word in ("finished", "ready"))


@pytest.mark.parametrize("word", ["aborted", "rejected", None])
@pytest.mark.parametrize("error", ["No face was found", {"message": "No face was found"}])
def test_an_error_beside_an_unknown_word_or_none_ends_the_wait(word, error):
    body = {"id": ID, "status": word, "error": error}
    generation = polled({k: v for k, v in body.items() if v is not None})
    assert generation.status is Status.FAILED
    assert generation.error.message == "No face was found"


@pytest.mark.parametrize("word", ["canceled", "cancelled", "expired"])
def test_what_was_given_up_at_the_gateway_has_failed_and_says_so(word):
    generation = polled({"id": ID, "status": word})
    assert generation.status is Status.FAILED
    assert word in generation.error.message


@pytest.mark.parametrize("error", [None, "", {}, {"message": ""}, {"name": None}, []])
def test_an_empty_place_for_an_error_is_none(error):
    assert polled({"id": ID, "status": "paused", "error": error}).status is Status.UNKNOWN


def test_a_reply_to_a_post_ends_nothing():
    body = {"id": ID, "status": "accepted", "video": {"url": URL}, "error": "x"}
    assert submitted(body).status is Status.UNKNOWN


@pytest.mark.parametrize("spent", [-0.7, float("-inf"), float("nan"), 1e999, "-1", "NaN", True, []])
def test_what_cannot_be_a_cost_is_an_unknown_cost_and_is_said(spent):
    body = {"id": ID, "status": "completed", "video": {"url": URL}}
    body["meta"] = {"usage": {"usd_spent": spent, "credits_used": 3}}
    with pytest.warns(KlingWarning, match="usd_spent"):
        usage = polled(body).usage
    assert usage.usd_spent is None
    assert usage.credits_used == 3


def test_a_video_may_cost_nothing():
    body = {"id": ID, "status": "completed", "video": {"url": URL}}
    assert polled({**body, "meta": {"usage": {"usd_spent": 0}}}).usage.usd_spent == 0
