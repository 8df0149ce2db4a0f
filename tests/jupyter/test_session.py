"""What an interrupt of a cell says, and that it is true."""

from __future__ import annotations

import _thread
import threading

import pytest

from kling_integrations.core.errors import StoppedWaiting
from kling_integrations.jupyter import session as session_module


def interrupt_when(sandbox, condition) -> None:
    def press() -> None:
        sandbox.wait_for(condition)
        _thread.interrupt_main()

    threading.Thread(target=press).start()


def test_an_interrupt_in_the_post_waits_for_the_id(shell, sandbox):
    sandbox.fault("submit", "slow", seconds=0.5)
    interrupt_when(sandbox, lambda s: s.requests["submit"] == 1)
    with pytest.raises(StoppedWaiting) as caught:
        shell.run("%%kling -d 5 -o clip\nA cat")
    (generation,) = sandbox.jobs
    assert caught.value.generation_id == generation
    assert f"%kling wait {generation}" in shell.text
    assert shell["clip"].result(20).id == generation


def test_an_interrupt_in_a_post_without_a_reply_does_not_deny_it(shell, sandbox, monkeypatch):
    monkeypatch.setattr(session_module, "INTERRUPT_GRACE", 0.1)
    sandbox.fault("submit", "slow", seconds=1.5)
    interrupt_when(sandbox, lambda s: s.requests["submit"] == 1)
    with pytest.raises(StoppedWaiting) as caught:
        shell.run("%%kling -d 5 -o clip\nA cat")
    assert caught.value.generation_id is None
    assert caught.value.client_request_id in str(caught.value)
    assert "may have been accepted" in str(caught.value)
    assert "Run the cell again: what is paid for is picked up." in shell.text
    assert "%kling recover" in shell.text
    shell.run("%%kling -d 5 -o clip\nA cat")
    assert shell["clip"].status == "completed"
    assert sandbox.paid == 1


def test_an_interrupt_while_a_cell_waits_for_a_slot_submits_nothing_later(shell, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    shell.run("%config KlingMagics.at_once = 1")
    shell.run("%%kling -d 5 --bg -o first\nA cat")
    assert shell["first"].wait_for_id(10)
    threading.Timer(0.5, _thread.interrupt_main).start()
    with pytest.raises(StoppedWaiting, match="before anything was submitted"):
        shell.run("%%kling -d 5 -o second\nA dog")
    sandbox.clear_faults()
    shell["first"].result(20)
    assert [post.body["prompt"] for post in sandbox.posts] == ["A cat"]
