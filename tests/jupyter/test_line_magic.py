"""``%kling SUBCOMMAND`` in a shell."""

from __future__ import annotations

import hashlib
import json
import socket

import pytest

from kling_integrations import commands
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


SANDBOX_FLAGS = {
    "port": ("--port {port}", lambda made, port: f":{port}/" in f"{made.base_url}/"),
    "speed": ("--speed 77", lambda made, _: made.speed == 77),
    "fault": ("--fault poll:503:3", lambda made, _: made._faults.armed()),
    "fail": ("--fail moderation", lambda made, _: made._state.options.fail == "moderation"),
    "seconds": ("--seconds 9", lambda made, _: made._state.options.seconds == 9),
    "balance": ("--balance 5", lambda made, _: made._state.options.balance == 5),
    "seed": ("--seed 4", lambda made, _: made),
    "logs_show_running": (
        "--logs-show-running",
        lambda made, _: made._state.options.logs_show_running,
    ),
}


def test_all_flags_of_a_sandbox_are_known_here():
    flags = {action.dest for action in subcommands(commands.parser())["sandbox"]._actions}
    assert flags - {"help", "json", "debug"} == set(SANDBOX_FLAGS)


@pytest.mark.parametrize("name", SANDBOX_FLAGS)
def test_each_flag_of_a_sandbox_has_an_effect(shell, monkeypatch, name):
    monkeypatch.setenv("AIML_BASE_URL", "")  # set again by the sandbox, and put back afterwards
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line, holds = SANDBOX_FLAGS[name]
    shell.run(f"%kling sandbox {line.format(port=port)}")
    made = shell["_kling_sandbox"]
    try:
        assert holds(made, port)
        with pytest.raises(UsageError, match="already"):
            shell.run(f"%kling sandbox {line.format(port=port)}")
    finally:
        made.stop()


def test_a_sandbox_with_wrong_flags_is_a_mistake_of_the_line(shell, monkeypatch):
    monkeypatch.setenv("AIML_BASE_URL", "")
    with pytest.raises(UsageError, match="moment"):
        shell.run("%kling sandbox --fault nonsense")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidRequestError, match="Port"):
            shell.run(f"%kling sandbox --port {taken.getsockname()[1]}")
    shell.run("%kling sandbox --fault help")
    assert "drop-after" in shell.text


def test_a_video_may_stay_at_the_gateway(shell, sandbox, home):
    shell.run("%kling generate -d 5 --no-download 'A cat'")
    shell.run("%kling wait last --no-download")
    shell.run("%kling wait --no-download")
    assert sandbox.paid == 1
    assert not [*home.rglob("*.mp4")]
    assert sandbox.requests["download"] == 0


def test_variables_are_pictures_for_the_price_and_the_end_of_an_extension(shell, sandbox, home):
    image = pytest.importorskip("PIL.Image")
    shell["pic"] = image.new("RGB", (320, 320), "red")
    shell.run("%kling cost -d 5 --image pic")
    shell.run("%%kling v2.5-turbo/pro -d 5 --cfg-scale 0.9 -o clip\nA cat")
    with pytest.raises(UsageError, match="--image"):
        shell.run("%kling extend clip 'It goes on' --image pic")
    shell.run("%kling extend clip 'It goes on'")
    assert sandbox.posts[-1].body["cfg_scale"] == 0.9
    assert shell["clip"].extend("It goes on").id == shell["_kling"].id
    assert sandbox.paid == 2


def test_a_prompt_is_no_stdin_and_raw_is_raw(shell, sandbox):
    with pytest.raises(UsageError, match="stdin"):
        shell.run("%kling generate -d 5 -")
    shell.run("%kling generate -d 5 --raw 'A {cat}'")
    assert [post.body["prompt"] for post in sandbox.posts] == ["A {cat}"]


def test_a_batch_fills_in_columns_and_variables_beside_them(shell, sandbox):
    shell["rows"] = [{"product": "cup"}, {"product": "hat"}]
    shell["product"], shell["style"] = "a global", "ink"
    shell.run("%kling batch rows --prompt 'A {product} in {style.upper()}' -d 5 -o out/ --yes")
    prompts = {post.body["prompt"] for post in sandbox.posts}
    assert prompts == {"A cup in INK", "A hat in INK"}


def test_a_dry_run_refuses_what_the_gateway_cannot_open(shell, sandbox, monkeypatch):
    monkeypatch.setenv("AIML_BASE_URL", "https://gateway.example.com")
    link = "--image http://192.168.0.2/a.png"
    with pytest.raises(InvalidRequestError, match="cannot reach"):
        shell.run(f"%%kling --dry-run -d 5 {link}\nIt moves")
    with pytest.raises(InvalidRequestError, match="cannot reach"):
        shell.run(f"%kling generate --json --dry-run -d 5 {link} 'It moves'")
