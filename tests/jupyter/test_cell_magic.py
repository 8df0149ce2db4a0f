"""``%%kling`` in a shell: flags, variables, money, errors, what is left in the namespace."""

from __future__ import annotations

import _thread
import re
import threading

import pytest

from kling_integrations.commands import UsageError
from kling_integrations.core.errors import (
    GenerationFailedError,
    InvalidRequestError,
    KlingError,
    StoppedWaiting,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from kling_integrations.jupyter.cell_magic import split
from kling_integrations.jupyter.job import Job
from kling_integrations.jupyter.video import KlingVideo


def payloads(sandbox) -> list[dict]:
    return [dict(post.body) for post in sandbox.posts]


def test_a_cell_makes_a_video_and_names_it(shell, sandbox, home):
    shell["animal"] = "raccoon"
    shell.run(
        "%%kling v2.5-turbo/pro -d 5 -a 16:9 -n 'rain, {animal}s' --cfg-scale 0.9 -o clip\n"
        "A white {animal} in a forest\n\nat dawn"
    )
    clip = shell["clip"]
    assert isinstance(clip, KlingVideo)
    assert shell["_kling"] is clip
    assert clip.status == "completed"
    assert clip.id in sandbox.jobs
    assert clip.path.parent == home / "kling_outputs"
    assert clip.path.read_bytes()[4:8] == b"ftyp"
    assert (clip.width, clip.height) == (160, 90)
    assert clip.duration == pytest.approx(5, abs=0.2)
    assert payloads(sandbox) == [
        {
            "model": "klingai/v2.5-turbo/pro/text-to-video",
            "prompt": "A white raccoon in a forest\n\nat dawn",
            "negative_prompt": "rain, raccoons",
            "duration": 5,
            "aspect_ratio": "16:9",
            "cfg_scale": 0.9,
        }
    ]


def test_running_it_again_pays_nothing_and_new_pays(shell, sandbox):
    cell = "%%kling -d 5 -o clip\nA cat"
    shell.run(cell)
    first, requests = shell["clip"], sandbox.requests.total()
    shell.run(cell)
    assert "reused" in shell.text
    assert shell["clip"].path == first.path
    assert sandbox.requests.total() == requests
    shell.run("%%kling -d 5 --new -o clip\nA cat")
    assert sandbox.paid == 2
    assert shell["clip"].id != first.id


def test_a_file_that_is_gone_is_fetched_again_for_nothing(shell, sandbox):
    shell.run("%%kling -d 5 -o clip\nA cat")
    shell["clip"].path.unlink()
    shell.run("%%kling -d 5 -o clip\nA cat")
    assert shell["clip"].path.is_file()
    assert sandbox.paid == 1


@pytest.mark.parametrize(
    ("cell", "error", "says"),
    [
        ("%%kling -d 7\nA cat", InvalidRequestError, "5 or 10"),
        ("%%kling\n \n", InvalidRequestError, "prompt"),
        ("%%kling\nA {creature}", UsageError, "no variable creature"),
        ("%%kling -n {creature}\nA cat", UsageError, "no variable creature"),
        ("%%kling --durtion 5\nA cat", UsageError, "--duration"),
        ("%%kling v2.5-turbo-pro A cat\n \n", UsageError, "lines below"),
        ("%%kling -n 'it\nA cat", UsageError, "the prompt"),
        ("%%kling -o 1st\nA cat", UsageError, "name of a variable"),
        ("%%kling --image nowhere.png\nA cat", InvalidRequestError, "nowhere.png"),
        ("%%kling --embed sometimes\nA cat", UsageError, "auto, always, never"),
        ("%%kling --takes 0\nA cat", UsageError, "at least 1"),
        ("%%kling --sweep duration\nA cat", UsageError, "KEY=A,B"),
        ("%%kling -d 5 --sweep duration=5,10\nA cat", UsageError, "both"),
        ("%%kling --takes 101\nA cat", UsageError, "at most 100"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(shell, sandbox, cell, error, says):
    with pytest.raises(error) as caught:
        shell.run(cell)
    assert says in str(caught.value)
    assert "Traceback" not in shell.text
    assert sandbox.requests["submit"] == 0


def test_raw_fills_in_nothing(shell, sandbox):
    shell.run("%%kling --raw -d 5\nA {cat} costs $5 {{x}}")
    assert payloads(sandbox)[0]["prompt"] == "A {cat} costs $5 {{x}}"


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%%kling --image '' -d 5\nIt moves", "blank"),
        ("%%kling --image nothing -d 5\nIt moves", "nothing is None"),
        ("%%kling --image blank -d 5\nIt moves", "blank is nan"),
        ("%%kling --image pics[0] -d 5\nIt moves", "pics[0] is None"),
        ("%%kling --sweep image=pics -d 5\nIt moves", "no picture"),
        ("%%kling --image {nothing} -d 5\nIt moves", "{nothing}"),
        ("%%kling -p image_url=null -d 5\nIt moves", "no picture"),
        ("%%kling -d 5\nnan", "missing value"),
        ("%kling generate -d 5 None", "missing value"),
        ("%%kling -d 5 -f s3://films/a.mp4\nA cat", "to a disk"),
        ("%%kling -d 5 -f ''\nA cat", "no place"),
    ],
)
def test_what_is_lost_is_refused_and_no_text_to_video(shell, sandbox, cell, says):
    shell.ip.user_ns.update(nothing=None, blank=float("nan"), pics=[None])
    with pytest.raises(KlingError) as caught:
        shell.run(cell)
    assert says in str(caught.value)
    assert sandbox.requests["submit"] == 0


def test_raw_means_a_prompt_that_looks_missing(shell, sandbox):
    shell.run("%%kling --raw -d 5\nNone")
    assert payloads(sandbox)[0]["prompt"] == "None"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r"-f D:\films\fox.mp4", ["-f", r"D:\films\fox.mp4"]),
        (r'-f "D:\my films\fox.mp4" -d 5', ["-f", r"D:\my films\fox.mp4", "-d", "5"]),
        (r"--file='\\server\share\ #1\x'", [r"--file=\\server\share\ #1\x"]),
        ("-n 'rain, fog' -d 5", ["-n", "rain, fog", "-d", "5"]),
    ],
)
def test_a_backslash_is_part_of_a_path_on_windows(monkeypatch, line, words):
    with monkeypatch.context() as windows:
        windows.setattr("os.name", "nt")
        found = split(line)
    assert found == words
    assert split(r"a\ b") == ["a b"]


