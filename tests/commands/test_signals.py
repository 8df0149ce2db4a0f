"""SIGTERM and a terminal that goes away: what is paid for goes on, or is named."""

import json
import os
import pty
import signal
import subprocess

import pytest
from commands.conftest import CAT, end_of
from commands.test_interrupts import until_posted

from kling_integrations.sandbox import Sandbox


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_during_a_wait_names_what_runs_and_the_way_back(shell_on, endless, number, code):
    shell = shell_on(endless)
    process = shell.start("generate", CAT, "-o", "cat.mp4", "--json")
    endless.wait_for(lambda running: running.requests["poll"] >= 1, timeout=30)
    process.send_signal(number)
    done = end_of(process)
    [generation_id] = endless.jobs
    assert done.code == code, done
    assert f"kling wait --out cat.mp4 {generation_id}" in done.err
    assert (done.json["generation_id"], done.json["exit_code"]) == (generation_id, code)
    assert done.json["status"] == "running"
    endless.finish()
    assert shell("generate", CAT, "-o", "cat.mp4").path.exists()
    assert endless.paid == 1


def test_a_signal_during_the_post_keeps_the_generation_id(shell_on, endless):
    endless.fault("submit", "slow", seconds=1.5)
    process = shell_on(endless).start("generate", CAT)
    until_posted(endless)
    process.send_signal(signal.SIGTERM)
    done = end_of(process)
    [generation_id] = endless.jobs
    assert done.code == 143, done
    assert f"kling wait {generation_id}" in done.err


def test_a_signal_during_a_download_leaves_no_part(shell, sandbox):
    sandbox.fault("download", "slow", seconds=30)
    process = shell.start("generate", CAT, "-o", "cat.mp4")
    sandbox.wait_for(lambda running: running.requests["download"] >= 1, timeout=30)
    process.send_signal(signal.SIGTERM)
    done = end_of(process)
    assert done.code == 143, done
    assert "kling download --out cat.mp4" in done.err
    assert [file.name for file in shell.folder.iterdir() if file.name != "home"] == []


def test_a_command_under_nohup_stays_deaf_to_its_terminal(shell, sandbox):
    process = subprocess.Popen(
        shell.line("generate", CAT, "-o", "cat.mp4"), cwd=shell.folder, env=shell.env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    sandbox.wait_for(lambda running: running.requests["poll"] >= 1, timeout=30)
    process.send_signal(signal.SIGHUP)
    assert end_of(process).code == 0


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_stderr_on_a_full_disk_does_not_end_a_wait(shell, sandbox, buffered, words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            shell.line("generate", CAT, "-o", "cat.mp4", *words), cwd=shell.folder,
            env=shell.env | {"PYTHONUNBUFFERED": buffered}, stdout=subprocess.PIPE, stderr=full,
            timeout=60,
        )  # fmt: skip
    assert done.returncode == 0
    assert (shell.folder / "cat.mp4").exists()
    assert b"cat.mp4" in done.stdout
    if words:
        assert json.loads(done.stdout)["status"] == "completed"


def test_a_stderr_on_a_full_disk_changes_no_exit_code(shell_on, endless):
    shell = shell_on(endless)
    for words, code in (
        (["generate", CAT, "--timeout", "5"], 3),
        (["generate", CAT, "-d", "7"], 2),
        (["wait", "--debug", "no-such-id", "--timeout", "5"], 3),
        (["-h"], 0),
    ):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                shell.line(*words), cwd=shell.folder, env=shell.env, stderr=full,
                stdout=subprocess.DEVNULL, timeout=60,
            )  # fmt: skip
        assert done.returncode == code, words


def test_a_terminal_that_is_closed_does_not_end_a_wait(shell_on, endless: Sandbox):
    shell = shell_on(endless)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        shell.line("generate", CAT, "-o", "cat.mp4"), cwd=shell.folder,
        env=shell.env | {"TERM": "xterm-256color"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    endless.wait_for(lambda running: running.requests["poll"] >= 1, timeout=30)
    os.close(ours)  # from here on each write to it is an error
    endless.wait_for(lambda running: running.requests["poll"] >= 5, timeout=30)
    endless.finish()
    assert process.wait(60) == 0
    assert (shell.folder / "cat.mp4").exists()
