"""`kling recover`: submissions without a known outcome."""

from commands.conftest import CAT


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
