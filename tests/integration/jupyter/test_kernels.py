"""In real kernels: interrupts, a killed kernel, completion."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.notebooks import kernel_environment

from kling_integrations.sandbox import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CELL = "%%kling -d 5 -o clip\nA cat on a roof"


class Kernel:
    """A kernel and what its cells gave."""

    def __init__(self, folder: Path, base_url: str) -> None:
        from jupyter_client.manager import KernelManager

        self.manager = KernelManager(kernel_name="python3")
        env = kernel_environment(folder, base_url)
        os.environ["JUPYTER_RUNTIME_DIR"] = env["JUPYTER_RUNTIME_DIR"]
        self.manager.start_kernel(cwd=str(folder), env=env)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(60)
        self.run("%load_ext kling_integrations")

    def start(self, code: str) -> str:
        return str(self.client.execute(code))

    def finish(self, message: str) -> list[dict[str, Any]]:
        """Its outputs, once it is over."""
        outputs = []
        while True:
            answer = self.client.get_iopub_msg(timeout=60)
            if answer["parent_header"].get("msg_id") != message:
                continue
            kind, content = answer["msg_type"], answer["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return outputs
            outputs.append({"type": kind, **content})

    def run(self, code: str) -> list[dict[str, Any]]:
        return self.finish(self.start(code))

    def value(self, expression: str) -> str:
        """The text of an expression's value."""
        for output in self.run(expression):
            if output["type"] == "execute_result":
                return str(output["data"]["text/plain"])
        raise AssertionError(f"{expression} gave nothing")

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def kill(self) -> None:
        self.manager.provisioner.process.send_signal(signal.SIGKILL)
        self.manager.provisioner.process.wait()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def slow_sandbox() -> Iterator[Sandbox]:
    """Jobs that run until the test ends them."""
    with Sandbox(speed=100, seconds=float("inf"), size=(160, 90), fps=8) as running:
        yield running


@pytest.fixture
def kernels(tmp_path: Path, slow_sandbox: Sandbox, monkeypatch) -> Iterator[Any]:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    made: list[Kernel] = []

    def make() -> Kernel:
        made.append(Kernel(tmp_path, slow_sandbox.base_url))
        return made[-1]

    yield make
    for kernel in made:
        kernel.close()


def error_of(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    (error,) = [output for output in outputs if output["type"] == "error"]
    return error


def test_an_interrupt_during_the_post_keeps_the_generation_id(kernels, slow_sandbox):
    slow_sandbox.fault("submit", "slow", seconds=1.0)
    kernel = kernels()
    running = kernel.start(CELL)
    slow_sandbox.wait_for(lambda s: s.requests["submit"] == 1, 30)
    kernel.interrupt()  # the reply is still a second away
    outputs = kernel.finish(running)
    (job,) = slow_sandbox.jobs
    error = error_of(outputs)
    assert error["ename"] == "StoppedWaiting"
    assert job in error["evalue"]
    assert len(error["traceback"]) == 2  # what happened, and the way back
    assert kernel.value("clip.id") == repr(job)
    slow_sandbox.finish()
    assert "completed" in kernel.value("clip.result().status")
    kernel.run(CELL)
    assert slow_sandbox.paid == 1


def test_an_interrupt_while_waiting_is_a_real_error_and_the_watcher_goes_on(kernels, slow_sandbox):
    kernel = kernels()
    running = kernel.start(CELL)
    slow_sandbox.wait_for(lambda s: s.requests["poll"] >= 1, 30)
    kernel.interrupt()
    assert error_of(kernel.finish(running))["ename"] == "StoppedWaiting"
    reply = kernel.client.get_shell_msg(timeout=30)
    while reply["parent_header"].get("msg_id") != running:
        reply = kernel.client.get_shell_msg(timeout=30)
    assert reply["content"]["status"] == "error"  # which is what stops Run All
    slow_sandbox.finish()
    assert "KlingVideo" in kernel.value("clip.result()")
    assert slow_sandbox.paid == 1


def test_a_killed_kernel_attaches_to_what_it_paid_for(kernels, slow_sandbox):
    kernel = kernels()
    kernel.start(CELL)
    slow_sandbox.wait_for(lambda s: s.requests["poll"] >= 1, 30)
    kernel.kill()
    again = kernels()
    running = again.start(CELL)
    slow_sandbox.finish()
    outputs = again.finish(running)
    assert not [output for output in outputs if output["type"] == "error"]
    assert again.value("clip.id") == repr(next(iter(slow_sandbox.jobs)))
    assert slow_sandbox.paid == 1


def test_a_kernel_killed_in_the_post_does_not_pay_in_silence(kernels, slow_sandbox):
    slow_sandbox.fault("submit", "slow", seconds=30)
    kernel = kernels()
    kernel.start(CELL)
    slow_sandbox.wait_for(lambda s: s.requests["submit"] == 1, 30)
    kernel.kill()
    again = kernels()
    error = error_of(again.run(CELL))
    assert error["ename"] == "SubmissionUncertainError"
    assert "%kling recover" in error["evalue"] or "%kling recover" in "".join(error["traceback"])
    assert slow_sandbox.requests["submit"] == 1


def test_a_kernel_that_is_shut_down_in_the_post_writes_the_id_down(kernels, slow_sandbox, tmp_path):
    slow_sandbox.fault("submit", "slow", seconds=0.7)
    kernel = kernels()
    kernel.start("%%kling --bg\nA cat on a roof")
    slow_sandbox.wait_for(lambda s: s.requests["submit"] == 1, 30)
    kernel.manager.shutdown_kernel()
    with sqlite3.connect(tmp_path / "home" / "ledger.sqlite3") as ledger:
        rows = ledger.execute("SELECT state, generation_id FROM submissions").fetchall()
    assert rows == [("submitted", next(iter(slow_sandbox.jobs)))]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("%%kling v2.5-turbo-p", "v2.5-turbo-pro"),
        ("%%kling --asp", "--aspect-ratio"),
        ("%%kling v2.5-turbo-pro --duration ", "10"),
        ("x = %kling hist", "history"),
        ("%kling show l", "last"),
        ("%%kling --image pic", "picture"),
    ],
)
def test_completion_knows_flags_models_values_commands_and_variables(completing, line, word):
    answer = completing.client.complete(line, len(line), reply=True, timeout=20)["content"]
    begin, end = answer["cursor_start"], answer["cursor_end"]
    whole = [line[:begin] + match + line[end:] for match in answer["matches"]]
    assert any(text.split()[-1] == word for text in whole), whole
    assert all("kling" in text for text in whole)


