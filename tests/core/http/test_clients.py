"""Both clients over real sockets: they carry bytes and neither lose nor repeat a payment."""

import asyncio
import contextlib
import json
import threading

import pytest
from support.raw_gateway import RawGateway, http

from kling_integrations import (
    AsyncKlingClient,
    AuthenticationError,
    InsufficientCreditsError,
    InvalidRequestError,
    KlingClient,
    KlingWarning,
    RateLimitedError,
    ServerError,
    Status,
    SubmissionUncertainError,
    VideoRequest,
    WaitTimeoutError,
)
from kling_integrations.core.waiting import Patience
from kling_integrations.sandbox import Sandbox

SEEDS = [
    dict(model="klingai/v2.5-turbo/pro/text-to-video", duration="5", cfg_scale=0.9),
    dict(
        model="klingai/v2.5-turbo/pro/image-to-video",
        image="https://example.com/mona-lisa.jpeg",
        duration="5",
    ),
    dict(model="klingai/v2-master-text-to-video", duration="5", aspect_ratio="16:9"),
    dict(model="klingai/video-v2-6-pro-text-to-video", duration="5", aspect_ratio="16:9"),
]


@pytest.mark.thorough
@pytest.mark.parametrize("legacy", [False, True], ids=["universal", "legacy"])
@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed["model"])
def test_each_documented_page_becomes_a_video_on_both_url_forms(
    front, sandbox, tmp_path, seed, legacy
):
    request = VideoRequest(prompt="A cheerful white raccoon", **seed)
    done = front.run(sandbox.base_url, "generate", request, legacy_endpoint=legacy)
    assert done.status is Status.COMPLETED
    path = front.run(sandbox.base_url, "download", done, tmp_path / "clip.mp4")
    assert path.read_bytes()[4:8] == b"ftyp"
    assert len(sandbox.posts) == 1
    assert sandbox.leaked_keys == 0


@pytest.mark.parametrize(
    "fault",
    ["drop-after", "500-after", "502-after", "504-after", "524-after", "cut-json", "html"]
    + ["empty", "garbage", "not-http", "no-id", "oversized", "bomb"],
)
def test_a_submit_in_doubt_is_posted_once_and_said_to_be_uncertain(front, sandbox, raccoon, fault):
    sandbox.fault("submit", fault, header=False) if "after" in fault and fault[0] == "5" else (
        sandbox.fault("submit", fault)
    )
    try:
        generation = front.run(sandbox.base_url, "submit", raccoon)
    except SubmissionUncertainError as error:
        assert error.client_request_id == sandbox.posts[0].client_request_id
    else:  # the reply was useless but its header named the generation
        assert generation.id in sandbox.jobs
    assert len(sandbox.posts) == sandbox.paid == 1


@pytest.mark.parametrize("fault", ["drop-before", "503", "hang"])
def test_a_submit_that_was_not_taken_but_might_have_been_is_not_repeated(
    front, sandbox, raccoon, fault
):
    sandbox.fault("submit", fault)
    with pytest.raises(SubmissionUncertainError):
        front.run(sandbox.base_url, "submit", raccoon, timeout=0.5)
    assert len(sandbox.posts) == 1


def test_a_server_error_that_names_the_generation_is_attached_to(front, sandbox, raccoon):
    sandbox.fault("submit", "500-after")
    assert front.run(sandbox.base_url, "generate", raccoon).status is Status.COMPLETED
    assert len(sandbox.posts) == 1


def test_429_is_safe_to_repeat(front, sandbox, raccoon):
    sandbox.fault("submit", "429", times=2)
    assert front.run(sandbox.base_url, "submit", raccoon).id in sandbox.jobs
    assert (len(sandbox.posts), sandbox.paid) == (3, 1)


def test_a_refused_connection_is_safe_to_repeat(front, sandbox, raccoon):
    sandbox.pause()
    timer = threading.Timer(0.2, sandbox.resume)
    timer.start()
    patience = Patience(connect=1e6, first=20, most=50)
    assert front.run(sandbox.base_url, "submit", raccoon, patience=patience).id in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_nobody_listening_ends_with_nothing_submitted(front, raccoon):
    gateway = RawGateway()
    gateway.close()
    with pytest.raises(ServerError, match="Nothing was submitted: connection refused"):
        front.run(gateway.base_url, "submit", raccoon, patience=Patience(connect=0.05, first=0.01))


