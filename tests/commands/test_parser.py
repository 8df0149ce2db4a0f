"""The whole grammar: every command is there, explains itself, and takes the global flags."""

import argparse
import contextlib
import io

import pytest

from kling_integrations.commands import exit_code, parser
from kling_integrations.core import errors


def parsed(*words):
    return parser().parse_args(words)


def test_mistakes_are_errors_with_exit_code_2_and_not_the_end_of_the_process():
    for words in (["generate", "-d"], ["frames", "last"], ["wait", "--timeout", "soon"], ["nope"]):
        with pytest.raises(errors.KlingError) as caught:
            parsed(*words)
        assert exit_code(caught.value) == 2


def test_flags_for_all_commands_stand_on_either_side_of_the_command():
    assert parsed("--json", "history").json
    assert parsed("history", "--json").json
    assert not hasattr(parsed("history"), "json")


def commands(words=()):
    root = parser(words=words)
    found = next(a for a in root._actions if isinstance(a, argparse._SubParsersAction))
    return sorted(found.choices)


def test_every_command_that_is_promised_is_there():
    promised = (
        "generate gen jobs wait show history models cost balance download frames extend export "
        "recover config version sandbox demo"
    )
    assert set(promised.split()) <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_a_line_that_names_a_command_is_read_without_most_others(command):
    for words in ([command], ["--json", command, "--debug"]):
        assert command in commands(words)
        assert len(commands(words)) <= 3


@pytest.mark.parametrize("words", [[], ["-h"], ["nope"], ["--json"], ["nope", "jobs"]])
def test_a_line_without_a_command_knows_them_all(words):
    assert commands(words) == commands()


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as left:
        parsed(command, "-h")
    assert left.value.code == 0
    assert f"usage: kling {command}" in shown.getvalue()
