"""Ctrl-C, at the worst moments: nothing is lost and nothing is paid twice."""

import signal
import time

from commands.conftest import CAT, end_of


def until_posted(sandbox, count=1):
    """The POST is at the gateway, the client waits for the reply."""
    sandbox.wait_for(lambda running: len(running.posts) == count, timeout=30)


def read_until(process, words):
    """Reads the notes of the command up to the line with these words."""
    read = ""
    while words not in read:
        line = process.stderr.readline()
        assert line, read
        read += line
    return read


def test_an_interrupt_during_the_post_keeps_the_generation_id(shell_on, endless):
    shell = shell_on(endless)
    endless.fault("submit", "slow", seconds=1.5)
    process = shell.start("generate", CAT)
    until_posted(endless)
    done = end_of(process, interrupt=True)
    [generation_id] = endless.jobs
    assert done.code == 3, done
    assert f"kling wait {generation_id}" in done.err
    endless.finish()
    assert shell("generate", CAT).path.exists()
    assert (len(endless.posts), endless.paid) == (1, 1)


def test_an_interrupt_of_a_post_is_answered_with_why_it_takes_a_moment(shell_on, endless):
    endless.fault("submit", "slow", seconds=2)
    process = shell_on(endless).start("generate", CAT, "--json")
    until_posted(endless)
    process.send_signal(signal.SIGINT)
    read_until(process, "waiting up to")
    done = end_of(process)
    assert (done.code, done.json["generation_id"]) == (3, next(iter(endless.jobs)))


def test_a_second_interrupt_leaves_at_once_and_the_next_try_is_stopped(shell_on, endless):
    shell = shell_on(endless)
    endless.fault("submit", "hang-after")
    process = shell.start("generate", CAT)
    until_posted(endless)
    process.send_signal(signal.SIGINT)
    read_until(process, "waiting up to")
    began = time.monotonic()
    done = end_of(process, interrupt=True)
    assert time.monotonic() - began < 8  # the first one would have waited for ten seconds
    assert done.code == 5, done
    assert "kling recover" in done.err
    assert shell("generate", CAT).code == 5
    endless.finish()
    assert shell("recover").code == 0
    assert shell("generate", CAT).path.exists()
    assert (len(endless.posts), endless.paid) == (1, 1)


def test_an_interrupt_while_waiting_leaves_it_running_and_says_how_to_come_back(shell_on, endless):
    shell = shell_on(endless)
    process = shell.start("generate", CAT, "-o", "cat.mp4")
    endless.wait_for(lambda running: running.requests["poll"] >= 1, timeout=30)
    done = end_of(process, interrupt=True)
    [generation_id] = endless.jobs
    assert done.code == 3, done
    assert f"kling wait --out cat.mp4 {generation_id}" in done.err
    assert "no cancel" in done.err
    endless.finish()
    waited = shell("wait", "--out", "cat.mp4", generation_id)
    assert waited.path == shell.folder / "cat.mp4"
    assert endless.paid == 1


def test_an_interrupt_while_another_process_submits_the_same_pays_nothing(shell_on, endless):
    shell = shell_on(endless)
    endless.fault("submit", "slow", seconds=3)
    first = shell.start("generate", CAT, "--detach")
    until_posted(endless)
    second = shell.start("generate", CAT)
    read_until(second, CAT)  # its headline; what follows is the lock that the first one holds
    done = end_of(second, interrupt=True)
    assert done.code in (3, 130), done
    assert end_of(first).code == 3
    assert endless.paid == 1


def test_a_killed_command_has_its_generation_picked_up_by_the_next(shell_on, endless):
    shell = shell_on(endless)
    process = shell.start("generate", CAT)
    endless.wait_for(lambda running: running.requests["poll"] >= 1, timeout=30)
    process.kill()
    process.communicate(timeout=30)
    endless.finish()
    assert shell("generate", CAT).path.exists()
    assert endless.paid == 1
