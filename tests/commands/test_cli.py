"""The command as a process: the live line on a terminal of the system's own, pipes, streams."""

import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl

import pytest
from commands.conftest import CAT, Shell

from kling_integrations.commands._text import display_width

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


def test_an_outage_is_noted_above_the_line_once(shell, sandbox):
    sandbox.fault("poll", "503", times=3)
    screen = Screen(shell, "generate", CAT)
    assert screen.end() == 0
    assert screen.seen.count("asking again") == 1


def test_a_pipe_gets_plain_lines(shell, sandbox):
    done = shell("generate", CAT)
    assert not set("\r\x1b") & set(done.err)
    assert re.search(r"(queued|running|generating) · \d:\d\d", done.err)


def test_words_of_others_do_not_steer_the_terminal(shell, sandbox):
    shell("generate", "red \x1b[31m and \x1b]0;title\x07 and \u202eturned", "--detach")
    for words in (["history"], ["show"], ["jobs"]):
        assert not set("\x1b\x07\u202e") & set(shell(*words).out)


def test_a_pipe_that_closes_early_is_no_trouble(shell):
    line = " ".join(f"'{word}'" for word in shell.line("models"))
    done = subprocess.run(
        f"({line}; echo code $? >&2) | head -n 1", shell=True, env=shell.env, cwd=shell.folder,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.count("\n") == 1
    assert "Broken pipe" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_trouble(shell, sandbox, closed):
    line = " ".join(f"'{word}'" for word in shell.line("generate", CAT))
    done = subprocess.run(f"{line} {closed}", shell=True, env=shell.env, cwd=shell.folder)
    assert done.returncode == 0
    assert len(list(shell.folder.glob("*.mp4"))) == 1


def test_the_command_starts_quickly_because_it_loads_what_it_needs():
    code = (
        "import sys; from kling_integrations.cli import main; main(['models', 'v2.5-turbo-pro']);"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    heavy = {"requests", "aiohttp", "PIL", "av", "numpy", "IPython"}
    assert not heavy & set(loaded.stderr.split())


def test_looking_at_what_runs_loads_neither_asyncio_nor_sockets(tmp_path):
    code = (
        "import sys; from kling_integrations.cli import main; main(['jobs']);"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    env = {**os.environ, "KLING_HOME": str(tmp_path)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert "kling_integrations.commands" in loaded.stderr.split()
    names = {name.removeprefix("kling_integrations.") for name in loaded.stderr.split()}
    assert not {"asyncio", "socket", "filelock", "difflib"} & names
    assert not {"core.request", "core.flows", "core.waiting", "commands.generate"} & names


def test_a_traceback_is_shown_with_the_debug_flag_only(shell):
    quiet = shell("generate", CAT, "-d", "7")
    assert quiet.err.count("\n") == 1
    process = shell.start("--debug", "generate", CAT, "-d", "7")
    assert "Traceback" in process.communicate(timeout=60)[1]


def test_the_key_is_in_no_output(shell, sandbox):
    key = "sandbox-3141592653589793"
    outputs = [
        shell("generate", CAT, "--json", AIML_API_KEY=key),
        shell("config", AIML_API_KEY=key),
        shell("show", AIML_API_KEY=key),
        shell("generate", CAT, "--new", AIML_API_KEY=f"bad-{key}"),
    ]
    assert not [done for done in outputs if key in done.out + done.err]
    assert key not in json.dumps([entry.request for entry in shell.ledger.history()])
