"""Next steps in the notebook's words."""

from __future__ import annotations

import shlex

import pytest

from kling_integrations.core.errors import (
    GenerationNotFoundError,
    KlingError,
    NextStep,
    StoppedWaiting,
    Verb,
)
from kling_integrations.jupyter.errors import lines_of, rendered
from kling_integrations.jupyter.hints import hint


@pytest.mark.parametrize("verb", Verb)
def test_every_next_step_is_said_in_notebook_words(verb):
    words = hint(NextStep(verb, "an-id", "kling-1", "clip.mp4", "sandbox"))
    assert words.endswith((".", ")")) or "%" in words
    assert "client." not in words
    assert " kling " not in words.replace("%kling ", "")


@pytest.mark.parametrize("generation_id", ["-id", "an id", "kling-video:1/2", "it's"])
@pytest.mark.parametrize("verb", [Verb.WAIT, Verb.SHOW, Verb.DOWNLOAD])
def test_an_id_survives_being_typed(verb, generation_id):
    words = hint(NextStep(verb, generation_id))
    line = words[words.index("%kling ") :]
    assert shlex.split(line)[-1] == generation_id
    assert ("--" in shlex.split(line)) is generation_id.startswith("-")


def test_an_error_in_a_cell_is_its_type_its_message_and_the_next_steps():
    error = GenerationNotFoundError("No such generation: an-id.", next_steps=[
        NextStep(Verb.SHOW, "an-id"), NextStep(Verb.RECOVER)
    ])  # fmt: skip
    assert rendered(error) == [
        "GenerationNotFoundError: No such generation: an-id.",
        "  Look at it with: %kling show an-id",
        "  Look it up with: %kling recover",
    ]
    assert rendered(KlingError("")) == ["KlingError: "]
    assert lines_of(StoppedWaiting("an-id"))[1:] == [
        "  Run the cell again to go on, or: %kling wait an-id"
    ]
    assert lines_of(ValueError("kling wait is not rewritten")) == ["kling wait is not rewritten"]
