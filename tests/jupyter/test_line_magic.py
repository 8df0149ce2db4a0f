"""``%kling SUBCOMMAND`` in a shell."""

from __future__ import annotations

import hashlib
import json

import pytest

from kling_integrations.commands import UsageError
from kling_integrations.core.errors import GenerationFailedError, InvalidRequestError
from kling_integrations.core.generation import Saved
from kling_integrations.jupyter.line_magic import line_parser, subcommands
from kling_integrations.jupyter.session import current


def test_bare_kling_says_where_things_stand_and_the_way_in(shell, sandbox):
    shell.run("%kling")
    assert sandbox.base_url in shell.text
    assert "SANDBOX" in shell.text
    assert "AIML_API_KEY" in shell.text
    assert "sk-not-for-show" not in shell.text
    assert "%%kling" in shell.text


def test_what_the_shell_knows_the_notebook_knows(shell):
    from kling_integrations import commands

    assert set(subcommands(commands.parser())) < set(subcommands(line_parser()))
    for line in ("models v2.6", "balance", "cost -d 10", "jobs", "history", "config", "version"):
        shell.run(f"%kling {line}")
        assert shell.text.strip()


def test_generate_gives_the_video_to_an_assignment(shell, sandbox):
    shell["animal"] = "cat"
    shell.run("clip = %kling generate 'A {animal} on a roof' -d 5")
    assert shell["clip"].prompt == "A cat on a roof"
    shell.run("again = %kling gen 'A {animal} on a roof' -d 5")
    assert shell["again"].id == shell["clip"].id
    assert sandbox.paid == 1


def test_near_misses_are_named(shell):
    with pytest.raises(UsageError, match="history"):
        shell.run("%kling hstory")
    with pytest.raises(UsageError, match="--duration"):
        shell.run("%kling gen 'A cat' --durtion 5")
    assert "Traceback" not in shell.text


def test_wait_collects_what_runs(shell, sandbox):
    for animal in ("cat", "dog"):
        shell.run(f"%%kling -d 5 --bg\nA {animal}")
    videos = shell.run("videos = %kling wait all")
    videos = shell["videos"]
    assert sorted(video.prompt for video in videos) == ["A cat", "A dog"]
    shell.run("%kling wait")
    assert "Nothing is running" in shell.text


def test_wait_fails_when_one_failed(shell):
    shell.run("%%kling -d 5 --bg\nA cat")
    shell.run("%%kling -d 5 --bg\nA riot [fail:moderation]")
    with pytest.raises(GenerationFailedError):
        shell.run("%kling wait")


def test_show_and_compare_take_ids_beginnings_and_variables(shell):
    shell.run("%%kling -d 5 -o one\nA cat")
    shell.run("%%kling -d 5 -o two\nA dog")
    shell.run("seen = %kling show {one.id}")
    assert shell["seen"].id == shell["one"].id
    shell.run("seen = %kling show last")
    assert shell["seen"].id == shell["two"].id
    shell.run("both = %kling compare one two")
    assert [video.id for video in shell["both"]] == [shell["one"].id, shell["two"].id]


def test_a_video_of_another_place_is_fetched_to_be_shown(shell, sandbox):
    from kling_integrations import KlingClient, VideoRequest

    with KlingClient() as client:
        generation = client.submit(VideoRequest(prompt="made by a script", duration=5))
    sandbox.finish()
    shell.run("there = %kling show {0}".replace("{0}", generation.id))
    assert shell["there"].path.is_file()
    assert sandbox.paid == 1


