"""What cannot be shown costs no video, what was stopped is not sent later, a limit holds."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kling_integrations as kling
from kling_integrations import InvalidRequestError, Ledger
from kling_integrations.core.submission import State
from kling_integrations.jupyter import frontend

ROOT = Path(__file__).resolve().parents[2]


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


class Proxy:
    """What a program puts in the place of its output, without the methods of one."""

    def __init__(self):
        self.said = []

    def write(self, text):
        self.said.append(text)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "make", [lambda: None, closed, Full, Proxy], ids=["none", "shut", "full", "proxy"]
)
def test_a_video_is_had_whatever_the_output_is(home, sandbox, monkeypatch, make):
    monkeypatch.setattr(sys, "stdout", make())
    monkeypatch.setattr(sys, "stderr", make())
    clip = kling.generate("A fox", duration=5)
    assert clip.path.exists()
    assert sandbox.paid == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "gbk"])
def test_what_an_output_cannot_write_is_escaped(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    frontend.write(stream, "◔ 生成")
    shown = raw.getvalue().decode(encoding)
    assert shown.endswith("\n")
    assert "\\u25d4" in shown


def test_a_display_that_fails_costs_no_video(shell, sandbox, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a hook of somebody's")

    monkeypatch.setattr("kling_integrations.jupyter.display.live.LogLines.show", broken)
    clip = shell.run("%%kling -o clip\nA fox") or shell["clip"]
    assert clip.path.exists()
    assert sandbox.paid == 1


# --- limits ------------------------------------------------------------------------------------

DOORS = {
    "generate": lambda first: kling.generate("A dog", duration=5),
    "submit": lambda first: kling.submit("A dog", duration=5),
    "batch": lambda first: kling.batch([{"prompt": "A dog"}], out="films", quiet=True),
    "extend": lambda first: first.extend("It jumps"),
}


@pytest.mark.parametrize("door", DOORS)
def test_the_limit_of_a_cell_holds_at_every_door(shell, sandbox, door):
    first = kling.generate("A fox", duration=5)
    kling.configure(max_cost=0.01)
    if door == "batch":
        assert list(DOORS[door](first)["status"]) == ["not_submitted"]
    else:
        with pytest.raises(InvalidRequestError, match="limit"):
            DOORS[door](first)
    assert sandbox.paid == 1
    assert kling.generate("A fox", duration=5).id == first.id  # what is paid for costs nothing
    kling.configure(max_cost=100)
    DOORS[door](first)


def test_a_loop_in_a_cell_is_one_cell(shell, sandbox):
    shell.run("import kling_integrations as kling; one = kling.generate('A fox', duration=5)")
    price = sandbox.jobs[shell["one"].id].usd
    kling.configure(max_cost=2.5 * price)
    with pytest.raises(InvalidRequestError, match="limit"):
        shell.run("for n in range(5): kling.submit(f'number {n}', duration=5)")
    sandbox.wait_for(lambda box: box.paid >= 3, 20)
    shell.run("kling.generate('The next cell', duration=5)")
    assert sandbox.paid == 4


@pytest.mark.parametrize("folder", ["s3://bucket/out", "nan", None, "", "s3//bucket"])
def test_a_folder_for_all_videos_is_one_that_can_be(home, folder):
    with pytest.raises(InvalidRequestError):
        kling.configure(output_dir=folder)


@pytest.mark.parametrize("new", ["false", "0", 1, None])
def test_another_video_is_asked_for_with_true_alone(home, sandbox, new):
    with pytest.raises(InvalidRequestError, match="new is True or False"):
        kling.generate("A fox", duration=5, new=new)
    with kling.KlingClient(ledger=Ledger()) as client, pytest.raises(InvalidRequestError):
        client.submit(kling.VideoRequest(prompt="A fox"), new=new)
    assert sandbox.paid == 0


# --- stopping ----------------------------------------------------------------------------------


def test_what_waits_between_two_tries_is_withdrawn_with_its_cell(home, sandbox):
    """Its POST was refused for now: after an interrupt no second one leaves."""
    sandbox.fault("submit", "429", None, retry_after=60)
    job = kling.submit("A fox", duration=5)
    sandbox.wait_for(lambda box: box.requests["submit"] >= 1, 20)
    assert not job.withdraw()  # a POST may have left
    assert job.wait(20)
    assert not job.outcome_unknown
    sandbox.clear_faults()
    assert [entry.state for entry in Ledger().history()] == [State.REFUSED]
    assert sandbox.paid == 0
    assert kling.generate("A fox", duration=5).path.exists()  # and nothing stands in the way
    assert sandbox.paid == 1


def test_a_post_that_has_left_is_not_withdrawn(home, sandbox):
    sandbox.fault("submit", "slow", 1, seconds=1.0)
    job = kling.submit("A fox", duration=5)
    sandbox.wait_for(lambda box: box.requests["submit"] >= 1, 20)
    job.withdraw()
    assert job.wait_for_id(20)
    assert job.id in sandbox.jobs
    assert job.result(20).path.exists()


def script(home, code):
    return subprocess.run(
        [sys.executable, "-c", f"import kling_integrations as kling\n{code}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )


def ids():
    return {entry.generation_id for entry in Ledger().history()}


@pytest.mark.thorough
@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_a_script_that_ends_right_after_its_submit_has_submitted(home, sandbox, seconds):
    if seconds:
        sandbox.fault("submit", "slow", 1, seconds=seconds)
    ended = script(home, "kling.submit('A fox', duration=5)")
    assert ended.returncode == 0, ended.stderr
    assert len(sandbox.posts) == 1
    assert ids() == set(sandbox.jobs)


@pytest.mark.thorough
def test_a_script_says_what_had_no_reply_at_its_end(home, sandbox):
    sandbox.fault("submit", "slow", 1, seconds=8.0)
    code = (
        "import kling_integrations.jupyter.watcher as watcher, time\n"
        "watcher.INTERRUPT_GRACE = watcher._SHUTDOWN_GRACE = 0.3\n"
        "job = kling.submit('A fox', duration=5)\n"
        "while job.status == 'waiting_for_slot': time.sleep(0.05)\n"
        "time.sleep(0.5)"
    )
    ended = script(home, code)
    assert "1 of what was submitted had no reply" in ended.stderr


@pytest.mark.thorough
def test_a_script_says_what_it_did_not_submit(home, sandbox):
    sandbox.fault("submit", "429", None, retry_after=60)
    code = (
        "import kling_integrations.jupyter.watcher as watcher\n"
        "watcher.INTERRUPT_GRACE = 0.5\n"
        "kling.submit('A fox', duration=5)"
    )
    ended = script(home, code)
    assert "1 job was not submitted" in ended.stderr
    sandbox.clear_faults()
    assert kling.generate("A fox", duration=5).id
    assert sandbox.paid == 1