def test_fields_are_evaluated_once_for_all_variants(shell, sandbox):
    shell["count"] = iter(range(9))
    shell.run("%%kling -d 5 --sweep light=dawn,noon --yes\nA heron, {next(count)}, at {light}")
    prompts = {payload["prompt"] for payload in payloads(sandbox)}
    assert prompts == {"A heron, 0, at dawn", "A heron, 0, at noon"}
    assert next(shell["count"]) == 1


def test_images_come_from_variables_files_and_earlier_results(shell, sandbox, home):
    numpy = pytest.importorskip("numpy")
    shell["grey"] = numpy.full((90, 160, 3), 127, dtype="uint8")
    shell.run("%%kling v2.5-turbo/pro --image grey -d 5 -o first\nIt moves")
    shell.run("%%kling v2.5-turbo/pro --image first -d 5 -o second\nIt goes on")
    shell["first"].last_frame().save(home / "frame.png")
    shell.run("%%kling v2.5-turbo/pro -i frame.png -d 10 -o third\nIt goes on")
    one, two, three = (payload["image_url"] for payload in payloads(sandbox))
    assert one.startswith("data:image/png;base64,")
    assert two == three != one
    assert shell["first"].model.endswith("image-to-video")


def test_a_failed_generation_raises_and_leaves_the_job(shell):
    with pytest.raises(GenerationFailedError):
        shell.run("%%kling -d 5 -o clip\nA riot [fail:moderation]")
    job = shell["clip"]
    assert isinstance(job, Job)
    assert job.status == "failed"
    assert "GenerationFailedError: " in shell.text
    assert "Traceback" not in shell.text
    with pytest.raises(GenerationFailedError):
        job.result()


def test_full_tracebacks_come_when_wanted(shell):
    shell.run("%config KlingMagics.short_errors = False")
    with pytest.raises(InvalidRequestError):
        shell.run("%%kling -d 7\nA cat")
    assert "Traceback" in shell.text