def test_a_name_that_does_not_resolve_ends_with_nothing_submitted(front, raccoon):
    with pytest.raises(ServerError, match="Nothing was submitted"):
        front.run(
            "https://gateway.invalid",
            "submit",
            raccoon,
            patience=Patience(connect=0.05, first=0.01),
        )


def test_a_failed_tls_handshake_ends_with_nothing_submitted(front, gateway, raccoon):
    plain = gateway(*[b"HTTP/1.1 400 Bad Request\r\n\r\n"] * 20)
    url = plain.base_url.replace("http://", "https://")
    with pytest.raises(ServerError, match="Nothing was submitted: TLS failed"):
        front.run(url, "submit", raccoon, patience=Patience(connect=0.05, first=0.01))
    assert not any(b"POST" in heard for heard in plain.heard)


@pytest.mark.parametrize(
    ("key", "error"), [("bad", AuthenticationError), ("broke", InsufficientCreditsError)]
)
def test_a_refusal_is_told_and_not_repeated(front, sandbox, raccoon, key, error):
    with pytest.raises(error):
        front.run(sandbox.base_url, "submit", raccoon, api_key=key)
    assert len(sandbox.posts) == 1


def test_what_the_gateway_refuses_comes_with_its_hint(front, sandbox):
    request = VideoRequest(prompt="a", extra={"duration": 7})
    with pytest.raises(InvalidRequestError, match=r"(?i)duration"):
        front.run(sandbox.base_url, "submit", request)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "fault",
    ["500", "502", "503", "524", "429", "404", "drop-before", "cut-json", "cut", "html", "empty"]
    + ["garbage", "not-http", "odd-status", "oversized", "bomb", "wrong-type", "id-changes"]
    + ["no-id", "redirect"],
)
def test_three_bad_polls_of_any_kind_are_outlived(front, sandbox, raccoon, fault):
    options = {"retry_after": 1} if fault == "429" else {}
    sandbox.fault("poll", fault, times=3, **options)
    seen = []
    # Making a bomb takes the sandbox half a second, which is ten minutes at its speed.
    patience = Patience(outage=1e6, first=0.01, most=0.02)
    done = front.run(
        sandbox.base_url, "generate", raccoon, on_update=seen.append, patience=patience
    )
    assert done.status is Status.COMPLETED
    assert done.id in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_a_hanging_poll_is_given_up_and_asked_again(front, sandbox, raccoon):
    sandbox.fault("poll", "hang")
    done = front.run(sandbox.base_url, "generate", raccoon, timeout=0.3)
    assert done.status is Status.COMPLETED


def test_a_gateway_that_is_away_for_a_while_is_waited_for(front, raccoon):
    with Sandbox(speed=1000, seconds=100, size=(160, 90), fps=8) as sandbox:

        def away(progress):
            if progress.polls == 1 and not away.done:
                away.done = True
                sandbox.pause()
                threading.Timer(0.1, sandbox.resume).start()

        away.done = False
        done = front.run(
            sandbox.base_url,
            "generate",
            raccoon,
            on_update=away,
            patience=Patience(first=10, most=50),
        )
    assert done.status is Status.COMPLETED


def test_a_reply_in_another_habit_is_understood(front, gateway, raccoon):
    def said(body):
        return http("200 OK", json.dumps(body).encode(), Content_Type="text/plain")

    other = gateway(
        http("201 Created", b'{"generation_id": "-x:1/2", "status": "waiting"}'),
        said({"id": "other", "status": "active"}),
        said({"status": "succeeded", "video": [{"url": "https://cdn.example/v.mp4"}]}),
    )
    done = front.run(other.base_url, "generate", raccoon, poll_interval=0.01)
    assert (done.id, done.status) == ("-x:1/2", Status.COMPLETED)
    assert b"generation_id=-x%3A1%2F2 " in other.heard[1]


