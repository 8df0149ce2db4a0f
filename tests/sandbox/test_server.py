"""A sandbox from its start to its stop: addresses, pauses, waiting, options."""

import socket
import threading
import time

import pytest
import requests
from support.outcomes import outcome

from kling_integrations.sandbox import Sandbox


def test_every_reply_is_marked_as_the_sandboxs(caller):
    assert caller.post().headers["x-kling-sandbox"] == "1"
    assert "SANDBOX" in caller.get("/").text
    assert "/sandbox/x60" in caller.sandbox.base_url


def test_another_path_is_404_and_names_the_base_url(caller):
    reply = requests.get(f"{caller.sandbox.origin}/v2/billing", timeout=10)
    assert reply.status_code == 404
    assert caller.sandbox.base_url in reply.json()["message"]


def test_the_speed_is_part_of_the_base_url():
    for speed, text in ((60, "x60"), (0.5, "x0.5"), (1000.0, "x1000"), (1e6, "x1000000")):
        with Sandbox(speed) as sandbox:
            assert sandbox.base_url == f"{sandbox.origin}/sandbox/{text}"
            assert requests.get(sandbox.base_url, timeout=5).ok


def test_the_client_reads_the_same_speed_from_the_url():
    from kling_integrations.core.settings import clock_for, is_sandbox

    with Sandbox(0.25) as sandbox:
        assert clock_for(sandbox.base_url).speed == sandbox.speed == 0.25
        assert is_sandbox(sandbox.base_url)


def test_finish_ends_a_job_now_with_success_or_failure(caller):
    good, bad = caller.submit(), caller.submit()
    assert caller.poll(good).json()["status"] == "queued"
    caller.sandbox.finish(good)
    caller.sandbox.finish(bad, fail="provider")
    assert caller.poll(good).json()["status"] == "completed"
    assert caller.poll(bad).json()["status"] == "error"
    with pytest.raises(ValueError, match="unknown failure"):
        caller.sandbox.finish(fail="boredom")


def test_wait_for_wakes_on_the_event_and_its_timeout_names_the_requests_so_far(caller):
    thread = threading.Timer(0.05, caller.post)
    thread.start()
    post = caller.sandbox.wait_for(lambda sandbox: sandbox.posts)[0]
    assert post.path.endswith("/v2/video/generations")
    thread.join()
    with pytest.raises(TimeoutError, match="'submit': 1"):
        caller.sandbox.wait_for(lambda sandbox: sandbox.paid == 2, timeout=0.05)


def test_connections_are_counted(caller):
    for _ in range(3):
        caller.get("/")
    assert caller.sandbox.connections == 1
    requests.get(caller.sandbox.base_url, timeout=5)
    assert caller.sandbox.connections == 2


def test_a_paused_sandbox_refuses_and_a_resumed_one_knows_its_jobs(caller):
    id = caller.submit()
    caller.sandbox.pause()
    for _ in range(2):  # the open connection is gone, and a new one is refused
        with pytest.raises(requests.ConnectionError):
            caller.poll(id)
    caller.sandbox.pause()  # twice is harmless
    caller.sandbox.resume()
    caller.sandbox.resume()
    assert caller.poll(id).json()["id"] == id


def test_no_other_process_gets_the_port_while_the_sandbox_pauses(make):
    with make() as caller:  # no connection yet whose remains would hold the port
        caller.sandbox.pause()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", caller.sandbox.port))


def test_a_pause_breaks_the_connections_that_wait_for_a_reply(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "hang")
    broken = []

    def ask():
        try:
            caller.poll(id)
        except requests.ConnectionError as error:
            broken.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    caller.sandbox.wait_for(lambda sandbox: sandbox.requests["poll"])
    caller.sandbox.pause()
    thread.join(5)
    assert broken
    caller.sandbox.resume()


def test_a_taken_port_is_an_error_at_the_start(caller):
    with pytest.raises(OSError, match="in use"):
        Sandbox(port=caller.sandbox.port).start()


def test_a_stopped_sandbox_keeps_its_records_and_stops_again_harmlessly(make):
    with make() as caller:
        caller.submit()
    assert caller.sandbox.paid == 1
    caller.sandbox.stop()
    with pytest.raises(RuntimeError, match="started before"):
        caller.sandbox.start()


def test_wrong_options_are_refused_in_a_sentence():
    for options, words in (
        ({"speed": 0}, "speed is between"),
        ({"fail": "boredom"}, "unknown failure 'boredom': one of moderation"),
        ({"era": "1999"}, "unknown era '1999': one of 2025"),
        ({"faults": ["poll:nonsense"]}, "unknown fault 'nonsense'"),
    ):
        with pytest.raises(ValueError, match=words):
            Sandbox(**options)


def test_a_sandbox_with_a_hanging_reply_closes_at_once(make):
    with make(faults=["submit:hang-after"]) as caller:
        thread = threading.Thread(target=lambda: outcome(caller.post))
        thread.start()
        caller.sandbox.wait_for(lambda sandbox: sandbox.paid)
        before = time.monotonic()
    assert time.monotonic() - before < 3
    thread.join()
