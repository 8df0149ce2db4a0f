"""Files that cells name: no paid video and nothing of the user's own is lost to another cell's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kling_integrations.core.errors import InvalidRequestError, KlingError, WaitTimeoutError
from kling_integrations.core.storage.ledger import Ledger


def held(sandbox) -> None:
    sandbox.fault("poll", "odd-status", None, word="queued")


def test_a_paid_video_of_another_cell_is_kept_aside_and_found_again(shell, sandbox, home):
    shell.run("%%kling -d 5 -f film.mp4 -o cat\nA cat")
    cat = shell["cat"]
    content, frame = cat.path.read_bytes(), cat.last_frame().tobytes()
    shell.run("%%kling -d 5 -f film.mp4 -o dog\nA dog")
    dog = shell["dog"]
    assert dog.path == home / "film.mp4"
    assert dog.path.read_bytes() != content
    assert cat.path != dog.path
    assert cat.path.read_bytes() == content
    assert f"kept as {cat.path}" in shell.text
    assert cat.last_frame().tobytes() == frame
    assert cat.save(home / "copies" / "cat.mp4").read_bytes() == content
    assert cat.path.name in cat._repr_mimebundle_()[0]["text/html"]
    first = cat.extend("It jumps")
    shell.run("%%kling -d 5 -f film.mp4 -o cat\nA cat")  # and the other way round
    assert shell["cat"].path.read_bytes() == content
    assert dog.path.read_bytes() != content
    assert shell["cat"].extend("It jumps").id == first.id
    assert (sandbox.paid, sandbox.requests["download"]) == (3, 3)


def test_two_jobs_for_one_file_at_the_same_time_keep_both_videos(shell, sandbox, home):
    held(sandbox)
    sandbox.fault("download", "slow", None, seconds=0.3)
    for animal in ("cat", "dog", "fish"):
        shell.run(f"%%kling -d 5 -f film.mp4 --bg -o {animal}\nA {animal}")
    for animal in ("cat", "dog", "fish"):
        assert shell[animal].wait_for_id(10)
    sandbox.clear_faults()
    videos = [shell[animal].result(20) for animal in ("cat", "dog", "fish")]
    assert len({video.path for video in videos}) == 3
    assert len({video.path.read_bytes() for video in videos}) == 3
    assert all(video.last_frame().size == (160, 90) for video in videos)


def test_a_file_with_another_content_never_passes_for_the_video(shell, sandbox, home):
    shell.run("%%kling -d 5 -f film.mp4 -o cat\nA cat")
    cat = shell["cat"]
    (home / "film.mp4").write_bytes(b"x" * cat.size)
    says = f"holds something else by now than the video of generation {cat.id}"
    for use in (
        lambda: cat.path,
        cat.last_frame,
        lambda: cat.extend("It jumps"),
        lambda: cat.save(home / "b.mp4"),
    ):
        with pytest.raises(InvalidRequestError, match=says):
            use()
    html = cat._repr_mimebundle_()[0]["text/html"]
    assert "<video" not in html
    assert says in html
    assert repr(cat).startswith("KlingVideo('film.mp4'")
    assert sandbox.paid == 1


def test_a_file_of_the_users_own_is_refused_before_paying_unless_it_may_be_replaced(
    shell, sandbox, home
):
    (home / "film.mp4").write_text("a holiday")
    cell = "%%kling -d 5 -f film.mp4 {} -o cat\nA cat"
    with pytest.raises(InvalidRequestError, match="was not made here"):
        shell.run(cell.replace("{}", ""))
    assert "--overwrite" in shell.text
    with pytest.raises(InvalidRequestError, match="was not made here"):
        shell.run("%kling gen 'A cat' -d 5 -o film.mp4")
    (home / "folder.mp4").mkdir()
    (home / "link.mp4").symlink_to("/dev/null")
    for name in ("link.mp4", "~nobody-of-this-name/a.mp4", "'a\0b.mp4'"):
        with pytest.raises(InvalidRequestError):
            shell.run(cell.replace("film.mp4", name).replace("{}", ""))
    assert sandbox.requests["submit"] == 0
    assert (home / "film.mp4").read_text() == "a holiday"
    shell.run(cell.replace("{}", "--overwrite"))
    assert shell["cat"].path.read_bytes()[4:8] == b"ftyp"
    for _ in range(2):  # it is ours now
        shell.run(cell.replace("{}", ""))
    assert sandbox.paid == 1


def test_a_copy_of_a_video_is_no_file_of_the_users_own(shell, sandbox, home):
    shell.run("%%kling -d 5 -o cat\nA cat")
    for _ in range(2):
        shell.run("%%kling -d 5 -f copy.mp4 -o copy\nA cat")
        assert shell["copy"].path == home / "copy.mp4"
    shell.run("%%kling -d 5 -f copy.mp4 -o dog\nA dog")
    assert shell["copy"].path.read_bytes() == shell["cat"].path.read_bytes()
    assert shell["dog"].path.read_bytes() != shell["cat"].path.read_bytes()
    assert sandbox.paid == 2


def test_a_file_that_appears_while_the_video_is_made_is_left_as_it_is(shell, sandbox, home):
    held(sandbox)
    shell.run("%%kling -d 5 -f film.mp4 --bg -o cat\nA cat")
    assert shell["cat"].wait_for_id(10)
    (home / "film.mp4").write_text("a holiday")
    sandbox.clear_faults()
    video = shell["cat"].result(20)
    assert (home / "film.mp4").read_text() == "a holiday"
    assert video.path.parent == home
    assert video.path.read_bytes()[4:8] == b"ftyp"
    assert any("left" in remark or "not made here" in remark for remark in shell["cat"].remarks)


def test_a_second_cell_with_another_file_gets_its_copy(shell, sandbox, home):
    held(sandbox)
    shell.run("%%kling -d 5 -f one.mp4 --bg -o one\nA cat")
    shell.run("%%kling -d 5 -f two.mp4 --bg -o two\nA cat")
    shell.run("%%kling -d 5 -f one.mp4 --bg -o three\nA cat")
    assert shell["one"] is shell["two"] is shell["three"]
    sandbox.clear_faults()
    video = shell["one"].result(20)
    assert video.path == home / "one.mp4"
    assert (home / "two.mp4").read_bytes() == video.path.read_bytes()
    assert {file.name for file in home.glob("*.mp4")} == {"one.mp4", "two.mp4"}
    assert (sandbox.paid, sandbox.requests["download"]) == (1, 1)


def test_a_copy_that_fails_is_said_and_loses_nothing(shell, sandbox, home):
    held(sandbox)
    shell.run("%%kling -d 5 -f one.mp4 --bg -o one\nA cat")
    shell.run("%%kling -d 5 -f folder/two.mp4 --bg\nA cat")
    assert shell["one"].wait_for_id(10)
    (home / "folder").write_text("a file in the way")
    sandbox.clear_faults()
    assert shell["one"].result(20).path == home / "one.mp4"
    shell.run("%kling wait")
    assert "could not be copied to folder/two.mp4" in " ".join(shell["one"].remarks)


def test_a_second_cell_with_a_longer_timeout_prolongs_the_wait(shell, sandbox):
    held(sandbox)
    shell.run("%%kling -d 5 --timeout 150 --bg -o one\nA cat")
    shell.run("%%kling -d 5 --timeout 1500 --bg -o two\nA cat")
    job = shell["one"]
    assert job is shell["two"]
    assert not job.wait(0.8)  # 800 gateway seconds
    with pytest.raises(WaitTimeoutError):
        job.result(20)
    assert sandbox.paid == 1


def test_a_second_cell_with_a_shorter_timeout_is_told_that_it_has_no_effect(shell, sandbox):
    held(sandbox)
    shell.run("%%kling -d 5 --timeout 3000 --bg -o one\nA cat")
    shell.run("%%kling -d 5 --timeout 150 --bg -o two\nA cat")
    assert "runs already" in shell.text
    assert "50:00" in shell.text
    shell.run("%%kling -d 5 --bg -o two\nA cat")
    assert "runs already" not in shell.text
    shell["one"].stop_waiting()


def test_a_video_knows_its_file_when_the_ledger_is_gone(shell, sandbox, home, tmp_path):
    shell.run("%%kling -d 5 -f film.mp4 -o cat\nA cat")
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    assert shell["cat"].path == home / "film.mp4"
    assert Ledger().history() == []


# --- the same file in a notebook and in a shell at once ---------------------------------------


def elsewhere(home, *words: str):
    """Another process that names the file for the request: as ``kling generate --out`` does."""
    code = (
        "import sys; from pathlib import Path\n"
        "from kling_integrations.core.storage.target_lock import TargetLock\n"
        "from kling_integrations.core import settings\n"
        "lock = TargetLock(settings.home(), Path(sys.argv[1]))\n"
        "lock.acquire(*sys.argv[2:]); print('held' if lock.is_held else 'passed by', flush=True)\n"
        "sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(home / "film.mp4"), *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_file_that_another_process_is_going_to_write_is_refused_before_it_is_paid(
    shell, sandbox, home
):
    other = elsewhere(home, "another video")
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InvalidRequestError, match="Another run is making a video for"):
        shell.run("%%kling -d 5 -f film.mp4\nA cat")
    assert sandbox.paid == 0
    other.communicate("")
    shell.run("%%kling -d 5 -f film.mp4\nA cat")
    assert sandbox.paid == 1


def test_while_a_cell_makes_a_video_no_other_process_takes_its_file(shell, sandbox, home):
    held(sandbox)
    shell.run("%%kling -d 5 -f film.mp4 --bg -o job\nA cat")
    assert shell["job"].wait_for_id(10)
    refused = elsewhere(home, "another video")
    assert "Another run is making a video" in refused.communicate("")[1]
    same = elsewhere(home, shell["job"].id)  # such as kling wait ID --out film.mp4
    assert same.communicate("")[0] == "passed by\n"
    sandbox.clear_faults()
    shell["job"].result(20)
    after = elsewhere(home, "another video")
    assert after.communicate("")[0] == "held\n"


def test_the_file_is_free_once_all_jobs_of_the_kernel_are_over(shell, sandbox, home):
    held(sandbox)
    for animal in ("cat", "dog"):
        shell.run(f"%%kling -d 5 -f film.mp4 --bg -o {animal}\nA {animal}")
        assert shell[animal].wait_for_id(10)
    shell["cat"].stop_waiting()
    assert shell["cat"].wait(10)
    assert "Another run" in elsewhere(home, "another video").communicate("")[1]
    shell["dog"].stop_waiting()
    assert shell["dog"].wait(10)
    assert elsewhere(home, "another video").communicate("")[0] == "held\n"


def test_what_was_never_submitted_holds_no_file(shell, sandbox, home, monkeypatch):
    def no_thread(_):
        raise KlingError("The notebook's background thread does not start.")

    monkeypatch.setattr("kling_integrations.jupyter.watcher.Watcher._running_thread", no_thread)
    with pytest.raises(KlingError, match="does not start"):
        shell.run("%%kling -d 5 -f film.mp4\nA cat")
    assert elsewhere(home, "another video").communicate("")[0] == "held\n"
    assert sandbox.paid == 0
