"""`kling generate` and its kin, as processes of their own, against a sandbox on loopback."""

import json

import pytest
from commands.conftest import end_of

CAT = "A cat on a roof"


def test_the_path_is_all_that_goes_to_stdout(shell, sandbox):
    done = shell("generate", CAT)
    assert done.code == 0
    assert done.path.is_absolute()
    assert done.path.read_bytes()[4:8] == b"ftyp"
    assert done.path.parent == shell.folder
    assert done.path.name.startswith("a-cat-on-a-roof_")
    [generation_id] = sandbox.jobs
    assert f"Submitted: {generation_id}" in done.err
    assert "SANDBOX" in done.err


def test_json_is_one_object_and_everything_else_goes_to_stderr(shell, sandbox):
    done = shell("generate", CAT, "--json", "-o", "cat.mp4")
    manifest = done.json
    assert done.code == 0
    assert manifest["generation_id"] in sandbox.jobs
    assert manifest["status"] == "completed"
    assert manifest["model"] == "klingai/v2.5-turbo/pro/text-to-video"
    assert manifest["path"] == str(shell.folder / "cat.mp4")
    assert manifest["sandbox"] is True
    assert manifest["size"] == (shell.folder / "cat.mp4").stat().st_size
    assert manifest["polls"] >= 1
    assert "http" not in done.out  # a link is a secret
    assert "Submitted" in done.err


def test_the_same_request_again_costs_nothing_and_asks_nothing(shell, sandbox):
    first = shell("generate", CAT)
    before = dict(sandbox.requests)
    again = shell("generate", CAT)
    assert (again.code, again.out) == (0, first.out)
    assert dict(sandbox.requests) == before
    assert "nothing is paid again" in again.err


def test_new_pays_for_another_one(shell, sandbox):
    first, second = shell("generate", CAT), shell("generate", CAT, "--new")
    assert sandbox.paid == 2
    assert first.path != second.path
    assert shell("generate", CAT).out == second.out  # the newest one stands from now on


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


def test_two_processes_that_ask_for_the_same_at_once_make_one_post(shell, sandbox):
    sandbox.fault("submit", "slow", seconds=0.5)  # the second one comes in the middle of the first
    both = [shell.start("generate", CAT, "--json") for _ in range(2)]
    first, second = (end_of(process) for process in both)
    assert (first.code, second.code) == (0, 0), (first, second)
    assert first.json["generation_id"] == second.json["generation_id"]
    assert (len(sandbox.posts), sandbox.paid) == (1, 1)
    assert sorted("Submitted" in done.err for done in (first, second)) == [False, True]


def test_a_deadline_is_no_failure_and_the_way_back_names_the_place(shell_on, endless):
    shell = shell_on(endless)
    late = shell("generate", CAT, "--timeout", "5", "-o", "a b.mp4")
    [generation_id] = endless.jobs
    assert late.code == 3
    assert f"kling wait --out 'a b.mp4' {generation_id}" in late.err
    assert late.out == ""
    endless.finish()
    assert shell("generate", CAT, "-o", "a b.mp4").path.exists()
    assert endless.paid == 1


def test_a_dry_run_sends_nothing_that_is_paid(shell, sandbox):
    dry = shell("generate", CAT, "--dry-run", "--json")
    assert dry.code == 0
    assert dry.json["action"] == "submit"
    assert dry.json["expected_usd"] == pytest.approx(0.5)
    assert (sandbox.posts, sandbox.requests["poll"]) == ([], 0)
    shell("generate", CAT)
    assert shell("generate", CAT, "--dry-run", "--json").json["action"] == "reuse"


def test_a_dry_run_needs_no_key_and_no_gateway(shell_on):
    dry = shell_on(key=None)("generate", CAT, "--dry-run")
    assert dry.code == 0
    assert "Expected cost: unknown" in dry.out


