"""Commands of several users who share a ledger."""

import sys
from pathlib import Path

CAT = "A cat on a roof"

# A command as another user of another machine runs it.
AS_ANNA = """
import sys
from kling_integrations.core.storage import owner
owner.platform.node = lambda: "build-7"
owner._user = lambda: "anna"
from kling_integrations.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_what_a_colleague_paid_for_is_picked_up_and_said_to_be_so(shell, sandbox, tmp_path):
    shell.env["KLING_LEDGER"] = (tmp_path / "team").as_uri()
    own_line = shell.line
    shell.line = lambda *words: [sys.executable, "-c", AS_ANNA, *words]
    anna = shell("generate", CAT, "-o", "anna.mp4", "--json", KLING_HOME=str(tmp_path / "anna"))
    Path(anna.json["path"]).unlink()
    shell.line = own_line
    ben = shell("generate", CAT, "-o", "ben.mp4")
    assert ben.path.name == "ben.mp4"
    assert ben.path.exists()
    assert "was submitted by anna on build-7 0:0" in ben.err
    assert "nothing is paid again" in ben.err
    assert len(sandbox.posts) == 1
    assert "anna on build-7" in shell("history").out
    assert "anna on build-7" in shell("show", anna.json["generation_id"]).out
    assert shell("history", "--json").json["generations"][0]["by"] == "anna on build-7"


def test_last_is_ones_own_last_and_never_a_colleagues(shell, sandbox, tmp_path):
    shell.env["KLING_LEDGER"] = (tmp_path / "team").as_uri()
    own = shell("generate", CAT, "--detach", "--json").json["generation_id"]
    own_line = shell.line
    shell.line = lambda *words: [sys.executable, "-c", AS_ANNA, *words]
    assert "no last generation" in shell("show", "last", KLING_HOME=str(tmp_path / "anna")).err
    shell("generate", "A dog", "--detach", KLING_HOME=str(tmp_path / "anna"))
    shell.line = own_line
    assert shell("show", "last", "--json").json["generation_id"] == own
    assert len(sandbox.posts) == 2


def test_a_wait_for_all_leaves_colleagues_alone(shell, endless, tmp_path):
    shell.env |= {
        "KLING_LEDGER": (tmp_path / "team").as_uri(),
        "AIML_BASE_URL": endless.base_url,
    }
    own_line = shell.line
    shell.line = lambda *words: [sys.executable, "-c", AS_ANNA, *words]
    shell("generate", CAT, "--detach", KLING_HOME=str(tmp_path / "anna"))
    shell.line = own_line
    assert "Nothing is running." in shell("jobs").out


def test_a_ledger_that_cannot_be_used_stops_the_command_before_it_pays(shell, sandbox, tmp_path):
    for address, why in (("ftp://host/x", "cannot be kept at ftp://"), ("s3://", "no bucket")):
        ended = shell("generate", CAT, KLING_LEDGER=address)
        assert ended.code == 2, ended
        assert why in ended.err
    (tmp_path / "file").write_text("")
    ended = shell("generate", CAT, KLING_LEDGER=(tmp_path / "file").as_uri())
    assert ended.code == 4, ended
    assert "cannot be reached" in ended.err
    assert not sandbox.posts


def test_config_says_where_the_ledger_is(shell, tmp_path):
    team = (tmp_path / "team").as_uri()
    assert team in shell("config", KLING_LEDGER=team).out
    assert "cannot be kept" in shell("config", KLING_LEDGER="ftp://x").out
