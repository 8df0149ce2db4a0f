"""Where a video goes: what is here already is reused, and nothing paid for is overwritten."""

from commands.conftest import CAT


def test_another_place_gets_a_copy_and_no_second_download(shell, sandbox):
    first = shell("generate", CAT)
    again = shell("generate", CAT, "--out", "films/cat.mp4")
    assert again.path == shell.folder / "films/cat.mp4"
    assert again.path.read_bytes() == first.path.read_bytes()
    assert (sandbox.paid, sandbox.requests["download"]) == (1, 1)


def test_a_file_that_was_changed_since_is_fetched_again_and_not_paid_again(shell, sandbox):
    first = shell("generate", CAT)
    first.path.write_bytes(b"something else")
    assert shell("generate", CAT).path.read_bytes()[4:8] == b"ftyp"
    assert (sandbox.paid, sandbox.requests["download"]) == (1, 2)


def test_a_paid_video_in_the_way_is_kept_aside(shell, sandbox):
    first = shell("generate", CAT, "-o", "film.mp4")
    content = first.path.read_bytes()
    second = shell("generate", "A dog in a boat", "-o", "film.mp4")
    assert second.code == 0
    assert second.path.read_bytes() != content
    again = shell("generate", CAT)
    assert again.path != second.path
    assert again.path.read_bytes() == content
    assert (sandbox.paid, sandbox.requests["download"]) == (2, 2)


def test_a_place_that_cannot_be_written_is_noticed_before_paying(shell, sandbox):
    (shell.folder / "file").write_text("a file is no folder")
    refused = shell("generate", CAT, "-o", "file/cat.mp4")
    assert refused.code == 2
    assert sandbox.posts == []


def test_another_file_of_the_same_size_does_not_pass_for_the_video(shell, sandbox):
    first = shell("generate", CAT)
    content = first.path.read_bytes()
    first.path.write_bytes(bytes(reversed(content)))
    assert "changed" in shell("show", "last").out
    again = shell("generate", CAT)
    assert again.path.read_bytes() == content
    assert (sandbox.paid, sandbox.requests["download"]) == (1, 2)
