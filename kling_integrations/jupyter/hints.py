"""Next steps in the words of a notebook: run the cell again, or a line magic, or a call.

A notebook without magics (marimo, a script) is only ever told what it has.
"""

from __future__ import annotations

import shlex

from ..core.errors import NextStep, Verb
from ..core.settings import KEY_VARIABLES
from .options import loaded


def line(verb: str, generation_id: str | None, output: str | None = None) -> str:
    """``%kling wait -- ID``: ids may start with a dash, and hold what ``%kling`` would split."""
    words = ["%kling", verb]
    if output is not None:
        words += ["--out", shlex.quote(output)]
    generation_id = generation_id or "ID"
    if generation_id.startswith("-"):
        words.append("--")
    return " ".join([*words, shlex.quote(generation_id)])


def has_magics() -> bool:
    """Whether ``%kling`` is there."""
    here = loaded()
    return here is not None and here.magics


def new_word() -> str:
    """What pays for another video of the same request."""
    return "--new" if has_magics() else "new=True"


def hint(step: NextStep) -> str:
    """A next step as a sentence for a cell's output."""
    return magic_words(step) if has_magics() else call_words(step)


def call_words(step: NextStep) -> str:
    """A next step for those who call ``kling_integrations.generate`` themselves."""
    resume = f"kling_integrations.resume({step.generation_id or 'ID'!r})"
    return {
        Verb.WAIT: f"Call it again to go on, or: {resume}",
        Verb.SHOW: f"Look at it with: {resume}",
        Verb.DOWNLOAD: f"Call it again to save it, or: {resume}",
        Verb.RECOVER: "Look it up with: kling_integrations.recover()",
        Verb.SUBMIT_NEW: "To pay for another one knowingly, add new=True to the call.",
        Verb.SUBMIT_AGAIN: "Call it again: what is paid for is picked up.",
        Verb.SET_KEY: f"Set {KEY_VARIABLES[0]} in the environment, before Python starts.",
        Verb.TRY_SANDBOX: (
            "To try everything without a key or money: kling_integrations.use_sandbox()"
        ),
        Verb.SET_HOME: ("Set KLING_HOME to a folder that can be written, before Python starts."),
        Verb.SET_OUTPUT: "Name another file=, and call it again.",
        Verb.RAISE_COST_LIMIT: "Raise the limit, or leave it out.",
        Verb.DROP_COST_LIMIT: "To submit at any price, leave the limit out.",
        Verb.INSTALL: f"Install it with: pip install 'kling-integrations[{step.detail}]'",
        Verb.SKIP_BAD_ROWS: "To go ahead with the others, add skip_bad=True to the call.",
        Verb.TAKE_LITERALLY: "To send such texts as they are, add raw=True to the call.",
        Verb.NAME_PROMPTS: 'Name the column with prompt="…".',
    }[step.verb]


def magic_words(step: NextStep) -> str:
    """A next step where there are ``%%kling`` and ``%kling``."""
    about = step.generation_id
    return {
        Verb.WAIT: f"Run the cell again to go on, or: {line('wait', about)}",
        Verb.SHOW: f"Look at it with: {line('show', about)}",
        Verb.DOWNLOAD: (
            f"Run the cell again to save it, or: {line('download', about, step.output)}"
        ),
        Verb.RECOVER: "Look it up with: %kling recover",
        Verb.SUBMIT_NEW: "To pay for another one knowingly, add --new to the cell.",
        Verb.SUBMIT_AGAIN: "Run the cell again: what is paid for is picked up.",
        Verb.SET_KEY: f"Set it with: %env {KEY_VARIABLES[0]}=… (better: before Jupyter starts)",
        Verb.TRY_SANDBOX: "To try everything without a key or money: %kling sandbox",
        Verb.SET_HOME: (
            "Set KLING_HOME to a folder that can be written, before the kernel starts."
        ),
        Verb.SET_OUTPUT: "Name another place with -f, and run the cell again.",
        Verb.RAISE_COST_LIMIT: (
            "Raise the limit (--max-cost, or %config KlingMagics.max_cost), or leave it out."
        ),
        Verb.DROP_COST_LIMIT: (
            "To submit at any price, leave the limit out (--max-cost, or "
            "%config KlingMagics.max_cost)."
        ),
        Verb.INSTALL: f"Install it with: %pip install 'kling-integrations[{step.detail}]'",
        Verb.SKIP_BAD_ROWS: (
            "To go ahead with the others, add --skip-bad to the line (skip_bad=True to the call)."
        ),
        Verb.TAKE_LITERALLY: "To send such texts as they are, add --raw (raw=True to a call).",
        Verb.NAME_PROMPTS: "Name the column with --prompt.",
    }[step.verb]
