"""Next steps in the notebook's words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

import kling_integrations
from kling_integrations.core.errors import (
    GenerationNotFoundError,
    KlingError,
    NextStep,
    StoppedWaiting,
    Verb,
)
from kling_integrations.jupyter.errors import lines_of, rendered
from kling_integrations.jupyter.hints import hint
from kling_integrations.jupyter.options import Notebook, set_loaded


@pytest.fixture
def magics() -> Iterator[None]:
    set_loaded(Notebook(magics=True))
    yield
    set_loaded(None)


STEPS = [NextStep(verb, "an-id", "kling-1", "clip.mp4", "sandbox") for verb in Verb]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.verb)
def test_every_next_step_is_said_in_notebook_words(step, magics):
    words = hint(step)
    assert words.endswith((".", ")")) or "%" in words
    assert "client." not in words
    assert " kling " not in words.replace("%kling ", "")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.verb)
def test_a_notebook_without_magics_is_told_what_it_has(step):
    words = hint(step)
    assert "%" not in words
    assert "--" not in words
    for call in re.findall(r"kling_integrations\.(\w+)\(", words):
        assert callable(getattr(kling_integrations, call))


@pytest.mark.parametrize("generation_id", ["-id", "an id", "kling-video:1/2", "it's"])
@pytest.mark.parametrize("verb", [Verb.WAIT, Verb.SHOW, Verb.DOWNLOAD])
def test_an_id_survives_being_typed(verb, generation_id, magics):
    words = hint(NextStep(verb, generation_id))
    line = words[words.index("%kling ") :]
    assert shlex.split(line)[-1] == generation_id
    assert ("--" in shlex.split(line)) is generation_id.startswith("-")


def test_an_error_in_a_cell_is_its_type_its_message_and_the_next_steps(magics):
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
