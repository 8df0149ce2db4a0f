"""`kling jobs`, `show` and `history`: what was submitted, and how it stands."""

from commands.conftest import CAT


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
