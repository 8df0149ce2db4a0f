"""The watcher's thread: no job that hangs, no payment that is denied, whatever comes in between."""

from __future__ import annotations

import linecache
import sys
import threading
from pathlib import Path

import pytest
from support.notebooks import until

import kling_integrations.jupyter
from kling_integrations.core.errors import (
    KlingError,
    StoppedWaiting,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from kling_integrations.jupyter import watcher as watcher_module
from kling_integrations.jupyter.session import current

HERE = Path(kling_integrations.jupyter.__file__).parent
INTERRUPTED_FILES = {str(HERE / f"{name}.py") for name in ("session", "watcher", "job")}


def posts_of(sandbox, prompt: str) -> int:
    return sum(post.body["prompt"] == prompt for post in sandbox.posts)


def test_a_thread_that_cannot_be_started_leaves_no_job_behind(shell, sandbox, monkeypatch):
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "kling-watcher":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(KlingError, match="can't start new thread. Nothing was submitted"):
        shell.run("%%kling -d 5 -o clip\nA cat")
    assert current().watcher.jobs == []
    monkeypatch.undo()
    sandbox_settings(monkeypatch, sandbox, shell)
    shell.run("%%kling -d 5 -o clip\nA cat")
    assert shell["clip"].status == "completed"
    assert sandbox.paid == 1


def sandbox_settings(monkeypatch, sandbox, shell) -> None:
    """``monkeypatch.undo`` takes the environment of the fixtures away, too."""
    monkeypatch.setenv("AIML_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("AIML_API_KEY", "sk-not-for-show")
    monkeypatch.setenv("KLING_HOME", str(current().ledger.path.parent))


class InterruptAtLine:
    """Raises KeyboardInterrupt at the n-th line that the main thread runs in the modules that
    start, register and stop jobs; a real signal arrives between two such steps, too.

    But not at the line of a ``with``: that is run again after its body, and between the body and
    the release of a lock the interpreter looks for no signal.
    """

    def __init__(self, number: int) -> None:
        self.left = number

    def __enter__(self) -> InterruptAtLine:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame, event, _):
        if frame.f_code.co_filename not in INTERRUPTED_FILES:
            return None
        if event == "line" and not _line_of(frame).startswith("with "):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


def _line_of(frame) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()


@pytest.mark.slow  # some 200 cells
@pytest.mark.parametrize("fresh", [False, True], ids=["warm session", "fresh session"])
def test_an_interrupt_at_any_line_leaves_no_zombie_and_never_denies_a_post(shell, sandbox, fresh):
    denied, number, ended_early = [], 0, False
    while not ended_early:
        number += 1
        prompt = f"Cat number {number}"
        cell = f"%%kling -d 5 -o clip\n{prompt}"
        if fresh:
            shell.run("%unload_ext kling_integrations")
            shell.run("%load_ext kling_integrations")
        with InterruptAtLine(number) as interrupt:
            try:
                shell.run(cell)
                ended_early = interrupt.left > 0  # there are no more lines to interrupt at
            except StoppedWaiting as stopped:
                if "before anything was submitted" in str(stopped):
                    denied.append((prompt, posts_of(sandbox, prompt)))
            except KeyboardInterrupt:
                pass  # outside of all claims
        done = threading.Event()
        watchdog = threading.Timer(15, lambda d=done: None if d.is_set() else _interrupt_main())
        watchdog.start()
        try:
            shell.run(cell)
        finally:
            done.set()
            watchdog.cancel()
        assert shell["clip"].status == "completed"
        assert posts_of(sandbox, prompt) == 1, f"interrupted at line {number}"
    assert number > 40
    assert not [(prompt, posts) for prompt, posts in denied if posts]


def _interrupt_main() -> None:
    import _thread

    _thread.interrupt_main()


def test_unloading_in_the_middle_of_a_post_does_not_deny_it(shell, sandbox, monkeypatch):
    monkeypatch.setattr(watcher_module, "_SHUTDOWN_GRACE", 0.2)
    sandbox.fault("submit", "slow", seconds=2.0)
    shell.run("%%kling -d 5 --bg -o job\nA cat")
    sandbox.wait_for(lambda s: s.requests["submit"] == 1, 10)
    shell.run("%unload_ext kling_integrations")
    job = shell["job"]
    assert job.done()
    assert job.status == "stopped"
    with pytest.raises(SubmissionUncertainError, match="may have been accepted") as caught:
        job.result()
    assert caught.value.client_request_id
    assert caught.value.client_request_id in str(caught.value)
    shell.run("%load_ext kling_integrations")
    with pytest.raises(SubmissionUncertainError):
        shell.run("%%kling -d 5 -o clip\nA cat")
    assert sandbox.requests["submit"] == 1


def test_unloading_waits_a_moment_for_the_id_of_a_post(shell, sandbox):
    sandbox.fault("submit", "slow", seconds=0.4)
    shell.run("%%kling -d 5 --bg -o job\nA cat")
    sandbox.wait_for(lambda s: s.requests["submit"] == 1, 10)
    shell.run("%unload_ext kling_integrations")
    job = shell["job"]
    assert job.id == next(iter(sandbox.jobs))
    if job.error is not None:  # else the video was quicker than the end
        with pytest.raises(WaitTimeoutError, match="goes on"):
            job.result()


def test_a_job_that_waits_for_a_slot_can_be_stopped_and_is_never_submitted(shell, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    shell.run("%config KlingMagics.at_once = 1")
    shell.run("%%kling -d 5 --bg -o first\nA cat")
    assert shell["first"].wait_for_id(10)
    shell.run("%%kling -d 5 --bg -o second\nA dog")
    second = shell["second"]
    assert second.status == "waiting for a slot"
    second.stop_waiting()
    with pytest.raises(WaitTimeoutError, match="before anything was submitted"):
        second.result(10)
    assert posts_of(sandbox, "A dog") == 0
    sandbox.clear_faults()
    shell.run("%%kling -d 5 -o second\nA dog")
    assert shell["second"].status == "completed"


def test_downloads_that_fill_their_pool_delay_no_look_at_the_records(shell, sandbox):
    shell.run("%%kling -d 5 -q\nA cat")
    release = threading.Event()
    pool = current().watcher._thread._downloads
    stuck = [pool.submit(release.wait, 20) for _ in range(8)]
    try:
        shell.run("%%kling -d 5 --bg -o job\nA dog")
        until(lambda: shell["job"].status != "waiting for a slot", 5)
    finally:
        release.set()
    assert all(each.result() for each in stuck)
    assert shell["job"].result(20).status == "completed"


def test_a_job_never_outlives_its_thread(shell, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    shell.run("%%kling -d 5 --bg -o job\nA cat")
    assert shell["job"].wait_for_id(10)
    thread = current().watcher._thread
    thread.loop.call_soon_threadsafe(thread.loop.stop)  # as after a fork: jobs, and no thread
    until(lambda: not thread.is_alive(), 5)
    sandbox.clear_faults()
    shell.run("%%kling -d 5 -o clip\nA cat")
    assert shell["clip"].id == shell["job"].id
    with pytest.raises(WaitTimeoutError, match="goes on"):
        shell["job"].result(1)
    assert sandbox.paid == 1
    thread.loop.run_until_complete(thread._shut_down())  # else its tasks complain at the end
