"""The commands that look, and those on saved files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAT = "A cat on a roof"


def test_bare_kling_shows_where_things_stand_and_the_way_in(shell_on, endless):
    nothing = shell_on(key=None)()
    assert nothing.code == 0
    assert "kling demo" in nothing.out
    assert "key      none" in nothing.out
    shell = shell_on(endless)
    shell("generate", CAT, "--detach")
    status = shell()
    assert "SANDBOX" in status.out
    assert "running  1" in status.out


def test_jobs_asks_each_once_and_remembers_what_ended(shell_on, endless):
    shell = shell_on(endless)
    for prompt in ("A cat", "A dog"):
        shell("generate", prompt, "--detach")
    states = [job["status"] for job in shell("jobs", "--json").json["generations"]]
    assert len(states) == 2
    assert set(states) <= {"queued", "generating"}
    assert endless.requests["poll"] == 2
    endless.finish(fail="moderation")
    assert "failed" in shell("jobs").out
    assert shell("jobs").out == "Nothing is running.\n"


def test_show_tells_of_one_generation(shell, sandbox):
    shell("generate", CAT, "-d", "10")
    shown = shell("show").out
    [generation_id] = sandbox.jobs
    for fact in (generation_id, "completed", CAT, "10", "sandbox", ".mp4"):
        assert fact in shown
    assert generation_id in shell("show", generation_id[:8]).out  # the beginning will do
    assert shell("show", generation_id, "--json").json["prompt"] == CAT


def test_show_says_why_a_generation_failed(shell, sandbox):
    shell("generate", "A [fail:moderation] cat")
    assert "failed" in shell("show").out
    assert shell("show", "--json").json["error"]


def test_history_searches_prompts_and_models(shell, sandbox):
    shell("generate", CAT)
    shell("generate", "A dog", "-m", "v1.6-pro", "--detach")
    everything = shell("history").out.splitlines()
    assert len(everything) == 3
    assert "A dog" in everything[1]  # the newest first
    assert len(shell("history", "--search", "ROOF").out.splitlines()) == 2
    assert len(shell("history", "--model", "v1.6").out.splitlines()) == 2
    assert len(shell("history", "--limit", "1").out.splitlines()) == 2
    assert len(shell("history", "--json").json["generations"]) == 2


def test_models_lists_all_and_describes_one(shell_on):
    shell = shell_on()
    assert len(shell("models", "--json").json["models"]) == 46
    turbo = shell("models", "turbo pro").out
    assert "v2.5-turbo-pro" in turbo
    assert "v1.6" not in turbo
    assert "cfg_scale" in shell("models", "v2.5-turbo-pro").out
    missed = shell("models", "v2.5trubo")
    assert missed.code == 2
    assert "v2.5-turbo-pro" in missed.err


@pytest.mark.parametrize(
    ("words", "usd"),
    [
        ([], 0.5),
        (["-d", "10"], 1.0),
        (["-m", "v2.6-pro"], 0.75),
        (["-m", "v2.6-pro", "--no-audio"], 0.5),
        (["-m", "v2-master", "-i", "not-there.png"], 1.4),
        (["-m", "klingai/v2.5-turbo/pro/image-to-video"], 0.5),
    ],
)
def test_cost_is_the_gateways_price_for_the_request(shell, sandbox, words, usd):
    assert shell("cost", "--json", *words).json["expected_usd"] == pytest.approx(usd)
    assert sandbox.posts == []


def test_balance_is_told_and_trouble_with_it_too(shell, sandbox):
    assert shell("balance").out.startswith("$1,000,000.00")
    assert shell("balance", "--json").json["current_balance"] == 1_000_000
    sandbox.fault("billing", "503")
    assert shell("balance").code == 4


def test_download_takes_the_file_that_is_here(shell, sandbox):
    generation_id = shell("generate", CAT, "--no-download", "--json").json["generation_id"]
    assert sandbox.requests["download"] == 0
    first = shell("download", generation_id, "-o", "one.mp4")
    second = shell("download", generation_id, "-o", "two.mp4", "--json")
    assert first.path.read_bytes() == (shell.folder / "two.mp4").read_bytes()
    assert second.json["status"] == "completed"
    assert sandbox.requests["download"] == 1


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
    told = json.loads(Path(sidecar).read_text("utf-8"))
    assert told["path"] == video
    assert told["prompt"] == CAT
    assert told["request"]["duration"] == 10
    assert "http" not in json.dumps(told)


def test_config_names_the_places_and_the_key_only_by_its_variable(shell):
    said = shell("config", "--json").json
    assert said["key"] == "from AIML_API_KEY"
    assert said["home"] == str(shell.home)


def test_version_is_the_packages(shell):
    import kling_integrations

    for words in (["version"], ["--version"]):
        assert kling_integrations.__version__ in shell(*words).out


def test_words_of_others_do_not_steer_the_terminal(shell, sandbox):
    shell("generate", "red \x1b[31m and \x1b]0;title\x07 and \u202eturned", "--detach")
    for words in (["history"], ["show"], ["jobs"]):
        assert not set("\x1b\x07\u202e") & set(shell(*words).out)


def test_a_pipe_that_closes_early_is_no_trouble(shell):
    line = " ".join(f"'{word}'" for word in shell.line("models"))
    done = subprocess.run(
        f"({line}; echo code $? >&2) | head -n 1", shell=True, env=shell.env, cwd=shell.folder,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.count("\n") == 1
    assert "Broken pipe" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_trouble(shell, sandbox, closed):
    line = " ".join(f"'{word}'" for word in shell.line("generate", CAT))
    done = subprocess.run(f"{line} {closed}", shell=True, env=shell.env, cwd=shell.folder)
    assert done.returncode == 0
    assert len(list(shell.folder.glob("*.mp4"))) == 1


def test_the_command_starts_quickly_because_it_loads_what_it_needs():
    code = (
        "import sys; from kling_integrations.cli import main; main(['models', 'v2.5-turbo-pro']);"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    heavy = {"requests", "aiohttp", "PIL", "av", "numpy", "IPython"}
    assert not heavy & set(loaded.stderr.split())


def test_the_sandbox_and_the_demo_run_from_the_command(shell_on):
    shell = shell_on(key=None)
    demo = shell("demo", "A white raccoon", "--json")
    assert demo.code == 0
    assert demo.json["paid"] == 1
    assert (shell.folder / demo.json["path"]).exists()
    assert not shell.home.exists()  # the user's ledger knows nothing of it
    listed = shell("sandbox", "--fault", "help")
    assert "drop-after" in listed.out
    assert shell("sandbox", "--fault", "submit:nonsense", "--port", "0").code == 2
