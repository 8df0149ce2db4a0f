"""Next steps in the words of a command line: ``kling …`` in a shell, ``%kling …`` in a notebook."""

from __future__ import annotations

import shlex

from ..core.errors import NextStep, Verb


def command_line(program: str, verb: str, generation_id: str, output: str | None = None) -> str:
    """``kling wait --out clip.mp4 -- ID``: ids may start with a dash, and hold what shells read."""
    words = [program, verb]
    if output is not None:
        quoted = shlex.quote(output)
        words += [f"--out={quoted}"] if output.startswith("-") else ["--out", quoted]
    if generation_id.startswith("-"):
        words.append("--")
    return " ".join([*words, shlex.quote(generation_id)])


def hint(step: NextStep, program: str = "kling") -> str:
    """A next step as a sentence; ``program`` is how the user calls the command."""

    def line(verb: str) -> str:
        return command_line(program, verb, step.generation_id or "ID", step.output)

    return {
        Verb.WAIT: f"Go on with: {line('wait')}",
        Verb.SHOW: f"Look at it with: {line('show')}",
        Verb.DOWNLOAD: f"Save it with: {line('download')}",
        Verb.RECOVER: f"Look it up with: {program} recover",
        Verb.SUBMIT_NEW: "To pay for another one knowingly: --new",
        Verb.SUBMIT_AGAIN: "Run the same again: what is paid for is picked up.",
        Verb.SET_KEY: "Set the environment variable AIML_API_KEY.",
        Verb.TRY_SANDBOX: (
            f"Without a key or money: {program} demo shows it in ten seconds, "
            f"{program} sandbox starts a stand-in to try everything."
        ),
        Verb.SET_HOME: "Set KLING_HOME to a folder that can be written.",
        Verb.SET_OUTPUT: "Name another file or folder with --out.",
        Verb.RAISE_COST_LIMIT: "Raise the limit with --max-cost, or leave it out.",
        Verb.DROP_COST_LIMIT: "Leave --max-cost out to submit at any price.",
        Verb.INSTALL: f"Install it with: pip install 'kling-integrations[{step.detail}]'",
        Verb.SKIP_BAD_ROWS: "To go ahead with the others: --skip-bad",
        Verb.TAKE_LITERALLY: "To send such texts as they are: --raw",
        Verb.NAME_PROMPTS: "Name the column with --prompt.",
    }[step.verb]