def test_an_odd_status_warns_once_and_goes_on(front, sandbox, raccoon):
    sandbox.fault("poll", "odd-status", times=3, word="paused")
    with pytest.warns(KlingWarning, match="paused") as seen:
        front.run(sandbox.base_url, "generate", raccoon)
    assert len([w for w in seen if issubclass(w.category, KlingWarning)]) == 1


def test_the_key_follows_no_redirect(front, gateway, raccoon):
    elsewhere = gateway(http("200 OK", b"{}"))
    first = gateway(
        http("307 Temporary Redirect", Location=elsewhere.base_url + "/v2/video/generations")
    )
    with pytest.raises(SubmissionUncertainError):
        front.run(first.base_url, "submit", raccoon)
    assert elsewhere.heard == []


def test_a_deadline_is_not_a_failure(front, raccoon):
    with Sandbox(speed=1000, seconds=float("inf"), size=(160, 90)) as sandbox:
        generation = front.run(sandbox.base_url, "submit", raccoon)
        with pytest.raises(WaitTimeoutError, match="goes on") as caught:
            # The verb's own timeout: gateway seconds.
            _wait(front, sandbox.base_url, generation.id, 50)
        assert caught.value.generation_id == generation.id
        sandbox.finish(generation.id)
        assert front.run(sandbox.base_url, "wait", generation.id).status is Status.COMPLETED


def _wait(front, base_url, generation_id, timeout):
    if front.kind == "sync":
        with KlingClient("sandbox", base_url) as client:
            return client.wait(generation_id, timeout=timeout)

    async def work():
        async with AsyncKlingClient("sandbox", base_url) as client:
            return await client.wait(generation_id, timeout=timeout)

    return asyncio.run(work())


def test_one_look_at_an_unknown_id_says_so(front, sandbox):
    from kling_integrations import GenerationNotFoundError

    with pytest.raises(GenerationNotFoundError):
        front.run(sandbox.base_url, "get", "789392067490349060")


def test_one_look_in_an_outage_says_how_to_look_again(front, sandbox, raccoon):
    generation = front.run(sandbox.base_url, "submit", raccoon)
    for fault, error in (("500", ServerError), ("429", RateLimitedError)):
        sandbox.fault("poll", fault)
        with pytest.raises(error, match=r"client\.get\("):
            front.run(sandbox.base_url, "get", generation.id)


def test_the_balance_is_free_to_ask(front, sandbox):
    assert front.run(sandbox.base_url, "balance")["currency"] == "USD"
    assert not sandbox.posts


def test_a_client_can_be_shared_by_threads_and_used_again_after_close(sandbox):
    with KlingClient("sandbox", sandbox.base_url) as client:
        done = []

        def work(number):
            done.append(client.generate(VideoRequest(prompt=f"clip {number}")))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
        done.append(client.generate(VideoRequest(prompt="once more")))
    assert len({generation.id for generation in done}) == 9 == len(sandbox.posts)


async def test_hundreds_wait_in_one_loop_over_few_connections(sandbox):
    async with AsyncKlingClient("sandbox", sandbox.base_url, connections=10) as client:
        requests = [VideoRequest(prompt=f"clip {n}") for n in range(200)]
        done = await asyncio.gather(*(client.generate(request) for request in requests))
    assert {generation.status for generation in done} == {Status.COMPLETED}
    assert len(sandbox.posts) == sandbox.paid == 200


async def test_a_cancelled_submit_lets_the_post_finish_and_logs_the_id(sandbox, raccoon, caplog):
    sandbox.fault("submit", "slow", seconds=0.2)
    async with AsyncKlingClient("sandbox", sandbox.base_url) as client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.submit(raccoon)
    [generation_id] = sandbox.jobs
    assert generation_id in caplog.text


