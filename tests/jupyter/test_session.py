"""What an interrupt of a cell says, and that it is true."""

from __future__ import annotations

import _thread
import re
import threading

import pytest

from kling_integrations.core.errors import KlingError, StoppedWaiting
from kling_integrations.jupyter import session as session_module
from kling_integrations.jupyter import watcher as watcher_module
from kling_integrations.jupyter.session import current


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


def test_the_session_follows_another_home_and_a_ledger_that_is_moved_away(
    shell, sandbox, tmp_path, monkeypatch
):
    shell.run("%%kling -d 5 -o clip\nA cat")
    first, ledger = shell["clip"].id, current().ledger
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "other"))  # restored after the test
    shell.run(f"%env KLING_HOME={tmp_path / 'other'}")
    assert ledger.history() == []
    shell.run("%%kling -d 5 -o clip\nA cat")
    assert shell["clip"].id != first
    assert ledger.path == tmp_path / "other" / "ledger.sqlite3"
    assert [entry.generation_id for entry in ledger.history()] == [shell["clip"].id]
    (tmp_path / "other").rename(tmp_path / "away")
    shell.run("%kling history")
    shell.run("%%kling -d 5 -o third\nA cat")
    assert shell["third"].status == "completed"
    assert (tmp_path / "other").stat().st_mode & 0o077 == 0
    assert ledger.path.stat().st_mode & 0o077 == 0
    assert sandbox.paid == 3
    shell.run("%%kling -d 5 -o third\nA cat")
    shell.run(f"%env KLING_HOME={tmp_path / 'away'}")
    shell.run("%%kling -d 5 -o clip2\nA cat")
    assert shell["clip2"].id == shell["clip"].id
    assert sandbox.paid == 3


def test_a_home_that_changes_while_a_job_runs_loses_no_video(shell, sandbox, tmp_path, monkeypatch):
    sandbox.fault("poll", "odd-status", None, word="queued")
    shell.run("%%kling -d 5 --bg -f film.mp4 -o job\nA cat")
    assert shell["job"].wait_for_id(10)
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "other"))
    sandbox.clear_faults()
    assert shell["job"].result(20).path.is_file()
    assert shell["job"].result().prompt == "A cat"
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    shell.run("%%kling -d 5 -f film.mp4 -o clip\nA cat")
    assert (shell["clip"].id, sandbox.paid) == (shell["job"].id, 1)


async def _no_submit(*_: object, **__: object) -> None:
    raise KlingError("no submit here")


def _no_client(*_: object) -> None:
    raise KlingError("no client here")


@pytest.mark.parametrize("short", [True, False])
def test_verbose_tracebacks_hide_the_key(shell, sandbox, monkeypatch, short):
    shell.run(f"%config KlingMagics.short_errors = {short}")
    shell.run("%xmode Verbose")
    shell.run("from kling_integrations.jupyter import generate, submit")
    shell.run("from kling_integrations import KlingClient, VideoRequest")

    def fails(code: str) -> str:
        with pytest.raises(Exception, match=r"."):
            shell.run(code)
        text = re.sub(r"\x1b\[[0-9;]*m", "", shell.text)
        assert "sk-not-for-show" not in text.replace("KlingClient('sk-not-for-show'", "")
        return text

    with monkeypatch.context() as patch:
        patch.setenv("AIML_BASE_URL", "http://127.0.0.1:9/gateway")  # where the key would go
        patch.setattr(watcher_module.AsyncKlingClient, "submit_until", _no_submit)
        for code in ("submit('A cat').result()", "generate('A cat')", "%%kling\nA cat"):
            assert "no submit here" in fails(code)
        patch.setattr(watcher_module._Thread, "client", _no_client)
        text = fails("submit('A dog').result()")
        assert short or "key = <concealed>" in text
    sandbox.fault("submit", "drop-after")
    fails("generate('A cat')")
    fails("%kling show nothing-of-this-id")
    fails("client = KlingClient(); client.get('nothing-of-this-id')")
    fails("KlingClient('sk-not-for-show', base_url='http://example.com')")
    fails("%%kling -d 5\nA riot [fail:moderation]")
