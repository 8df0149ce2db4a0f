"""The file of --out: one run at a time, nothing of the user's own is replaced unasked."""

import os
import socket

import pytest
from commands.conftest import CAT, end_of

PROMPTS = ("A cat", "A dog", "A fish", "A bird")


def test_four_runs_for_one_file_pay_once(shell_on, endless):
    shell = shell_on(endless)
    runs = [shell.start("generate", prompt, "-o", "clip.mp4") for prompt in PROMPTS]
    # The one that pays goes on until the others have ended, however late they start.
    assert endless.wait_for(lambda _: sum(run.poll() is not None for run in runs) == 3, timeout=90)
    endless.finish()
    ended = [end_of(run) for run in runs]
    assert sorted(done.code for done in ended) == [0, 2, 2, 2], ended
    refused = next(done for done in ended if done.code == 2)
    assert "Another run is making a video for" in refused.err
    assert "Nothing was done" in refused.err
    assert endless.paid == 1


@pytest.mark.parametrize("other", ["../{}/w/clip.mp4", "linked/clip.mp4", "w/../w/clip.mp4"])
def test_the_lock_knows_all_spellings_of_a_file(shell_on, endless, other):
    shell = shell_on(endless)
    (shell.folder / "w").mkdir()
    (shell.folder / "linked").symlink_to(shell.folder / "w")
    first = shell.start("generate", CAT, "-o", "w/clip.mp4")
    endless.wait_for(lambda running: running.requests["poll"] >= 1, timeout=30)
    assert shell("generate", "A dog", "-o", other.format(shell.folder.name)).code == 2
    endless.finish()
    assert end_of(first).code == 0
    assert endless.paid == 1


def test_the_same_request_twice_at_once_shares_the_file(shell, sandbox):
    sandbox.fault("submit", "slow", seconds=0.5)
    both = [end_of(run) for run in [shell.start("generate", CAT, "-o", "c.mp4") for _ in range(2)]]
    assert [done.code for done in both] == [0, 0], both
    assert sandbox.paid == 1


def test_waiting_for_all_replaces_no_file_of_the_user_either(shell, sandbox):
    shell("generate", CAT, "--detach")
    (shell.folder / "c.mp4").write_text("precious")
    assert shell("wait", "-o", "c.mp4").code == 2
    assert (shell.folder / "c.mp4").read_text() == "precious"
    assert shell("wait", "-o", "c.mp4", "--overwrite").code == 0


def test_two_paid_repetitions_at_once_do_not_share_a_file(shell_on, endless):
    shell = shell_on(endless)
    runs = [shell.start("generate", CAT, "-o", "c.mp4", "--new") for _ in range(2)]
    assert endless.wait_for(lambda _: any(run.poll() is not None for run in runs), timeout=90)
    endless.finish()
    assert sorted(end_of(run).code for run in runs) == [0, 2]
    assert endless.paid == 1


def test_waiting_for_what_another_run_waits_for_shares_the_file(shell_on, endless):
    shell = shell_on(endless)
    first = shell.start("generate", CAT, "-o", "c.mp4")
    endless.wait_for(lambda running: running.requests["poll"] >= 1, timeout=30)
    second = shell.start("wait", "last", "-o", "c.mp4")
    endless.wait_for(lambda running: running.requests["poll"] >= 3, timeout=30)
    endless.finish()
    assert [end_of(run).code for run in (first, second)] == [0, 0]


@pytest.mark.parametrize("other", ["../{}/w/a.mp4", "linked/a.mp4"])
def test_a_paid_video_is_kept_aside_under_each_name_of_its_folder(shell, sandbox, other):
    (shell.folder / "w").mkdir()
    (shell.folder / "linked").symlink_to(shell.folder / "w")
    content = shell("generate", CAT, "-o", "w/a.mp4").path.read_bytes()
    assert shell("generate", "A dog", "-o", other.format(shell.folder.name)).code == 0
    assert content in [file.read_bytes() for file in (shell.folder / "w").iterdir()]
    assert len(list((shell.folder / "w").iterdir())) == 2
    assert shell("generate", CAT).path.read_bytes() == content
    assert (sandbox.paid, sandbox.requests["download"]) == (2, 2)


