"""`kling frames` and `kling export`."""

import json
from pathlib import Path

import pytest
from commands.conftest import CAT


def test_frames_are_pictures_of_the_video(shell, sandbox):
    from PIL import Image

    video = shell("generate", CAT).out.strip()
    for words in (["last", "--last"], ["last", "--at", "1.5"], [video]):
        done = shell("frames", *words, "-o", "frame.png", "--overwrite")
        assert done.code == 0, done
        assert Image.open(done.path if done.path.is_absolute() else shell.folder / done.path)
    assert shell("frames", "last", "-o", "frame.xyz").code == 2
    assert list(shell.folder.glob("frame.*")) == [shell.folder / "frame.png"]


def test_the_same_picture_again_is_no_trouble_and_another_one_replaces_nothing(shell, sandbox):
    shell("generate", CAT)
    for _ in range(2):
        assert shell("frames", "last", "-o", "frame.png").code == 0
    before = (shell.folder / "frame.png").read_bytes()
    refused = shell("frames", "last", "--at", "0", "-o", "frame.png")
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert (shell.folder / "frame.png").read_bytes() == before


@pytest.mark.parametrize("words", [["frames", "last", "-o", "x.png"], ["export", "last"]])
def test_nothing_is_written_through_a_link(shell, sandbox, words):
    video = shell("generate", CAT, "-o", "clip.mp4").path
    precious = shell.folder / "precious.txt"
    precious.write_text("precious")
    link = shell.folder / "x.png" if words[0] == "frames" else video.with_name("clip.mp4.json")
    link.symlink_to(precious)
    assert shell(*words).code == 2
    assert shell(*words, "--overwrite").code == 0
    assert not link.is_symlink()
    assert precious.read_text() == "precious"


def test_an_export_leaves_a_json_file_of_the_user_alone(shell, sandbox):
    shell("generate", CAT, "-o", "clip.mp4")
    (shell.folder / "clip.json").write_text("{}")
    (shell.folder / "clip.mp4.json").write_text("{}")
    assert shell("export", "last").code == 2
    assert (shell.folder / "clip.mp4.json").read_text() == "{}"
    (shell.folder / "clip.mp4.json").unlink()
    for _ in range(2):
        assert shell("export", "last").code == 0
    assert (shell.folder / "clip.json").read_text() == "{}"


def test_export_puts_the_story_beside_the_video(shell, sandbox):
    shell("generate", CAT, "-d", "10")
    done = shell("export", "last", "-o", "export/")
    video, sidecar = done.out.split()
    story = json.loads(Path(sidecar).read_text("utf-8"))
    assert story["path"] == video
    assert story["prompt"] == CAT
    assert story["request"]["duration"] == 10
    assert "http" not in json.dumps(story)
