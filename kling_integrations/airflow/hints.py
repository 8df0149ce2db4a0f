"""Next steps in Airflow's words: the connection, the sensor call, the retry or the clear."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..core.errors import NextStep, Render, Verb
from .get_provider_info import DEFAULT_CONNECTION


@dataclass(frozen=True, slots=True)
class Kept:
    """What the stores of a task's record mean for a rerun, in words.

    ``clear`` is one after which the record is still there, ``place`` where a rerun finds it (empty:
    everywhere), ``where`` what a user deletes to have it forgotten.
    """

    clear: str = "a clear"
    place: str = ""
    where: str = "its record"


EVERYWHERE = Kept()
"""A record that no clear erases, which every worker finds."""


def renderer(kling_conn_id: str, *, kept: Kept | None = EVERYWHERE) -> Render:
    """``render`` for one task, as ``core.errors.describe`` takes it."""
    return partial(render, kling_conn_id=kling_conn_id, kept=kept)


def render(step: NextStep, kling_conn_id: str, *, kept: Kept | None = EVERYWHERE) -> str:
    """What a user of Airflow does for ``step``, as one sentence.

    ``kept`` is None where the next attempt of the task does not know what this one paid for.
    """
    again = f"A retry or {kept.clear} of this task{kept.place}" if kept else ""
    match step.verb:
        case Verb.WAIT | Verb.SHOW | Verb.DOWNLOAD if step.generation_id:
            call = sensor_call(step.generation_id, kling_conn_id, step.output)
            if kept is None:
                return f"Pick it up with: {call}"
            return f"{again} goes on with the same generation, without paying again; so does {call}"
        case Verb.WAIT | Verb.SHOW | Verb.DOWNLOAD | Verb.SUBMIT_AGAIN:
            if kept is None:
                return "Clear the task to submit the same request again, which pays again."
            return f"{again} picks up what is paid for."
        case Verb.RECOVER if kept:
            return (
                f"{again} looks for this id in the gateway's log, once a generation would have "
                "ended, and goes on with what it finds."
            )
        case Verb.RECOVER:
            return (
                "The task keeps no record, so a retry or a clear pays again. Ask the gateway's log "
                f"first: KlingHook({kling_conn_id!r}).client.find_submission("
                f"{step.client_request_id!r}, submitted_at)"
            )
        case Verb.SUBMIT_NEW if step.generation_id and kept:
            return (
                f"To pay for another one, start a new run, or delete {kept.where} and clear the "
                "task."
            )
        case Verb.SUBMIT_NEW if kept:
            return (
                'To pay for another one knowingly, set on_ambiguous_submit="resubmit", or delete '
                f"{kept.where}, and clear the task."
            )
        case Verb.SUBMIT_NEW:
            return "To pay for another one knowingly, clear the task."
        case Verb.SET_KEY:
            return f"Set the API key as the password of the connection {kling_conn_id!r}."
        case Verb.TRY_SANDBOX:
            return (
                "To try it without a key or money: start `kling sandbox` and set "
                f"AIRFLOW_CONN_{kling_conn_id.upper()}=kling://:any-key@127.0.0.1:8765/sandbox/x60"
            )
        case Verb.SET_HOME:
            return "Set KLING_HOME on the workers to a folder that can be written."
        case Verb.SKIP_BAD_ROWS:
            return "To go ahead with the others: skip_bad=True."
        case Verb.TAKE_LITERALLY:
            return "To send such texts as they are: raw=True."
        case Verb.NAME_PROMPTS:
            return 'Name the column: columns={"prompt": "…"}.'
        case Verb.SET_OUTPUT:
            return "Set another output_path."
        case Verb.RAISE_COST_LIMIT:
            return "Raise max_cost_usd, or leave it out to submit at any price."
        case Verb.DROP_COST_LIMIT:
            return "Leave max_cost_usd out to submit at any price."
        case Verb.INSTALL:
            return f"Install it on the workers: pip install 'kling-integrations[{step.detail}]'"
    return ""  # type: ignore[unreachable]  # a verb that a newer core added


def sensor_call(generation_id: str, kling_conn_id: str, output_path: str | None = None) -> str:
    """The exact call that picks a generation up."""
    arguments = ['task_id="pick_up"', f"generation_id={generation_id!r}"]
    if output_path:
        arguments.append(f"output_path={output_path!r}")
    if kling_conn_id != DEFAULT_CONNECTION:
        arguments.append(f"kling_conn_id={kling_conn_id!r}")
    return f"KlingVideoSensor({', '.join(arguments)})"
