"""`kling forget`, and generations that the gateway does not know any more."""

import sqlite3
import time

import pytest
from commands.conftest import CAT

from kling_integrations import KlingClient, VideoRequest


def lost(shell, sandbox, *ids, age=86_400.0):
    """Records of generations that this gateway never had."""
    for generation_id in ids:
        _, record = shell.ledger.claim(VideoRequest(prompt=generation_id), sandbox.base_url)
        shell.ledger.advance(record.submitted(generation_id))
    with sqlite3.connect(shell.ledger.path) as db:
        moment = time.time() - age
        db.execute("UPDATE submissions SET created_at = ?, submitted_at = ?", (moment, moment))


def test_ids_that_the_gateway_does_not_know_do_not_hold_up_a_wait(shell, sandbox):
    lost(shell, sandbox, *(f"lost-{number}" for number in range(5)))
    shell("generate", CAT, "--detach")
    before = sandbox.requests["poll"]
    waited = shell("wait", "--json", "-o", "films/")
    assert waited.code == 4
    kinds = [each.get("error", {}).get("type") for each in waited.json["generations"]]
    assert kinds == ["GenerationNotFoundError"] * 5 + [None]
    assert "kling forget lost-3" in waited.err
    assert len(list((shell.folder / "films").glob("*.mp4"))) == 1
    assert sandbox.requests["poll"] - before < 20
    began = sandbox.requests["poll"]
    only = shell("wait", "lost-1")
    assert (only.code, sandbox.requests["poll"] - began) == (4, 1)


def test_a_generation_that_was_submitted_just_now_is_given_time(shell, sandbox):
    lost(shell, sandbox, "lost-1", age=-60)  # 200 sandbox seconds pass in one
    waited = shell("wait", "lost-1", "--timeout", "100")
    assert waited.code == 3, waited
    assert "is not waited for" not in waited.err
    assert sandbox.requests["poll"] > 1


def test_what_is_forgotten_is_not_waited_for_any_more(shell, sandbox):
    lost(shell, sandbox, "lost-1", "lost-2")
    done = shell("forget", "lost-1", "--json")
    assert done.json["generation_id"] == "lost-1"
    assert "billed" in done.err
    assert "pays for another one" in done.err
    shell("forget", "lost-2")
    assert shell("forget", "lost-2").code == 0
    assert shell("wait").out == "Nothing is running.\n"
    assert "forgotten" in shell("history").out


def test_a_submission_in_doubt_is_given_up_knowingly(shell, sandbox):
    sandbox.fault("submit", "drop-before")
    assert shell("generate", CAT).code == 5
    looked = shell("recover")
    line = next(line for line in looked.out.splitlines() if "kling forget" in line)
    words = line.partition("kling ")[2].split()
    done = shell(*words)
    assert done.code == 0
    assert "may be for the second time" in done.err
    assert shell("recover").out == "Every submission from here has a known outcome.\n"
    assert shell("generate", CAT).code == 0
    assert sandbox.paid == 1


def test_what_is_finished_is_not_forgotten(shell, sandbox):
    generation_id = shell("generate", CAT, "--json").json["generation_id"]
    refused = shell("forget", generation_id)
    assert refused.code == 2
    assert "--new" in refused.err
    assert shell("generate", CAT).code == 0
    assert sandbox.paid == 1


def test_an_unknown_id_is_a_sentence(shell, sandbox):
    assert "no generation" in shell("forget", "nothing-like-it").err
    assert shell("forget", "nothing-like-it").code == 2


def test_what_is_being_submitted_right_now_is_not_forgotten(shell, sandbox):
    request = VideoRequest(prompt=CAT)
    lock = shell.ledger.lock(request)
    assert lock.try_acquire()
    _, record = shell.ledger.claim(request, sandbox.base_url)
    refused = shell("forget", record.client_request_id)
    assert (refused.code, "right now" in refused.err) == (2, True)
    lock.release()
    assert shell("forget", record.client_request_id).code == 0


@pytest.mark.parametrize("command", ["wait", "download"])
def test_an_id_that_was_not_written_down_unblocks_its_request(shell, sandbox, command):
    request = VideoRequest(prompt=CAT)
    _, record = shell.ledger.claim(request, sandbox.base_url)
    with KlingClient("sandbox", sandbox.base_url) as client:
        made = client.submit(request, client_request_id=record.client_request_id)
    assert shell("generate", CAT).code == 5
    sandbox.finish()
    fetched = shell(command, made.id)
    assert fetched.code == 0, fetched
    assert "without a known outcome" in fetched.err
    again = shell("generate", CAT)
    assert (again.code, again.out) == (0, fetched.out)
    assert (sandbox.paid, sandbox.requests["download"]) == (1, 1)


def test_an_id_of_elsewhere_is_attached_to_nothing(shell, sandbox):
    sandbox.fault("submit", "drop-before")
    assert shell("generate", CAT).code == 5
    with KlingClient("sandbox", sandbox.base_url) as client:
        made = client.submit(VideoRequest(prompt=CAT))
    sandbox.finish()
    assert shell("wait", made.id).code == 0
    assert shell("generate", CAT).code == 5