@pytest.fixture(scope="module")
def completing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("completion")
    kernel = Kernel(folder, "http://127.0.0.1:9/sandbox/x1")
    kernel.run("picture = b'png'")
    yield kernel
    kernel.close()


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_twenty_kernels_killed_at_random_moments_pay_for_each_video_once(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    dice = random.Random(20)
    ends = dict.fromkeys(("done", "uncertain"), 0)
    with Sandbox(speed=100, seconds=100, size=(160, 90), fps=8) as gateway:
        gateway.fault("submit", "slow", times=None, seconds=0.4)  # so that kills hit POSTs too
        for number in range(20):
            prompt = f"Cat number {number} on a roof"
            cell = f"%%kling -d 5 -o clip\n{prompt}"
            victim = Kernel(tmp_path, gateway.base_url)
            victim.start(cell)
            time.sleep(dice.uniform(0.0, 2.0))  # the moment of the kill, not a wait for anything
            victim.kill()
            victim.close()
            heir = Kernel(tmp_path, gateway.base_url)
            errors = [output for output in heir.run(cell) if output["type"] == "error"]
            posts = sum(post.body["prompt"] == prompt for post in gateway.posts)
            if errors:
                assert errors[0]["ename"] == "SubmissionUncertainError"
                assert posts <= 1
                ends["uncertain"] += 1
            else:
                assert posts == 1
                assert heir.value("str(clip.status)") == "'completed'"
                ends["done"] += 1
            heir.close()
    print(f"20 kernels killed, each video paid for once at most: {ends}")
    assert ends["done"] >= 10


def final_displays(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The data of a cell's outputs as they stand at its end, updates applied."""
    shown: dict[str, dict[str, Any]] = {}
    for number, output in enumerate(outputs):
        if "data" in output:
            name = output.get("transient", {}).get("display_id") or f"output {number}"
            shown[name] = output["data"]
    return list(shown.values())


def players(outputs: list[dict[str, Any]]) -> int:
    return sum("<video" in data.get("text/html", "") for data in final_displays(outputs))


def test_a_cell_that_extends_shows_the_video_once(kernels, slow_sandbox):
    kernel = kernels()
    for number, code in enumerate((CELL, "more = clip.extend('It jumps')\nmore"), 1):
        running = kernel.start(code)
        slow_sandbox.wait_for(lambda s, n=number: len(s.jobs) == n, 30)
        slow_sandbox.finish()
        outputs = kernel.finish(running)
        assert players(outputs) == 1
    assert not [output for output in outputs if output["type"] == "execute_result"]
    again = kernel.run("more")
    assert "<video" in final_displays(again)[0]["text/html"]
    again = kernel.run("clip.extend('It jumps')")
    assert players(again) == 1
    assert slow_sandbox.paid == 2


def test_a_refused_request_is_one_message(kernels, slow_sandbox):
    kernel = kernels()
    for code in (
        "%%kling v2.5-turbo-prx -d 5\nA cat",
        "from kling_integrations.jupyter import *\ngenerate('A cat', model='v2.5-turbo-prx')",
    ):
        outputs = kernel.run(code)
        error = error_of(outputs)
        assert error["ename"] == "InvalidRequestError"
        assert "Did you mean v2.5-turbo-pro" in "".join(error["traceback"])
        assert "✖" not in str(final_displays(outputs))
        assert not [out for out in outputs if out.get("name") == "stderr"]
    assert slow_sandbox.paid == 0


def test_verbose_tracebacks_of_a_kernel_hide_the_key(kernels, slow_sandbox):
    kernel = kernels()
    kernel.run("%config KlingMagics.short_errors = False")
    kernel.run("%xmode Verbose")
    key = "0123456789abcdef0123456789abcdef"
    # A gateway of this machine that is no sandbox gets the key, and refuses it.
    kernel.run(f"%env AIML_API_KEY={key}")
    kernel.run(f"%env AIML_BASE_URL={slow_sandbox.base_url.replace('/sandbox', '/elsewhere')}")
    for code in (CELL, "%kling show an-id", "%kling balance"):
        error = error_of(kernel.run(code))
        assert "Traceback" in "".join(error["traceback"])
        assert key not in str(error)
