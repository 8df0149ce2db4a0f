"""KlingVideo: what it knows of its file, and what it never holds."""

from __future__ import annotations

import json
import re


def test_a_result_looks_into_its_file(shell, tmp_path):
    shell.run("%%kling -d 5 -o clip\nA cat")
    clip = shell["clip"]
    assert clip.poster[:2] == b"\xff\xd8"
    assert len(clip.poster) <= 16_000
    assert clip.frame(1.0).size == clip.last_frame().size == (160, 90)
    assert clip.params == {"duration": 5}
    assert clip.save(tmp_path).read_bytes() == clip.path.read_bytes()
    assert len(clip.sha256) == 64


def test_no_url_and_no_key_in_what_is_kept(shell):
    shell.run("%%kling -d 5 -o clip\nA cat")
    clip = shell["clip"]
    data, metadata = clip._repr_mimebundle_()
    kept = json.dumps([data, metadata, repr(clip), clip.provenance(), repr(vars(clip))])
    assert "sk-not-for-show" not in kept
    assert not re.search(r"https?://", kept)
