"""`kling generate` and `kling extend`, as processes of their own, against a sandbox on loopback."""

import pytest
from commands.conftest import CAT, end_of

from kling_integrations import KlingVideo, VideoRequest
from kling_integrations.core.storage.saved_files import saved_file


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
    assert "Submitted" not in again.err


def test_new_pays_for_another_one(shell, sandbox):
    first, second = shell("generate", CAT), shell("generate", CAT, "--new")
    assert sandbox.paid == 2
    assert first.path != second.path
    assert shell("generate", CAT).out == second.out  # the newest one stands from now on


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


def test_a_dry_run_that_would_be_refused_names_the_ways_on(shell, sandbox):
    sandbox.fault("submit", "drop-after")
    shell("generate", CAT)
    dry = shell("generate", CAT, "--dry-run")
    assert "It would be refused: an earlier POST has no known outcome." in dry.out
    assert "Look it up with: kling recover\nTo pay for another one knowingly: --new\n" in dry.err
    assert len(sandbox.posts) == 1


def test_a_dry_run_promises_nothing_without_a_readable_ledger(shell, sandbox):
    shell("generate", CAT)
    (shell.home / "ledger.sqlite3").write_bytes(b"no database at all " * 100)
    dry = shell("generate", CAT, "--dry-run")
    assert (dry.code, dry.out) == (4, "")
    assert "ledger.sqlite3" in dry.err


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
    assert "Leave --max-cost out to submit at any price." in refused.err
    assert sandbox.posts == []


def test_the_prompt_can_come_from_stdin(shell, sandbox):
    shell("generate", "-", stdin='It\'s a "cat"\n')
    assert [post.body["prompt"] for post in sandbox.posts] == ['It\'s a "cat"']


def test_the_older_address_is_a_setting(shell, sandbox):
    assert shell("generate", CAT, KLING_LEGACY_ENDPOINT="1").code == 0
    assert ["/generate/video/kling/" in post.path for post in sandbox.posts] == [True]
    assert shell("generate", CAT, "--legacy-endpoint").code == 2


def test_an_unknown_model_is_sent_with_one_note_that_guesses(shell, sandbox):
    done = shell("generate", CAT, "-m", "v2.5-trubo-pro")
    assert done.code == 2  # this gateway does not know it either
    assert done.err.count("Did you mean v2.5-turbo-pro") == 1
    assert done.err.count("v2.5-trubo-pro") <= 3  # the headline, and one message
    assert "Note:" not in done.err
    assert done.err.count("kling: ") == 1
    assert [post.body["model"] for post in sandbox.posts] == ["v2.5-trubo-pro"]


def test_extend_starts_with_the_last_frame(shell, sandbox):
    shell("generate", CAT)
    longer = shell("extend", "last", "It jumps", "--json")
    assert longer.code == 0
    assert longer.json["model"] == "klingai/v2.5-turbo/pro/image-to-video"
    assert sandbox.posts[-1].body["image_url"].startswith("data:image/png")
    assert shell("extend", longer.json["generation_id"][:8], "It lands").code == 0


def test_a_parameter_that_is_not_documented_is_noted_where_it_is_taken(shell, sandbox):
    done = shell("generate", CAT, "-p", "sead=7")
    assert (done.code, sandbox.paid) == (0, 1)
    assert done.err.count("does not document sead") == 1


def test_extending_the_last_one_again_is_free_until_something_else_is_asked_for(shell, sandbox):
    shell("generate", CAT)
    first = shell("extend", "last", "It jumps")
    for _ in range(2):
        again = shell("extend", "last", " It jumps\n")
        assert (again.code, again.out) == (0, first.out), again
    assert sandbox.paid == 2
    assert "To extend it: kling extend " in again.err
    other = shell("extend", "last", "It lands")
    assert other.code == 0
    assert sandbox.paid == 3
    assert shell("extend", "last", "It lands").out == other.out
    assert shell("extend", "last", "It lands", "--new").code == 0
    assert sandbox.paid == 4
    frames = [post.body["image_url"] for post in sandbox.posts[1:]]
    assert frames[1] == frames[2]  # another take of the same extension
    assert shell("extend", "last", "It jumps").code == 0  # what was asked for before in between
    assert sandbox.paid == 5


def test_shell_and_notebook_extend_a_video_to_the_same_payment(shell, sandbox):
    first = shell("generate", CAT, "-d", "10", "--cfg-scale", "0.7", "--json").json
    longer = shell("extend", "last", "It jumps", "--json").json
    assert sandbox.posts[1].body["duration"] == 10
    assert sandbox.posts[1].body["cfg_scale"] == 0.7
    entry = shell.ledger.entry(sandbox.base_url, first["generation_id"])
    video = KlingVideo.from_file(
        saved_file(entry), entry.generation(), sandbox.base_url, entry=entry
    )
    request = VideoRequest(**video.continuation("It jumps"))
    decision = shell.ledger.preview(request, sandbox.base_url)
    assert decision.picks_up
    assert decision.entry.generation_id == longer["generation_id"]


def test_extending_the_last_one_without_the_video_before_it_is_not_guessed(shell, sandbox):
    first = shell("generate", CAT).path
    assert shell("extend", "last", "It jumps").code == 0
    first.unlink()
    refused = shell("extend", "last", "It jumps")
    assert refused.code == 2
    assert "give the id" in refused.err
    assert sandbox.paid == 2
    generation_id = list(sandbox.jobs)[-1]
    assert shell("extend", generation_id, "It jumps").code == 0
    assert sandbox.paid == 3


def test_an_extension_that_still_runs_is_picked_up_by_the_same_command(shell_on, endless):
    shell = shell_on(endless)
    shell("generate", CAT, "--detach")
    endless.finish()
    shell("wait")
    assert shell("extend", "last", "It jumps", "--detach").code == 3
    again = shell("extend", "last", "It jumps", "--detach")
    assert again.code == 3, again
    assert endless.paid == 2


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
    answer = done.json
    assert answer["exit_code"] == code
    assert answer["error"]["type"] == (kind or "SubmissionUncertainError")
    assert "kling: " in done.err
    assert len(sandbox.posts) <= 1
    assert bool(answer["generation_id"]) == (code in (1, 3) or kind == "DownloadError")
