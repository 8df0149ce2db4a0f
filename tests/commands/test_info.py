"""Bare `kling`, `config` and `version`."""

import subprocess
import sys

from commands.conftest import CAT


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


def test_config_names_the_places_and_the_key_only_by_its_variable(shell):
    config = shell("config", "--json").json
    assert config["key"] == "from AIML_API_KEY"
    assert config["home"] == str(shell.home)


def test_config_shows_what_is_wrong_with_the_ledger(shell):
    config = shell("config", "--json", KLING_HOME="/proc/nowhere")
    assert (config.code, config.json["home"]) == (0, "/proc/nowhere")
    assert config.json["ledger"].startswith("The ledger /proc/nowhere/ledger.sqlite3 cannot be")


def test_version_is_the_packages(shell):
    import kling_integrations

    for words in (["version"], ["--version"]):
        assert kling_integrations.__version__ in shell(*words).out


def test_a_notebook_prints_the_same_status_with_its_own_facts_and_commands(shell_on, endless):
    shell = shell_on(endless, key=None)
    running = shell("generate", CAT, "--detach").out.strip()
    code = (
        "import sys\n"
        "from kling_integrations import commands\n"
        "class Notebook(commands.Console):\n"
        "    program = '%kling'\n"
        "commands.print_status(Notebook(sys.stdout, sys.stderr),\n"
        "    ways_in=[('%%kling', 'a video')], without_key=[('%env', 'a key')],\n"
        f"    facts=[('videos', 'films')], running=['another', {running!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=shell.env, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[1:] == [
        f"  gateway  {endless.base_url} (SANDBOX: nothing is real)",
        "  key      none needed",
        "  videos   films",
        "  running  2: %kling jobs, %kling wait",
        "",
        "  %%kling  a video",
    ]
