"""`kling wait` and `kling download`: back to what is running or finished."""

from commands.conftest import CAT


def test_detach_returns_at_once_and_wait_fetches_it(shell_on, endless):
    shell = shell_on(endless)
    started = shell("generate", CAT, "--detach")
    [generation_id] = endless.jobs
    assert (started.code, started.out) == (3, f"{generation_id}\n")
    assert f"kling wait {generation_id}" in started.err
    endless.finish()
    waited = shell("wait", generation_id, "--json")
    assert waited.code == 0
    assert waited.json["generation_id"] == generation_id
    assert (shell.folder / waited.json["path"]).read_bytes()[4:8] == b"ftyp"


def test_a_finished_video_without_a_file_is_not_shown_as_running(shell, sandbox):
    generation_id = shell("generate", CAT, "--no-download", "--json").json["generation_id"]
    waited = shell("wait", generation_id)
    assert waited.path.exists()
    assert "running" not in waited.err
    assert "about" not in waited.err


def test_several_videos_need_a_folder(shell_on, endless):
    shell = shell_on(endless)
    for prompt in ("A cat", "A dog"):
        shell("generate", prompt, "--detach")
    refused = shell("wait", "-o", "film.mp4")
    assert refused.code == 2
    assert "--out takes a folder" in refused.err


def test_a_download_that_failed_names_the_way_back_with_its_target(shell, sandbox):
    generation_id = shell("generate", CAT, "--no-download", "--json").json["generation_id"]
    sandbox.fault("download", "redirect", to="ftp://localhost/x")
    failed = shell("download", generation_id, "-o", "film.mp4", "--json")
    assert failed.code == 4
    assert f"Save it with: kling download --out film.mp4 {generation_id}\n" in failed.err
    assert failed.json["error"]["next_steps"] == [
        {"verb": "download", "generation_id": generation_id, "output": "film.mp4"}
    ]


def test_a_download_after_a_detach_marks_the_generation_as_finished(shell_on, endless):
    shell = shell_on(endless)
    generation_id = shell("generate", CAT, "--detach").out.strip()
    endless.finish()
    for _ in range(2):
        assert shell("download", generation_id, "--json").json["status"] == "completed"
    assert endless.requests["download"] == 1
    assert shell("jobs").out == "Nothing is running.\n"


def test_one_failure_does_not_keep_the_others_waiting(shell, sandbox):
    for prompt in ("A cat", "A [fail:moderation] dog", "A fish"):
        shell("generate", prompt, "--detach")
    waited = shell("wait", "all", "--json", "-o", "films/")
    assert waited.code == 1
    states = [each["status"] for each in waited.json["generations"]]
    assert states == ["completed", "failed", "completed"]
    assert len(list((shell.folder / "films").glob("*.mp4"))) == 2
    assert shell("wait").out == "Nothing is running.\n"


def test_download_takes_the_file_that_is_here(shell, sandbox):
    generation_id = shell("generate", CAT, "--no-download", "--json").json["generation_id"]
    assert sandbox.requests["download"] == 0
    first = shell("download", generation_id, "-o", "one.mp4")
    second = shell("download", generation_id, "-o", "two.mp4", "--json")
    assert first.path.read_bytes() == (shell.folder / "two.mp4").read_bytes()
    assert second.json["status"] == "completed"
    assert sandbox.requests["download"] == 1
