"""What no command can make sense of: one sentence and exit code 2, before anything is sent."""

import os
import subprocess

import pytest
from commands.conftest import CAT

DIGITS = "9" * 5000
DEEP = "[" * 100_000
RAW = os.fsdecode(b"caf\xe9")  # Latin-1 on a command line that is UTF-8

LINES = {
    "a prompt that is no UTF-8": ["generate", RAW],
    "an image that is no address": ["generate", CAT, "-i", "http://[x"],
    "a tail image that is no address": ["generate", CAT, "-i", "x.png", "--tail-image", "http://["],
    "a lone surrogate in a parameter": ["generate", CAT, "-p", r'negative_prompt="\ud800"'],
    "a lone surrogate in a parameter's name": ["generate", CAT, "-p", r'extra={"\ud800": 1}'],
    "a negative duration": ["generate", CAT, "-d=--5"],
    "a duration of 5,000 digits": ["generate", CAT, "-d", DIGITS],
    "a negative duration of 5,000 digits": ["generate", CAT, f"-d=-{DIGITS}"],
    "a scale of 5,000 digits": ["generate", CAT, "--cfg-scale", DIGITS],
    "a scale that is not finite": ["generate", CAT, "--cfg-scale", "nan"],
    "a parameter of 5,000 digits": ["generate", CAT, "-p", f"duration={DIGITS}"],
    "a quoted parameter of 5,000 digits": ["generate", CAT, "-p", f'duration="{DIGITS}"'],
    "superscript digits": ["generate", CAT, "-p", 'duration="⁵"'],
    "deep JSON": ["generate", CAT, "-p", f"extra={DEEP}"],
    "deep JSON that is whole": ["generate", CAT, "-p", f"extra={{\"a\":{'[' * 900}{']' * 900}}}"],
    "infinity in JSON": ["generate", CAT, "-p", 'extra={"a": Infinity}'],
    "a parameter without a name": ["generate", CAT, "-p", "=1"],
    "a reserved word": ["generate", CAT, "-p", "timeout=5"],
    "a model that is no text": ["generate", CAT, "-p", "model=[1]"],
    "a prompt that is no text": ["generate", "-p", "prompt=[1]"],
    "a limit that is not finite": ["generate", CAT, "--max-cost", "nan"],
    "a limit of 5,000 digits": ["generate", CAT, "--max-cost", DIGITS],
    "a negative limit": ["generate", CAT, "--max-cost=-1"],
    "a timeout of 5,000 digits": ["generate", CAT, "--timeout", DIGITS],
    "a timeout in other digits": ["generate", CAT, "--timeout", "²"],
    "a folder as image": ["generate", CAT, "-i", "."],
    "a device as image": ["generate", CAT, "-i", "/dev/zero"],
    "an image of a user that is unknown": ["generate", CAT, "-i", "~nobody-has-this-name/x.png"],
    "an image with a long name": ["generate", CAT, "-i", "x" * 5000],
    "an image that is no data": ["generate", CAT, "-i", "data:image/png;base64,%%%"],
    "a target that is no UTF-8": ["generate", CAT, "-o", f"{RAW}.mp4"],
    "a folder that is no UTF-8": ["generate", CAT, "-o", f"{RAW}/"],
    "a target of a user that is unknown": ["generate", CAT, "-o", "~nobody-has-this-name/x.mp4"],
    "an id that is no UTF-8": ["wait", RAW],
    "an id with a line break": ["show", "abc\ndef"],
    "an id with an escape sequence": ["download", "\x1b[31m"],
    "an id that is blank": ["wait", " "],
    "an id of 5,000 characters": ["show", "x" * 5000],
    "an unknown flag that is no UTF-8": ["wait", f"--{RAW}"],
    "an unknown command that is no UTF-8": [RAW],
    "a count of 5,000 digits": ["history", "--limit", DIGITS],
    "a count in other digits": ["history", "--limit", "²"],
    "a count of nothing": ["history", "--limit", "0"],
    "a search that is no UTF-8": ["history", "--search", RAW],
    "a time that is not finite": ["frames", "video.mp4", "--at", "nan", "-o", "x.png"],
    "a picture of an unknown kind": ["frames", "video.mp4", "-o", "x.xyz"],
    "a picture without an ending": ["frames", "video.mp4", "-o", "x"],
    "a port that there is none": ["sandbox", "--port", "99999"],
    "a negative port": ["sandbox", "--port=-1"],
    "a port of 5,000 digits": ["sandbox", "--port", DIGITS],
    "a speed that is not finite": ["sandbox", "--port", "0", "--speed", "nan"],
    "a speed of nothing": ["sandbox", "--port", "0", "--speed", "0"],
    "seconds that are not finite": ["sandbox", "--port", "0", "--seconds", "nan"],
    "a balance that is not finite": ["sandbox", "--port", "0", "--balance", "nan"],
    "a fault of nothing": ["sandbox", "--port", "0", "--fault", ""],
    "a fault of 5,000 digits": ["sandbox", "--port", "0", "--fault", f"submit:slow:{DIGITS}"],
    "a failure that there is none": ["sandbox", "--port", "0", "--fail", "nonsense"],
    "a seed of 5,000 digits": ["sandbox", "--port", "0", "--seed", DIGITS],
    "a prompt of the demo that is no UTF-8": ["demo", RAW],
    "a blank prompt of the demo": ["demo", " "],
}  # fmt: skip


