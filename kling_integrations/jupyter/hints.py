"""Next steps in the words of a notebook: run the cell again, or a line magic."""

from __future__ import annotations

import shlex

from ..core.errors import NextStep, Verb
from ..core.settings import KEY_VARIABLES


def line(verb: str, generation_id: str | None, output: str | None = None) -> str:
    """``%kling wait -- ID``: ids may start with a dash, and hold what ``%kling`` would split."""
    words = ["%kling", verb]
    if output is not None:
        words += ["--out", shlex.quote(output)]
    generation_id = generation_id or "ID"
    if generation_id.startswith("-"):
        words.append("--")
    return " ".join([*words, shlex.quote(generation_id)])


def hint(step: NextStep) -> str:
    """A next step as a sentence for a cell's output."""
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
    }[step.verb]
