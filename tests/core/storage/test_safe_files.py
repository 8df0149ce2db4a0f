"""Files that belong to the user are written whole or not at all, and never into something else."""

import os
import socket
import stat

import pytest

from kling_integrations import InvalidRequestError
from kling_integrations.core.storage import safe_files


def specials(folder):
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket has at most 107 bytes
    try:
        server.bind("socket")
    finally:
        os.chdir(here)
    return [folder / "pipe", folder / "folder", folder / "socket"], server


def test_what_is_no_regular_file_is_refused_and_stays(tmp_path):
    names, server = specials(tmp_path)
    with server:
        for target in names:
            before = target.lstat()
            with pytest.raises(InvalidRequestError, match="no place for a file"):
                safe_files.write(target, b"x")
            assert target.lstat().st_ino == before.st_ino
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe", "socket"]


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_bytes(b"precious")
    link.symlink_to(victim)
    safe_files.write(link, b"new")
    assert victim.read_bytes() == b"precious"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


def test_the_file_is_private_until_it_is_whole_and_then_as_the_umask_says(tmp_path):
    target = tmp_path / "a.json"
    with safe_files.whole_file(target) as file:
        file.write(b"half")
        [part] = tmp_path.iterdir()
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        assert not target.exists()
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_no_debris(tmp_path):
    target = tmp_path / "a.json"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), safe_files.whole_file(target) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_without_overwrite_an_existing_file_is_refused(tmp_path):
    target = tmp_path / "a.json"
    target.write_bytes(b"old")
    with pytest.raises(InvalidRequestError, match="exists already"):
        safe_files.write(target, b"new", overwrite=False)
    assert target.read_bytes() == b"old"
    assert safe_files.write(tmp_path / "b.json", b"new", overwrite=False).read_bytes() == b"new"


def test_a_copy_of_a_file_to_itself_is_the_file(tmp_path):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"video")
    inode = target.stat().st_ino
    assert safe_files.copy(target, target) == target
    assert (target.read_bytes(), target.stat().st_ino) == (b"video", inode)
    assert safe_files.copy(target, tmp_path / "b.mp4").read_bytes() == b"video"


@pytest.mark.parametrize("leads_to", ["/dev/null", "."])
def test_a_link_to_something_else_than_a_file_is_no_target(tmp_path, leads_to):
    link = tmp_path / "link.mp4"
    link.symlink_to(leads_to)
    with pytest.raises(InvalidRequestError):
        safe_files.check_target(link)
    assert link.is_symlink()


def test_a_copy_replaces_another_file_and_a_link_to_the_source_itself(tmp_path):
    source, other, link = (tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4"))
    source.write_bytes(b"video")
    other.write_bytes(b"old")
    link.symlink_to(source)
    for target in (other, link):
        assert safe_files.copy(source, target).read_bytes() == b"video"
        assert not target.is_symlink()
    assert source.read_bytes() == b"video"
