"""The plain console: answer and notes, facts, tables, progress, in the user's own words."""

import argparse
import ast
import io
import re
from pathlib import Path

import pytest

from kling_integrations import cli, commands
from kling_integrations.commands import Console
from kling_integrations.core.errors import NextStep, Verb
from kling_integrations.core.generation import Generation, Status
from kling_integrations.core.progress import Progress


class Notebook(Console):
    program = "%kling"


@pytest.fixture
def console():
    return Console(io.StringIO(), io.StringIO())


def test_commands_and_next_steps_are_worded_as_the_user_types_them(console):
    notebook = Notebook(console.out, console.err)
    assert console.command("jobs") == "kling jobs"
    assert notebook.command("jobs") == "%kling jobs"
    assert notebook.hint(NextStep(Verb.WAIT, "abc")) == "Go on with: %kling wait abc"


def test_the_answer_and_the_notes_go_apart_and_json_is_the_only_answer(console):
    console.say("answer")
    console.note("note")
    console.result({"a": 1})
    assert (console.out.getvalue(), console.err.getvalue()) == ("answer\n", "note\n")
    machine = Console(io.StringIO(), io.StringIO(), as_json=True)
    machine.say("answer")
    machine.result({"a": 1})
    assert (machine.out.getvalue(), machine.err.getvalue()) == ('{"a": 1}\n', "answer\n")


def test_facts_leave_out_what_is_empty_and_keep_zeros(console):
    console.facts([("id", "abc"), ("why", None), ("prompt", ""), ("duration", 0)])
    assert console.out.getvalue() == "id        abc\nduration  0\n"


def test_a_table_leaves_out_empty_columns_and_fits_the_width(console):
    console.width = 12
    console.table([("a", "", "long words here"), ("b", "", "more")], ("X", "Y", "Z"))
    assert console.out.getvalue() == "X  Z\na  long wor…\nb  more\n"
    assert console.short_id("0123456789") == "01234567"


def test_progress_is_repeated_when_it_changed_and_not_at_the_end(console):
    for status, elapsed in [
        (Status.QUEUED, 1), (Status.QUEUED, 2), (Status.GENERATING, 3), (Status.COMPLETED, 4)
    ]:  # fmt: skip
        console.progress(Progress(Generation("abc", status), elapsed, 100, 0.1, 1))
    assert console.err.getvalue() == (
        "queued · 0:01 of about 1:40 · abc\ngenerating · 0:03 of about 1:40 · abc\n"
    )


def texts_of(path):
    """The string literals of a file, those that stand alone (docstrings) left out."""
    tree = ast.parse(path.read_text("utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def test_no_text_holds_a_command_that_a_notebook_would_have_to_repair():
    root = commands.parser()
    known = next(a for a in root._actions if isinstance(a, argparse._SubParsersAction)).choices
    command = re.compile(rf"\bkling ({'|'.join(known)}|-h)\b")
    files = [*Path(commands.__file__).parent.glob("*.py"), Path(cli.__file__)]
    assert len(files) > 10
    for path in files:
        for text in texts_of(path):
            assert not command.search(text), f"{path.name}: {text}"
