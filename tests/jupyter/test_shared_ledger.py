"""A notebook whose user shares a ledger with a team."""

import os

import pytest

from kling_integrations import KlingClient, VideoRequest
from kling_integrations.core.storage import owner


@pytest.fixture
def team(tmp_path, monkeypatch):
    monkeypatch.setenv("KLING_LEDGER", "")
    return (tmp_path / "team").as_uri()


def test_a_video_that_a_colleague_paid_for_is_shown_as_such(
    shell, sandbox, team, tmp_path, monkeypatch
):
    from kling_integrations import Ledger

    with monkeypatch.context() as there:
        there.setattr(owner.platform, "node", lambda: "build-7")
        there.setattr(owner, "_user", lambda: "anna")
        there.setenv("KLING_HOME", str(tmp_path / "anna"))
        with KlingClient("sandbox", sandbox.base_url, ledger=Ledger(team)) as client:
            done = client.generate(VideoRequest(model="v2.5-turbo-pro", prompt="A raccoon"))
    shell.run(f"%config KlingMagics.ledger = '{team}'")
    shell.run("%%kling v2.5-turbo-pro -o clip\nA raccoon")
    assert shell["clip"].id == done.id
    assert shell["clip"].path.exists()
    assert "Made by anna on build-7, 0:0" in shell.text
    assert "--new pays for another one." in shell.text
    assert len(sandbox.posts) == 1


def test_a_change_of_the_ledger_holds_for_the_next_cell(shell, sandbox, team):
    shell.run("%%kling v2.5-turbo-pro\nA raccoon")
    shell.run(f"%config KlingMagics.ledger = '{team}'")
    assert os.environ["KLING_LEDGER"] == team
    shell.run("%%kling v2.5-turbo-pro\nA raccoon")  # one's own payment counts on
    shell.run("%%kling v2.5-turbo-pro\nA badger")
    assert len(sandbox.posts) == 2
    shell.run("%config KlingMagics.ledger = ''")
    assert "KLING_LEDGER" not in os.environ


@pytest.mark.parametrize("address", ["ftp://x/y", "file:///", "s3://"])
def test_an_address_that_cannot_hold_a_ledger_is_refused_when_it_is_set(
    shell, team, address, caplog
):
    shell.run(f"%config KlingMagics.ledger = '{address}'")  # IPython logs what a trait refuses
    assert "ledger: " in caplog.text
    assert os.environ["KLING_LEDGER"] == ""