def make(kind, target):
    if kind == "file":
        target.write_text("precious")
    elif kind == "link":
        target.with_name("precious").write_text("precious")
        target.symlink_to(target.with_name("precious"))
    elif kind == "dangling link":
        target.symlink_to(target.with_name("nothing"))
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(target.relative_to(os.getcwd())))
    elif kind == "device":
        target.symlink_to("/dev/null")


KINDS = ("file", "link", "dangling link", "pipe", "socket", "device")
COMMANDS = ("extend", "wait", "download", "export")


def what_is_there(target):
    found = target.lstat()
    return found.st_ino, found.st_mode, found.st_mtime_ns


@pytest.mark.parametrize(
    ("command", "kind"),
    [*(("generate", kind) for kind in KINDS)]
    + [(command, kind) for command in COMMANDS for kind in ("file", "pipe")],
)
def test_what_is_not_ours_is_refused_before_paying(shell, sandbox, monkeypatch, command, kind):
    monkeypatch.chdir(shell.folder)
    shell("generate", CAT, "--no-download")
    if command == "extend":
        shell("download", "last")
    target = shell.folder / "taken.mp4"
    make(kind, target)
    before = what_is_there(target)
    words = {"generate": ["A dog"], "extend": ["last", "It jumps"]}.get(command, ["last"])
    refused = shell(command, *words, "-o", "taken.mp4")
    assert refused.code == 2, refused
    assert "taken.mp4" in refused.err
    assert (len(sandbox.posts), what_is_there(target)) == (1, before)
    special = kind in ("pipe", "socket", "device")
    done = shell(command, *words, "-o", "taken.mp4", "--overwrite")
    assert done.code == (2 if special else 0), done
    if special:
        assert (len(sandbox.posts), what_is_there(target)) == (1, before)
    elif kind == "link":
        assert target.with_name("precious").read_text() == "precious"


def test_a_file_that_appears_during_the_wait_is_left_and_the_video_saved_beside_it(
    shell_on, endless
):
    shell = shell_on(endless)
    run = shell.start("generate", CAT, "-o", "c.mp4")
    endless.wait_for(lambda running: running.requests["poll"] >= 1, timeout=30)
    (shell.folder / "c.mp4").write_text("precious")
    endless.finish()
    done = end_of(run)
    assert done.code == 0, done
    assert (shell.folder / "c.mp4").read_text() == "precious"
    assert done.path.read_bytes()[4:8] == b"ftyp"
    assert "left as it is" in done.err


def test_another_video_that_the_user_has_changed_is_not_replaced(shell, sandbox):
    video = shell("generate", CAT, "-o", "c.mp4").path
    edited = bytes(reversed(video.read_bytes()))  # of the same size
    video.write_bytes(edited)
    assert shell("generate", "A dog", "-o", "c.mp4").code == 2
    assert (video.read_bytes(), sandbox.paid) == (edited, 1)


@pytest.mark.parametrize(
    "output", ["/dev/null", "/dev/stdout", "x" * 300, f"{'x' * 300}/c.mp4", f"n/{'x' * 300}/c.mp4",
               "gone/c.mp4", "~nobody-has-this-name/c.mp4"]
)  # fmt: skip
def test_a_name_that_no_file_can_have_is_refused_before_paying(shell, sandbox, output):
    (shell.folder / "gone").symlink_to(shell.folder / "nowhere")
    refused = shell("generate", CAT, "-o", output)
    assert refused.code == 2, refused
    assert sandbox.posts == []


def test_a_copy_is_no_file_of_the_users_own(shell, sandbox):
    shell("generate", CAT)
    for _ in range(2):
        done = shell("generate", CAT, "-o", "copy.mp4")
        assert done.code == 0, done.err
    content = (shell.folder / "copy.mp4").read_bytes()
    assert shell("generate", "A dog", "-o", "copy.mp4").code == 0
    others = {file.read_bytes() for file in shell.folder.glob("copy_*.mp4")}
    assert others == {content}
    assert (sandbox.paid, sandbox.requests["download"]) == (2, 2)