def test_frames_extend_and_export(shell, sandbox, home):
    shell.run("%%kling v2.5-turbo/pro -d 5 -o clip\nA cat")
    shell.run("%kling frames clip --last -o still")
    assert shell["still"].size == (160, 90)
    shell.run("%kling frames clip --at 2 -o frame.png")
    assert (home / "frame.png").is_file()
    shell.run("more = %kling extend clip 'The cat jumps'")
    assert shell["more"].model.endswith("image-to-video")
    assert shell["clip"].extend("The cat jumps").id == shell["more"].id
    assert sandbox.paid == 2
    (home / "out").mkdir()
    shell.run("%kling export clip --out out/")
    sidecars = list((home / "out").glob("*.json"))
    assert json.loads(sidecars[0].read_text())["prompt"] == "A cat"
    video, sidecar = shell["clip"].export(home / "mine")
    assert video.read_bytes() == shell["clip"].path.read_bytes()
    assert json.loads(sidecar.read_text())["sha256"] == shell["clip"].sha256


def test_extending_the_last_one_again_is_free_until_something_else_is_asked_for(shell, sandbox):
    shell.run("%%kling -d 5\nA cat")
    shell.run("first = %kling extend last 'It jumps'")
    for _ in range(2):
        shell.run("again = %kling extend last ' It jumps'")
        assert shell["again"].id == shell["first"].id
    assert sandbox.paid == 2
    assert "To extend it: %kling extend " in shell.text
    shell.run("other = %kling extend last 'It lands'")
    assert sandbox.paid == 3
    shell.run("again = %kling extend last 'It lands'")
    assert (shell["again"].id, sandbox.paid) == (shell["other"].id, 3)


def test_a_cell_that_extends_is_free_in_every_further_run(shell, sandbox):
    cells = ("%%kling -d 5 -o clip\nA cat", "more = clip.extend('It jumps')")
    for _ in range(3):
        for cell in cells:
            shell.run(cell)
        shell.run("%reload_ext kling_integrations")
    assert sandbox.paid == 2


def test_a_paid_file_of_an_odd_codec_breaks_no_cell_and_no_grid(shell, sandbox):
    shell.run("%%kling -d 5 -o clip\nA cat")
    clip = shell["clip"]
    entry = current().ledger.entry(sandbox.base_url, clip.id)
    odd = clip.path.read_bytes().replace(b"avc1", b"zzz9")
    clip.saved_as.write_bytes(odd)
    digest = hashlib.sha256(odd).hexdigest()
    current().ledger.saved(entry.base_url, clip.id, Saved(clip.saved_as, len(odd), digest, None))
    for _ in range(2):
        shell.run("%%kling -d 5 -o clip\nA cat")
        shell.run("films = %kling history --grid")
    assert (shell["clip"].width, shell["clip"].poster) == (None, None)
    html = shell["clip"]._repr_mimebundle_()[0]["text/html"]
    assert "<video" in html
    assert clip.saved_as.name in html
    assert [film.id for film in shell["films"]] == [clip.id]
    with pytest.raises(InvalidRequestError, match="no readable video"):
        shell.run("clip.extend('It jumps')")
    assert sandbox.paid == 1


def test_sandbox_starts_one_in_this_kernel(shell, monkeypatch):
    monkeypatch.setenv("AIML_BASE_URL", "")
    monkeypatch.setenv("AIML_API_KEY", "")
    shell.run("%kling sandbox --speed 1000 --seconds 100")
    try:
        shell.run("%%kling -d 5 -o clip\nA cat")
        assert shell["clip"].sandbox
    finally:
        shell["_kling_sandbox"].stop()


def test_the_grid_of_the_history_is_narrowed_by_prompt_model_day_and_tag(shell):
    shell.run("%%kling -d 5 --tag spring\nA cat")
    shell.run("%%kling -d 5 v2.1-master\nA dog")
    for flags, count in (
        ("", 2), ("--tag spring", 1), ("--day today", 2), ("--day today --tag spring", 1),
        ("--search dog", 1), ("--model v2.1", 1),
    ):  # fmt: skip
        assert len(shell.run(f"found = %kling history --grid {flags}") or shell["found"]) == count
    shell.run("%kling history --grid --day yesterday")
    assert "None of these" in shell.text
