"""Every next step has words of Airflow, and only true ones."""

from __future__ import annotations

import re

import pytest

from kling_integrations.airflow.hints import Kept, render, sensor_call
from kling_integrations.core.errors import NextStep, Verb

CALL = "KlingVideoSensor(task_id=\"pick_up\", generation_id='g-1')"
AGAIN = "A retry or a clear of this task goes on with the same generation, without paying again; "

WORDS = {
    NextStep(Verb.WAIT, "g-1"): f"{AGAIN}so does {CALL}",
    NextStep(Verb.SHOW, "g-1"): f"{AGAIN}so does {CALL}",
    NextStep(Verb.DOWNLOAD, "g-1"): f"{AGAIN}so does {CALL}",
    NextStep(Verb.DOWNLOAD, "g-1", output="s3://b/v.mp4"): (
        f"{AGAIN}so does {CALL[:-1]}, output_path='s3://b/v.mp4')"
    ),
    NextStep(Verb.SUBMIT_AGAIN): "A retry or a clear of this task picks up what is paid for.",
    NextStep(Verb.RECOVER, client_request_id="kling-1"): (
        "A retry or a clear of this task looks for this id in the gateway's log, once a generation "
        "would have ended, and goes on with what it finds."
    ),
    NextStep(Verb.SUBMIT_NEW): (
        'To pay for another one knowingly, set on_ambiguous_submit="resubmit", or delete its '
        "record, and clear the task."
    ),
    NextStep(Verb.SUBMIT_NEW, "g-1"): (
        "To pay for another one, start a new run, or delete its record and clear the task."
    ),
    NextStep(Verb.SET_KEY): "Set the API key as the password of the connection 'kling_default'.",
    NextStep(Verb.TRY_SANDBOX): (
        "To try it without a key or money: start `kling sandbox` and set "
        "AIRFLOW_CONN_KLING_DEFAULT=kling://:any-key@127.0.0.1:8765/sandbox/x60"
    ),
    NextStep(Verb.SET_HOME): "Set KLING_HOME on the workers to a folder that can be written.",
    NextStep(Verb.SET_OUTPUT): "Set another output_path.",
    NextStep(Verb.RAISE_COST_LIMIT): "Raise max_cost_usd, or leave it out to submit at any price.",
    NextStep(Verb.DROP_COST_LIMIT): "Leave max_cost_usd out to submit at any price.",
    NextStep(Verb.INSTALL, detail="jupyter"): (
        "Install it on the workers: pip install 'kling-integrations[jupyter]'"
    ),
    NextStep(Verb.SKIP_BAD_ROWS): "To go ahead with the others: skip_bad=True.",
    NextStep(Verb.TAKE_LITERALLY): "To send such texts as they are: raw=True.",
    NextStep(Verb.NAME_PROMPTS): 'Name the column: columns={"prompt": "…"}.',
}


@pytest.mark.parametrize("step", WORDS, ids=lambda step: step.verb)
def test_a_step_is_one_sentence(step):
    assert render(step, "kling_default") == WORDS[step]


def test_each_verb_has_words_with_and_without_a_record():
    assert {step.verb for step in WORDS} == set(Verb)
    for verb in Verb:
        for kept in (Kept(), None):
            for generation_id in ("g-1", None):
                assert render(NextStep(verb, generation_id), "c", kept=kept)


@pytest.mark.parametrize("verb", Verb)
def test_no_words_are_a_command_of_the_shell_but_the_sandboxs(verb):
    words = render(NextStep(verb, "g-1"), "kling_default")
    assert re.findall(r"(?<![\w/-])%?kling [a-z]+", words) == (
        ["kling sandbox"] if verb is Verb.TRY_SANDBOX else []
    )


@pytest.mark.parametrize("verb", [Verb.WAIT, Verb.SHOW, Verb.DOWNLOAD])
def test_without_a_record_only_the_sensor_goes_on(verb):
    assert render(NextStep(verb, "g-1"), "kling_default", kept=None) == f"Pick it up with: {CALL}"


@pytest.mark.parametrize("verb", Verb)
def test_without_a_record_no_retry_is_promised_to_be_free(verb):
    for generation_id in ("g-1", None):
        words = render(NextStep(verb, generation_id), "kling_default", kept=None)
        assert "without paying" not in words
        assert "what is paid for" not in words
        assert "record" not in words or "keeps no record" in words


def test_the_clear_and_the_place_are_those_of_the_tasks_stores():
    kept = Kept("a clear with keep_task_state", " on this worker", "a and b")
    words = render(NextStep(Verb.WAIT, "g-1"), "c", kept=kept)
    assert words.startswith("A retry or a clear with keep_task_state of this task on this worker ")
    words = render(NextStep(Verb.SUBMIT_NEW, "g-1"), "c", kept=kept)
    assert "delete a and b and clear" in words


def test_the_sensor_call_is_python_and_names_another_connection():
    call = sensor_call("it's/1", "other", "/data/")
    assert call == (
        'KlingVideoSensor(task_id="pick_up", generation_id="it\'s/1", output_path=\'/data/\', '
        "kling_conn_id='other')"
    )
    assert eval(call, {"KlingVideoSensor": dict}) == {
        "task_id": "pick_up",
        "generation_id": "it's/1",
        "output_path": "/data/",
        "kling_conn_id": "other",
    }