def test_a_timeout_is_no_loss(shell, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    with pytest.raises(WaitTimeoutError):
        shell.run("%%kling -d 5 --timeout 150 -o clip\nA cat")
    sandbox.clear_faults()
    shell.run("%%kling -d 5 -o clip\nA cat")
    assert shell["clip"].status == "completed"
    assert sandbox.paid == 1


def test_a_post_without_an_answer_is_never_repeated_in_silence(shell, sandbox):
    sandbox.fault("submit", "drop-after")
    for _ in range(2):
        with pytest.raises(SubmissionUncertainError):
            shell.run("%%kling -d 5 -o clip\nA cat")
    assert sandbox.requests["submit"] == 1
    assert "%kling recover" in shell.text


def test_a_background_job_can_be_asked_called_back_and_awaited(shell, sandbox):
    shell.run("%%kling -d 5 --bg -o job\nA cat")
    job = shell["job"]
    assert isinstance(job, Job)
    heard = []
    job.add_done_callback(heard.append)
    video = job.result(timeout=20)
    assert job.done()
    assert heard == [job]
    assert video.id == job.id
    assert shell.run("await job") is video
    with pytest.raises(GenerationFailedError):
        shell.run("%%kling -d 5 --bg -o bad\n[fail:input]")
        shell.run("await bad")


def test_stop_waiting_ends_the_wait_and_keeps_the_generation(shell, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    shell.run("%%kling -d 5 --bg -o job\nA cat")
    job = shell["job"]
    assert job.wait_for_id(10)
    job.stop_waiting()
    with pytest.raises(WaitTimeoutError, match="goes on"):
        job.result(timeout=10)
    assert job.status == "stopped"
    sandbox.clear_faults()
    shell.run("%%kling -d 5 -o clip\nA cat")
    assert (shell["clip"].id, sandbox.paid) == (job.id, 1)


def test_two_cells_of_the_same_request_share_one_job(shell, sandbox):
    sandbox.fault("submit", "slow", seconds=0.3)
    shell.run("%%kling -d 5 --bg -o one\nA cat")
    shell.run("%%kling -d 5 --bg -o two\nA cat")
    assert shell["one"] is shell["two"]
    shell["one"].result(20)
    assert sandbox.requests["submit"] == 1


def test_quiet_shows_nothing_and_returns_the_video(shell):
    video = shell.run("%%kling -d 5 -q\nA cat")
    assert isinstance(video, KlingVideo)
    assert "queued" not in shell.text


def test_a_file_is_where_it_was_wished(shell, home):
    shell.run("%%kling -d 5 -f films/{slug}-{take}.mp4 -o clip\nA cat")
    assert shell["clip"].path == home / "films" / "a-cat-1.mp4"
    shell.run("%%kling -d 5 -f elsewhere/ -o clip\nA cat")  # reused, and put where it is wished
    assert shell["clip"].path.parent == home / "elsewhere"


def test_dry_run_sends_nothing_and_says_what_it_would_cost(shell, sandbox):
    shell.run("%%kling -d 5 --models v2.5-turbo-pro,v2.1-master --dry-run\nA cat")
    assert "klingai/v2.1-master" in shell.text
    assert re.search(r"Expected cost: \$\d", shell.text)
    assert sandbox.requests["submit"] == 0


def test_a_limit_of_cost_holds(shell, sandbox):
    with pytest.raises(InvalidRequestError, match="limit"):
        shell.run("%%kling -d 5 --max-cost 0.01\nA cat")
    shell.run("%config KlingMagics.max_cost = 0.01")
    with pytest.raises(InvalidRequestError, match="limit"):
        shell.run("%%kling -d 5\nA cat")
    assert sandbox.requests["submit"] == 0
    shell.run("%config KlingMagics.max_cost = 5")
    shell.run("%%kling -d 5\nA cat")
    assert sandbox.paid == 1


def test_a_batch_asks_before_a_large_sum_and_makes_every_combination(shell, sandbox):
    cell = "%%kling -d 5 --sweep light=dawn,noon --takes 2 {} -o films\nA heron at {{light}}"
    cell = cell.replace("{{light}}", "{light}")
    with pytest.raises(UsageError, match="Expected cost") as caught:
        shell.run(cell.replace("{}", ""))
    assert "--yes" in str(caught.value)
    assert sandbox.requests["submit"] == 0
    shell.run(cell.replace("{}", "--yes"))
    assert len({film.id for film in shell["films"]}) == 4
    prompts = sorted(payload["prompt"] for payload in payloads(sandbox))
    assert prompts == ["A heron at dawn"] * 2 + ["A heron at noon"] * 2
    shell.run(cell.replace("{}", ""))  # nothing left to pay, so nothing to ask
    assert sandbox.paid == 4


def test_a_batch_sweeps_parameters_models_and_lists_of_the_notebook(shell, sandbox):
    shell["texts"] = ["A cat", "A dog"]
    shell.run("%%kling --sweep prompt=texts --sweep duration=5,10 --yes -q\n \n")
    bodies = payloads(sandbox)
    assert sorted((body["prompt"], body["duration"]) for body in bodies) == [
        ("A cat", 5), ("A cat", 10), ("A dog", 5), ("A dog", 10)
    ]  # fmt: skip
    shell.run("%%kling --models v2.5-turbo-pro,v2.1-master -d 5 --yes -q\nA bird")
    assert {body["model"] for body in payloads(sandbox)[4:]} == {
        "klingai/v2.5-turbo/pro/text-to-video", "klingai/v2.1-master-text-to-video"
    }  # fmt: skip


def test_one_of_a_batch_fails_alone_and_the_cell_says_so(shell, sandbox):
    shell["texts"] = ["A cat", "A riot [fail:moderation]", "A dog"]
    with pytest.raises(GenerationFailedError, match="1 of 3"):
        shell.run("%%kling --sweep text=texts -d 5 --yes -o films\n{text}")
    good, bad, also_good = shell["films"]
    assert isinstance(good, KlingVideo)
    assert isinstance(also_good, KlingVideo)
    assert bad.status == "failed"


def test_no_more_than_so_many_run_at_once(shell, sandbox):
    shell.run("%config KlingMagics.at_once = 2")
    shell["texts"] = [f"Cat {number}" for number in range(6)]
    shell.run("%%kling --sweep text=texts -d 5 --yes -q\n{text}")
    moments = sorted(
        [(job.start, 1) for job in sandbox.jobs.values()]
        + [(job.end, -1) for job in sandbox.jobs.values()]
    )
    running, most = 0, 0
    for _, step in moments:
        running += step
        most = max(most, running)
    assert (len(sandbox.jobs), most) == (6, 2)


def test_the_older_url_makes_the_same_video(shell, sandbox, monkeypatch):
    monkeypatch.setenv("KLING_LEGACY_ENDPOINT", "1")
    shell.run("%%kling -d 5 -o clip\nA cat")
    assert shell["clip"].status == "completed"
    (post,) = sandbox.posts
    assert post.path.endswith("/v2/generate/video/kling/generation")


@pytest.mark.parametrize(
    "code",
    [
        "%%kling v2.5-turbo-prx -d 5\nA cat",
        "%kling gen 'A cat' -m v2.5-turbo-prx",
        "from kling_integrations.jupyter import generate\n"
        "generate('A cat', model='v2.5-turbo-prx')",
    ],
)
def test_an_unknown_model_goes_through_and_a_refusal_is_one_message(shell, sandbox, code):
    with pytest.raises(InvalidRequestError, match="Did you mean v2.5-turbo-pro"):
        shell.run(code)
    assert sandbox.requests["submit"] == 1
    assert shell.text.count("InvalidRequestError") == 1
    assert shell.text.count("not in the catalogue") == shell.text.count("Did you mean") == 1
    assert "Note: " not in shell.text
    assert "✖" not in shell.text
    assert ".py" not in shell.text


def test_a_note_about_a_request_that_is_taken_is_shown(shell, sandbox):
    shell.run("%%kling -d 5 -p mood=happy -o clip\nA cat")
    assert shell["clip"].status == "completed"
    assert shell.text.count("Note: ") == 1
    assert "mood" in shell.text
    shell.run("%%kling -d 5 -p mood=happy --bg -o job\nA dog")
    assert shell.text.count("Note: ") == 1
    shell["job"].result(20)


@pytest.mark.parametrize(
    "cell", ["%%kling -d 5 {}\nA cat", "%%kling -d 5 --takes 2 {}\nA cat", "%kling gen 'A cat' {}"]
)
def test_new_is_said_to_pay_each_time(shell, sandbox, cell):
    says = "--new is set: each run of this cell pays for another video."
    shell.run(cell.replace("{}", "--new"))
    assert shell.text.count(says) == 1
    shell.run(cell.replace("{}", ""))
    assert says not in shell.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output_dir", "'.hidden'"),
        ("width", "0"),
        ("embed", "'maybe'"),
        ("max_cost", "-1"),
        ("max_cost", "float('nan')"),
        ("confirm_above", "float('nan')"),
        ("timeout", "float('nan')"),
    ],
)
def test_settings_are_checked(shell, caplog, name, value):
    before = shell.run("%config KlingMagics." + name)
    shell.run(f"%config KlingMagics.{name} = {value}")
    assert re.search("must|expected any of|is no limit", caplog.text)
    assert shell.run("%config KlingMagics." + name) == before


