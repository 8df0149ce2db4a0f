"""`kling frames` and `kling export`."""

import json
from pathlib import Path

from commands.conftest import CAT


def test_frames_are_pictures_of_the_video(shell, sandbox):
    from PIL import Image

    video = shell("generate", CAT).out.strip()
    for words in (["last", "--last"], ["last", "--at", "1.5"], [video]):
        done = shell("frames", *words, "-o", "frame.png")
        assert done.code == 0, done
        assert Image.open(done.path if done.path.is_absolute() else shell.folder / done.path)
    assert shell("frames", "last", "-o", "frame.xyz").code == 2


def test_export_puts_the_story_beside_the_video(shell, sandbox):
    shell("generate", CAT, "-d", "10")
    done = shell("export", "last", "-o", "export/")
    video, sidecar = done.out.split()
    story = json.loads(Path(sidecar).read_text("utf-8"))
    assert story["path"] == video
    assert story["prompt"] == CAT
    assert story["request"]["duration"] == 10
    assert "http" not in json.dumps(story)