def test_the_limit_is_held_before_anything_is_submitted(shell, sandbox):
    refused = shell("generate", CAT, "--max-cost", "0.49")
    assert refused.code == 2
    assert "$0.50" in refused.err
    assert sandbox.posts == []
    assert shell("generate", CAT, "--max-cost", "0.50").code == 0


def test_the_limit_does_not_stand_in_the_way_of_what_is_paid_already(shell, sandbox):
    shell("generate", CAT)
    assert shell("generate", CAT, "--max-cost", "0").code == 0
    assert shell("generate", CAT, "--max-cost", "0", "--new").code == 2
    assert sandbox.paid == 1


def test_without_a_price_the_limit_refuses_and_says_how_to_lift_it(shell, sandbox):
    sandbox.fault("models", "reply", body={"object": "list", "data": []})
    refused = shell("generate", CAT, "--max-cost", "5")
    assert refused.code == 2
    assert "Leave out the limit" in refused.err
    assert sandbox.posts == []


def test_a_place_that_cannot_be_written_is_noticed_before_paying(shell, sandbox):
    (shell.folder / "file").write_text("a file is no folder")
    refused = shell("generate", CAT, "-o", "file/cat.mp4")
    assert refused.code == 2
    assert sandbox.posts == []


def test_the_prompt_can_come_from_stdin(shell, sandbox):
    shell("generate", "-", stdin='It\'s a "cat"\n')
    assert [post.body["prompt"] for post in sandbox.posts] == ['It\'s a "cat"']


def test_the_older_address_is_taken_when_asked_for(shell, sandbox):
    assert shell("generate", CAT, "--legacy-endpoint").code == 0
    assert ["/generate/video/kling/" in post.path for post in sandbox.posts] == [True]


def test_extend_starts_with_the_last_frame(shell, sandbox):
    shell("generate", CAT)
    longer = shell("extend", "last", "It jumps", "--json")
    assert longer.code == 0
    assert longer.json["model"] == "klingai/v2.5-turbo/pro/image-to-video"
    assert sandbox.posts[-1].body["image_url"].startswith("data:image/png")
    assert shell("extend", longer.json["generation_id"][:8], "It lands").code == 0


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "prompt", "fault", "code", "kind"),
    [
        ({}, "A [fail:moderation] cat", None, 1, "GenerationFailedError"),
        ({"AIML_API_KEY": "bad"}, CAT, None, 2, "AuthenticationError"),
        ({"AIML_API_KEY": "broke"}, CAT, None, 2, "InsufficientCreditsError"),
        ({}, " ", None, 2, "InvalidRequestError"),
        ({}, CAT, ("submit", "400"), 2, "InvalidRequestError"),
        ({"AIML_BASE_URL": "http://example.com"}, CAT, None, 2, "InvalidRequestError"),
        ({}, CAT, ("download", "redirect", {"to": "ftp://localhost/x"}), 4, "DownloadError"),
        ({}, CAT, ("submit", "drop-after"), 5, "SubmissionUncertainError"),
        ({}, CAT, ("submit", "503", {"accept": True, "header": False}), 5, None),
    ],
)
def test_each_way_to_fail_has_its_exit_code_its_sentence_and_its_json(
    shell, sandbox, env, prompt, fault, code, kind
):
    if fault:
        moment, what, *options = fault
        sandbox.fault(moment, what, **(options[0] if options else {}))
    done = shell("generate", prompt, "--json", **env)
    assert done.code == code, done
    said = done.json
    assert said["exit_code"] == code
    assert said["error"]["type"] == (kind or "SubmissionUncertainError")
    assert "kling: " in done.err
    assert len(sandbox.posts) <= 1
    assert bool(said["generation_id"]) == (code in (1, 3) or kind == "DownloadError")


def test_an_uncertain_post_stops_the_next_try_until_it_is_recovered(shell, sandbox):
    sandbox.fault("submit", "drop-after")
    first = shell("generate", CAT)
    assert first.code == 5
    assert "kling recover" in first.err
    assert shell("generate", CAT).code == 5
    assert len(sandbox.posts) == 1
    sandbox.finish()
    found = shell("recover", "--json")
    [generation_id] = sandbox.jobs
    assert found.code == 0
    assert [row["generation_id"] for row in found.json["recovered"]] == [generation_id]
    assert shell("generate", CAT).path.exists()
    assert len(sandbox.posts) == 1


