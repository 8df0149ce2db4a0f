"""The live line, on a terminal of the operating system's own making."""

import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from fcntl import ioctl

import pytest
from commands.conftest import Shell

from kling_integrations.commands._text import clean, columns, cut, display_width
from kling_integrations.core.generation import Generation, Status
from kling_integrations.core.progress import Progress
from kling_integrations.core.schedule import Schedule

CAT = "A cat on a roof"
ERASE = "\r\x1b[K"


class Screen:
    """A command on a pseudo-terminal of so many columns."""

    def __init__(self, shell: Shell, *words: str, columns: int = 100) -> None:
        self._ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
        self.process = subprocess.Popen(
            shell.line(*words), cwd=shell.folder, env=shell.env | env,
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def read(self, until: str | None = None, timeout: float = 30.0) -> str:
        """Everything up to these words, or up to the end."""
        deadline = time.monotonic() + timeout
        while until is None or not re.search(until, self.seen):
            assert time.monotonic() < deadline, self.seen
            if not select.select([self._ours], [], [], 0.1)[0]:
                continue
            try:
                chunk = os.read(self._ours, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            self.seen += chunk.decode("utf-8", "replace")
        return self.seen

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> int:
        self.read()
        os.close(self._ours)
        return self.process.wait(30)

    @property
    def drawn(self) -> list[str]:
        """The live line, each time that it was drawn."""
        return [text.split("\r\n")[-1] for text in self.seen.split(ERASE) if "about" in text]


def test_the_line_moves_and_never_claims_to_be_done(shell_on, endless):
    endless.fault("poll", "odd-status", word="queued")
    screen = Screen(shell_on(endless), "generate", CAT)
    screen.read(until=r"9\d%")  # far beyond the expected time
    endless.finish()
    assert screen.end() == 0
    shares = [int(share) for share in re.findall(r"(\d+)%", screen.seen)]
    assert len(set(shares)) > 5
    assert shares == sorted(shares)
    assert max(shares) <= 95
    assert "queued" in screen.seen
    assert "generating" in screen.seen
    assert "usually" in screen.seen  # once it takes longer
    assert screen.seen.rstrip().endswith(".mp4")


def test_the_line_is_gone_at_the_end(shell, sandbox):
    screen = Screen(shell, "generate", CAT)
    assert screen.end() == 0
    left = [re.split(r"\r(?:\x1b\[K)?", line)[-1] for line in screen.seen.split("\r\n")]
    assert not [line for line in left if "█" in line or "░" in line]


def test_the_line_fits_the_screen(shell_on, endless):
    screen = Screen(shell_on(endless), "generate", CAT, columns=50)
    screen.read(until="generating")
    endless.finish()
    screen.end()
    assert screen.drawn
    assert max(display_width(line) for line in screen.drawn) < 50


def test_ctrl_c_on_the_keyboard_ends_the_line_and_shows_the_way_back(shell_on, endless):
    screen = Screen(shell_on(endless), "generate", CAT)
    screen.read(until="generating")
    screen.press(b"\x03")
    assert screen.end() == 3
    [generation_id] = endless.jobs
    assert "Stopped waiting" in screen.seen
    assert f"kling wait {generation_id}" in screen.seen


def test_json_on_a_terminal_is_still_one_object(shell, sandbox):
    screen = Screen(shell, "generate", CAT, "--json")
    assert screen.end() == 0
    assert len(re.findall(r'^\{"generation_id".*\}\r$', screen.seen, re.MULTILINE)) == 1


def test_outages_are_told_above_the_line_once(shell, sandbox):
    sandbox.fault("poll", "503", times=3)
    screen = Screen(shell, "generate", CAT)
    assert screen.end() == 0
    assert screen.seen.count("asking again") == 1


def test_a_pipe_gets_plain_lines(shell, sandbox):
    done = shell("generate", CAT)
    assert not set("\r\x1b") & set(done.err)
    assert re.search(r"(queued|running|generating) · \d:\d\d", done.err)


# --- the pieces --------------------------------------------------------------------------------


def progress(elapsed, expected=100.0, status=Status.GENERATING):
    schedule = Schedule(expected=expected, spread=0.3, doubt=0.1)
    return Progress(Generation("x", status), elapsed, expected, schedule.progress(elapsed), 3, 20.0)


@pytest.mark.parametrize("elapsed", [0.0, 30.0, 79.0, 100.0, 140.0, 900.0])
def test_between_two_polls_the_bar_goes_on_as_the_schedule_would(elapsed):
    for seconds in (0.0, 1.0, 25.0, 60.0, 3600.0):
        moved = progress(elapsed).after(seconds)
        assert moved.fraction == pytest.approx(progress(elapsed + seconds).fraction, abs=1e-6)
        assert moved.fraction <= 0.95
        assert moved.elapsed == elapsed + seconds


def test_the_bar_stands_still_in_a_queue_and_at_the_end():
    queued = progress(10.0, status=Status.QUEUED)
    assert queued.after(50.0).fraction == queued.fraction
    done = progress(100.0, status=Status.COMPLETED)
    assert done.after(50.0) is done


def test_wide_characters_count_twice():
    assert display_width("日本") == 4
    assert display_width("e\u0301") == 1
    assert cut("日本語", 4) == "日…"
    lines = columns([("日本", 1), ("ab", 22)], ("A", "B"))
    assert [display_width(line) for line in lines] == [8, 8, 8]


def test_control_characters_become_visible_and_emoji_stay_whole():
    assert clean("a\x1b[2Jb") == "a\N{REPLACEMENT CHARACTER}[2Jb"
    family = "👩\u200d👩\u200d👧"
    assert clean(family) == family
