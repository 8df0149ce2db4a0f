"""The lock of a file that a run is going to write."""

import subprocess
import sys

import pytest

from kling_integrations.core.errors import InvalidRequestError, LedgerError
from kling_integrations.core.storage.target_lock import TargetLock


@pytest.fixture(autouse=True)
def decided_soon(monkeypatch):
    """How long a holder that has named nothing yet is waited for."""
    monkeypatch.setattr("kling_integrations.core.storage.target_lock._UNDECIDED", 0.1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "w").mkdir()
    return tmp_path / "w"


def test_another_run_for_the_same_file_is_refused_until_the_first_ends(tmp_path, folder):
    first, second = (TargetLock(tmp_path / "home", folder / "a.mp4") for _ in range(2))
    first.acquire("a cat")
    with pytest.raises(InvalidRequestError, match="Another run is making a video"):
        second.acquire("a dog")
    first.release()
    second.acquire("a dog")
    second.release()


def test_a_run_that_makes_the_same_video_is_let_through(tmp_path, folder):
    first, second = (TargetLock(tmp_path / "home", folder / "a.mp4") for _ in range(2))
    first.acquire("a cat")
    second.acquire("a cat")
    first.add("gen-1")
    second.release()  # it never held it
    second.acquire("gen-1")
    with pytest.raises(InvalidRequestError):
        TargetLock(tmp_path / "home", folder / "a.mp4").acquire()


@pytest.mark.parametrize("spelling", ["w/../w/a.mp4", "linked/a.mp4", "w/./a.mp4"])
def test_all_spellings_of_a_file_are_one(tmp_path, folder, spelling):
    (tmp_path / "linked").symlink_to(folder)
    first = TargetLock(tmp_path / "home", folder / "a.mp4")
    first.acquire("a cat")
    second = TargetLock(tmp_path / "home", tmp_path / spelling)
    with pytest.raises(InvalidRequestError):
        second.acquire("a dog")


def test_it_falls_with_a_process_that_is_killed_and_its_names_are_not_taken_over(tmp_path, folder):
    code = (
        "import sys, os, signal; from pathlib import Path;"
        "from kling_integrations.core.storage.target_lock import TargetLock;"
        "lock = TargetLock(Path(sys.argv[1]), Path(sys.argv[2])); lock.acquire('a cat');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    home, target = tmp_path / "home", folder / "a.mp4"
    subprocess.run([sys.executable, "-c", code, str(home), str(target)], timeout=60)
    holder = TargetLock(home, target)
    holder.acquire("a dog")
    with pytest.raises(InvalidRequestError):
        TargetLock(home, target).acquire("a cat")
    TargetLock(home, target).acquire("a dog")
    holder.release()


def test_a_folder_that_cannot_be_written_is_named(folder):
    (folder / "home").write_text("a file")
    with pytest.raises(LedgerError, match="cannot be written"):
        TargetLock(folder / "home", folder / "a.mp4").acquire("a cat")