def test_what_the_log_does_not_list_stays_uncertain_and_new_pays_past_it(shell, sandbox):
    sandbox.fault("submit", "drop-before")
    assert shell("generate", CAT).code == 5
    looked = shell("recover")
    assert looked.code == 5
    assert "not listed" in looked.out
    assert "--new" in looked.out
    assert shell("generate", CAT, "--new").code == 0
    assert sandbox.paid == 1
    assert shell("generate", CAT).code == 0
    assert shell("recover").code == 0  # nothing is in the way any more


def test_without_a_key_the_message_shows_the_ways_in(shell_on):
    done = shell_on(key=None)("generate", CAT)
    assert done.code == 2
    assert all(word in done.err for word in ("AIML_API_KEY", "kling demo", "kling sandbox"))


def test_the_sandbox_needs_no_key(shell_on, sandbox):
    assert shell_on(sandbox, key=None)("generate", CAT).code == 0


def test_a_corrupt_ledger_is_reported_and_nothing_is_paid(shell, sandbox):
    shell("generate", CAT)
    (shell.home / "ledger.sqlite3").write_bytes(b"no database at all " * 100)
    done = shell("generate", CAT)
    assert done.code == 4
    assert "ledger.sqlite3" in done.err
    assert sandbox.paid == 1


def test_a_corrupt_ledger_does_not_keep_anybody_from_what_is_paid(shell, sandbox):
    generation_id = shell("generate", CAT, "--json").json["generation_id"]
    (shell.home / "ledger.sqlite3").write_bytes(b"no database at all " * 100)
    assert shell("wait", generation_id, "-o", "saved.mp4").path.exists()


def test_a_home_that_cannot_be_made_is_told_in_one_line(shell, sandbox):
    done = shell("generate", CAT, KLING_HOME="/proc/nowhere")
    assert done.code == 4
    assert "KLING_HOME" in done.err
    assert sandbox.posts == []


def test_one_failure_does_not_keep_the_others_waiting(shell, sandbox):
    for prompt in ("A cat", "A [fail:moderation] dog", "A fish"):
        shell("generate", prompt, "--detach")
    waited = shell("wait", "all", "--json", "-o", "films/")
    assert waited.code == 1
    states = [each["status"] for each in waited.json["generations"]]
    assert states == ["completed", "failed", "completed"]
    assert len(list((shell.folder / "films").glob("*.mp4"))) == 2
    assert shell("wait").out == "Nothing is running.\n"


def test_an_unknown_model_is_sent_with_one_note_that_guesses(shell, sandbox):
    done = shell("generate", CAT, "-m", "v2.5-trubo-pro")
    assert done.code == 2  # this gateway does not know it either
    assert "Did you mean v2.5-turbo-pro" in done.err
    assert [post.body["model"] for post in sandbox.posts] == ["v2.5-trubo-pro"]


def test_tracebacks_are_there_for_those_who_ask(shell):
    quiet = shell("generate", CAT, "-d", "7")
    assert quiet.err.count("\n") == 1
    process = shell.start("--debug", "generate", CAT, "-d", "7")
    assert "Traceback" in process.communicate(timeout=60)[1]


def test_the_key_is_in_no_output(shell, sandbox):
    key = "sandbox-3141592653589793"
    said = [
        shell("generate", CAT, "--json", AIML_API_KEY=key),
        shell("config", AIML_API_KEY=key),
        shell("show", AIML_API_KEY=key),
        shell("generate", CAT, "--new", AIML_API_KEY=f"bad-{key}"),
    ]
    assert not [done for done in said if key in done.out + done.err]
    assert key not in json.dumps([entry.request for entry in shell.ledger.history()])
