"""What a command works with: the key, the ledger, the generation that a word means."""

from commands.conftest import CAT


def test_without_a_key_the_message_shows_the_ways_in(shell_on):
    done = shell_on(key=None)("generate", CAT)
    assert done.code == 2
    assert all(word in done.err for word in ("AIML_API_KEY", "kling demo", "kling sandbox"))


def test_words_that_no_generation_fits(shell, sandbox):
    nothing_yet = shell("show", "last")
    assert nothing_yet.code == 2
    assert "There is no last generation" in nothing_yet.err
    assert shell("show", "unknown-id").code == 4  # taken as an id, which the gateway does not know


def test_the_beginning_of_several_ids_is_refused_with_the_ids(shell, sandbox):
    from kling_integrations import VideoRequest
    from kling_integrations.core.generation import Generation, Status

    ids = ["abcdefg-1", "abcdefg-2"]
    for generation_id, prompt in zip(ids, ("A cat", "A dog"), strict=True):
        request = VideoRequest(prompt=prompt)
        _, record = shell.ledger.claim(request, sandbox.base_url, new=False, take=1)
        shell.ledger.advance(record.submitted(generation_id))
    ambiguous = shell("show", "abcdefg")
    assert ambiguous.code == 2
    assert all(generation_id in ambiguous.err for generation_id in ids)
    shell.ledger.completed(sandbox.base_url, Generation(ids[0], Status.COMPLETED), None)
    assert ids[0] in shell("show", ids[0]).out
    assert shell("show", "abcd").code == 4  # too short to stand for an id


def test_another_name_of_the_same_gateway_has_the_same_last_generation(shell, sandbox):
    generation_id = shell("generate", CAT, "--json").json["generation_id"]
    renamed = sandbox.base_url.replace("127.0.0.1", "localhost")
    assert shell("show", "last", "--json", AIML_BASE_URL=renamed).json["generation_id"] == (
        generation_id
    )
    beginning = shell("show", generation_id[:8], "--json", AIML_BASE_URL=renamed)
    assert beginning.json["generation_id"] == generation_id


def test_the_sandbox_needs_no_key(shell_on, sandbox):
    assert shell_on(sandbox, key=None)("generate", CAT).code == 0


def test_a_corrupt_ledger_is_reported_and_nothing_is_paid(shell, sandbox):
    shell("generate", CAT)
    (shell.home / "ledger.sqlite3").write_bytes(b"no database at all " * 100)
    done = shell("generate", CAT)
    assert done.code == 4
    assert "ledger.sqlite3" in done.err
    assert sandbox.paid == 1


def test_a_corrupt_ledger_does_not_keep_the_user_from_what_is_paid(shell, sandbox):
    generation_id = shell("generate", CAT, "--json").json["generation_id"]
    (shell.home / "ledger.sqlite3").write_bytes(b"no database at all " * 100)
    assert shell("wait", generation_id, "-o", "saved.mp4").path.exists()


def test_a_home_that_cannot_be_made_is_one_short_message(shell, sandbox):
    done = shell("generate", CAT, KLING_HOME="/proc/nowhere")
    assert done.code == 4
    assert "KLING_HOME" in done.err
    assert sandbox.posts == []