def test_no_key_is_told_with_a_way_to_try_without(monkeypatch):
    for name in ("AIML_API_KEY", "AIMLAPI_API_KEY", "AIMLAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AuthenticationError, match="sandbox.Sandbox"):
        KlingClient()


def test_a_netrc_entry_never_replaces_the_key(front, sandbox, raccoon, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    front.run(sandbox.base_url, "submit", raccoon)
    assert sandbox.paid == 1  # the sandbox takes Bearer only


@pytest.mark.parametrize("status", [500, 502, 524])
def test_an_error_that_names_an_id_which_never_existed_is_uncertain(front, gateway, status):
    """Recorded as submitted it would end every later run in 404, and block the request."""
    named = http(f"{status} Error", b"{}", X_Inference_Id="ghost")
    other = gateway(named, *[http("404 Not Found", b'{"message": "no such id"}')] * 3)
    request = VideoRequest(prompt="a")
    with pytest.raises(SubmissionUncertainError, match="ghost"):
        front.run(other.base_url + "/sandbox/x1000", "submit", request)
    assert sum(heard.startswith(b"POST") for heard in other.heard) == 1


@pytest.mark.parametrize("odd", ["", "  ", "a\nb", "a\x1b[2J", "x" * 2000, "None\n"])
@pytest.mark.parametrize("verb", ["get", "wait", "download"])
def test_an_id_that_would_forge_a_line_or_is_none_is_refused(front, sandbox, tmp_path, verb, odd):
    more = [tmp_path / "a.mp4"] if verb == "download" else []
    if odd.strip() == "None":
        odd = "a\rb"
    with pytest.raises(InvalidRequestError, match="no generation id"):
        front.run(sandbox.base_url, verb, odd, *more)
    assert not sandbox.requests["poll"]


def test_a_callback_that_raises_does_not_take_the_id_with_it(front, sandbox, raccoon):
    def broken(progress):
        raise ZeroDivisionError("of the user")

    with pytest.raises(ZeroDivisionError) as caught:
        front.run(sandbox.base_url, "generate", raccoon, on_update=broken)
    [generation_id] = sandbox.jobs
    assert generation_id in "".join(caught.value.__notes__)


def test_an_encoding_that_was_not_asked_for_is_not_unpacked(front, gateway):
    import gzip

    packed = gzip.compress(b'{"id": "gen-1", "status": "queued"}')
    other = gateway(http("200 OK", packed, Content_Encoding="gzip"))
    with pytest.raises(SubmissionUncertainError):
        front.run(other.base_url, "submit", VideoRequest(prompt="a"))


def test_a_balance_beyond_all_numbers_is_unknown(front, gateway):
    other = gateway(http("200 OK", b'{"current_balance": 1e999, "currency": "USD"}'))
    assert front.run(other.base_url, "balance")["current_balance"] is None


def test_a_loop_that_ends_during_the_post_logs_how_to_look_it_up(sandbox, raccoon, caplog):
    sandbox.fault("submit", "hang-after")

    async def ends_early():
        client = AsyncKlingClient("sandbox", sandbox.base_url)
        submit = asyncio.ensure_future(client.submit(raccoon))
        while not sandbox.posts:
            await asyncio.sleep(0.01)
        assert not submit.done()

    asyncio.run(ends_early())
    [post] = sandbox.posts
    assert post.client_request_id in caplog.text


def test_a_proxy_that_refuses_the_tunnel_ends_with_nothing_submitted(
    front, gateway, raccoon, monkeypatch
):
    proxy = gateway(*[http("407 Proxy Authentication Required", b"")] * 20)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, proxy.base_url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ServerError, match="Nothing was submitted"):
        front.run(
            "https://gateway.example",
            "submit",
            raccoon,
            patience=Patience(connect=0.05, first=0.01),
        )
    assert proxy.heard
    assert all(heard.startswith(b"CONNECT gateway.example:443 ") for heard in proxy.heard)


def test_a_proxy_is_looked_up_for_each_call_and_not_once_per_process(
    front, gateway, raccoon, monkeypatch
):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for _ in range(2):
        proxy = gateway(*[http("407 Proxy Authentication Required", b"")] * 20)
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.base_url)
        with pytest.raises(ServerError):
            front.run(
                "https://gateway.example", "balance", patience=Patience(connect=0.05, first=0.01)
            )
        assert proxy.heard