def test_help_is_worth_reading(shell):
    shell.run("%%kling -h\n \n")
    for word in ("--max-cost", "--sweep", "{name[0]}", "Running the cell again", "-o clip"):
        assert word in shell.text
    info = shell.ip.object_inspect("%%kling")
    assert "Running the cell again" in info["docstring"]
    assert "history" in shell.ip.object_inspect("%kling")["docstring"]


def test_unloading_takes_all_away(shell):
    shell.run("%%kling -d 5 --bg -o job\nA cat")
    shell["job"].result(20)
    shell.run("%unload_ext kling_integrations")
    assert "kling" not in shell.ip.magics_manager.magics["cell"]
    assert not [m for m in shell.ip.Completer.custom_matchers if "kling" in m.__name__]
    assert "kling-watcher" not in {thread.name for thread in threading.enumerate()}
    shell.run("%load_ext kling_integrations")
    shell.run("%%kling -d 5 -o clip\nA cat")
    assert "reused" in shell.text


def interrupt_when(sandbox, condition) -> None:
    """Presses the stop button once the sandbox has seen something."""

    def press() -> None:
        sandbox.wait_for(condition)
        _thread.interrupt_main()

    threading.Thread(target=press).start()


def test_an_interrupt_of_a_batch_keeps_what_runs_and_pays_for_no_more(shell, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    shell.run("%config KlingMagics.at_once = 2")
    cell = "%%kling --sweep x=1,2,3,4 -d 5 --yes -o films\nCat {x}"
    interrupt_when(sandbox, lambda s: s.requests["poll"] >= 4)
    with pytest.raises(StoppedWaiting) as caught:
        shell.run(cell)
    assert "2 generations go on" in str(caught.value)
    assert "2 more were not submitted" in str(caught.value)
    assert all(id in str(caught.value) for id in sandbox.jobs)
    assert "Traceback" not in shell.text
    sandbox.clear_faults()
    for job in (job for job in shell["films"] if job.id):
        assert job.result(20).status == "completed"
    assert sandbox.paid == 2
    shell.run(cell)
    assert sandbox.paid == 4


def test_what_is_finished_needs_no_place_in_the_line(shell, sandbox):
    shell.run("%config KlingMagics.at_once = 1")
    shell.run("%%kling -d 5\nA cat")
    sandbox.fault("poll", "odd-status", None, word="queued")
    shell.run("%%kling -d 5 --bg -o dog\nA dog")
    shell.run("%%kling -d 5 --timeout 3000 -o cat\nA cat")
    assert shell["cat"].status == "completed"
    assert not shell["dog"].done()


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_paid(shell, sandbox, home):
    (home / "kling_outputs").write_text("a file in the way")
    with pytest.raises(InvalidRequestError, match="not a folder"):
        shell.run("%%kling -d 5\nA cat")
    assert "Traceback" not in shell.text
    assert sandbox.paid == 0
    shell.run("%%kling -d 5 -f films/ -o clip\nA cat")
    assert (shell["clip"].status, sandbox.paid) == ("completed", 1)
