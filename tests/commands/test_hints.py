"""Next steps in the words of a command line."""

import pytest

from kling_integrations.commands import Parser, add_command, hint, parser
from kling_integrations.core.errors import NextStep, Verb


@pytest.mark.parametrize("verb", Verb)
def test_every_next_step_has_words_for_shell_and_notebook(verb):
    step = NextStep(verb, generation_id="abc", detail="sandbox")
    assert hint(step)
    assert hint(step, "%kling") == hint(step).replace("kling ", "%kling ")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (NextStep(Verb.WAIT, "abc"), "Go on with: kling wait abc"),
        (NextStep(Verb.WAIT, "-abc"), "Go on with: kling wait -- -abc"),
        (NextStep(Verb.WAIT, "a b", output="c d.mp4"),
         "Go on with: kling wait --out 'c d.mp4' 'a b'"),
        (NextStep(Verb.DOWNLOAD, "-a", output="-b.mp4"),
         "Save it with: kling download --out=-b.mp4 -- -a"),
        (NextStep(Verb.RECOVER, client_request_id="kling-1"), "Look it up with: kling recover"),
        (NextStep(Verb.SUBMIT_NEW), "To pay for another one knowingly: --new"),
        (NextStep(Verb.INSTALL, detail="sandbox"),
         "Install it with: pip install 'kling-integrations[sandbox]'"),
    ],
)  # fmt: skip
def test_a_next_step_is_a_line_that_can_be_typed(step, words):
    assert hint(step) == words


@pytest.mark.parametrize("verb", [Verb.WAIT, Verb.DOWNLOAD])
@pytest.mark.parametrize("generation_id", ["abc", "-abc", "a'b c", "--"])
@pytest.mark.parametrize("output", [None, "film.mp4", "-film.mp4", "a b's/"])
def test_the_grammar_takes_the_line_as_it_is_meant(verb, generation_id, output):
    import shlex

    line = hint(NextStep(verb, generation_id, output=output)).partition(": ")[2]
    args = parser().parse_args(shlex.split(line)[1:])
    ids = args.id if isinstance(args.id, list) else [args.id]
    assert (args.command, ids) == (verb.value, [generation_id])
    assert getattr(args, "out", None) == output


def test_an_integration_can_add_commands_of_its_own():
    root = Parser(prog="%kling")
    add_command(root.add_subparsers(dest="command", parser_class=Parser), "x", None, "tries it")
    assert root.parse_args(["x"]).command == "x"