def run(shell, words, stdin=b"", env=None, closed=False):
    """The command with these bytes; with ``closed`` there is no stdin at all."""
    return subprocess.run(
        [os.fsencode(word) for word in shell.line(*words)],
        cwd=shell.folder,
        env=shell.env | (env or {}),
        input=None if closed else stdin,
        preexec_fn=(lambda: os.close(0)) if closed else None,
        capture_output=True,
        timeout=20,
    )


def check(done, sandbox):
    text = done.stderr.decode(errors="replace")
    assert done.returncode == 2, text[-2000:]
    assert "error in this program" not in text
    assert "Traceback" not in text
    assert text.startswith("kling: "), text
    assert len(text) < 1500, "a sentence, not the input"
    assert done.stdout == b""
    assert (sandbox.posts, sandbox.requests["poll"]) == ([], 0)


@pytest.mark.parametrize("words", LINES.values(), ids=LINES)
def test_a_line_that_makes_no_sense_is_a_sentence(shell, sandbox, words):
    (shell.folder / "video.mp4").write_bytes(b"no video")
    check(run(shell, words), sandbox)


@pytest.mark.parametrize("stdin", [b"caf\xe9", b"", b" \n", b"\xff\xfe", b"\xed\xa0\x80"])
def test_a_prompt_on_stdin_that_is_none(shell, sandbox, stdin):
    check(run(shell, ["generate", "-"], stdin=stdin), sandbox)
    check(run(shell, ["generate", "-"], stdin=stdin, env={"LC_ALL": "C"}), sandbox)


def test_a_prompt_from_a_stdin_that_is_closed(shell, sandbox):
    check(run(shell, ["generate", "-"], closed=True), sandbox)


@pytest.mark.parametrize(
    "env",
    [
        {"KLING_HOME": "~nobody-has-this-name"},
        {"AIML_BASE_URL": "http://[x"},
        {"AIML_BASE_URL": "http://127.0.0.1:99999"},
        {"AIML_BASE_URL": os.fsdecode(b"http://caf\xe9")},
        {"AIML_API_KEY": os.fsdecode(b"caf\xe9")},
        {"AIML_API_KEY": "a\nb"},
    ],
    ids=str,
)
@pytest.mark.parametrize("words", [["generate", CAT], ["jobs"], ["history"], ["wait", "all"]])
def test_an_environment_that_makes_no_sense(shell, sandbox, env, words):
    done = run(shell, words, env=env)
    text = done.stderr.decode(errors="replace")
    assert "error in this program" not in text
    assert "Traceback" not in text
    assert done.returncode == 2 or (done.returncode == 0 and words != ["generate", CAT]), text
    assert sandbox.posts == []


@pytest.mark.parametrize("prompt", ["http://[x", "https://[", "HTTP://[::1", "data:", "//[x"])
def test_a_prompt_that_looks_like_an_address_is_a_prompt(shell, sandbox, prompt):
    done = run(shell, ["generate", prompt])
    assert done.returncode == 0, done
    assert [post.body["prompt"] for post in sandbox.posts] == [prompt]
    assert run(shell, ["history"]).returncode == 0
