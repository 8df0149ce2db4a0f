"""What is known of a video from its submit on, and why one failed: XComs beside the manifest.

They are pushed as soon as they are known, so that a task that waits or has failed can be matched
to its prompt, and shown. The manifest of a finished video holds the same facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..core import cost
from ..core.errors import GenerationFailedError, KlingError, advice
from ..core.generation import Generation
from . import telemetry
from .hints import EVERYWHERE, Kept, renderer

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient
    from ..core.request import VideoRequest
    from ..core.submission import Record

FACTS_KEY = "kling_generation"
FAILURE_KEY = "kling_failure"

# Of the manifest of an earlier task that is this one's image: what tells where it came from.
_ORIGIN = ("generation_id", "path", "dag_id", "run_id", "task_id", "map_index", "frame")


def facts_of(
    context: Context,
    client: KlingClient,
    generation_id: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    model: str | None = None,
    submitted_at: float | None = None,
    expected: float | None = None,
    expected_usd: float | None = None,
) -> dict[str, Any]:
    """``{generation_id, model, prompt, parameters, submitted_at, expected_seconds, …}``.

    ``inputs`` is what the request is made of, fit for screens; ``submitted_at`` is in Unix
    seconds, ``expected`` in seconds from the submit to the end. What is not known is null.
    ``speed`` is that of the gateway's clock: 1, or the sandbox's.
    """
    inputs = dict(inputs or {})
    prompt = inputs.pop("prompt", None)
    model = model or inputs.get("model")
    inputs.pop("model", None)
    ti = context["ti"]
    return {
        "generation_id": generation_id,
        "model": model,
        "prompt": prompt,
        "parameters": inputs,
        "submitted_at": _instant(submitted_at),
        "expected_seconds": None if expected is None else round(expected, 1),
        "expected_usd": expected_usd,
        **{name: getattr(ti, name, None) for name in ("dag_id", "run_id", "task_id", "map_index")},
        "sandbox": client.is_sandbox,
        "speed": client.clock.speed,
        "gateway_url": client.endpoint.poll(generation_id).url,
    }


def described(
    context: Context,
    client: KlingClient,
    generation_id: str,
    record: Record | None,
    *,
    inputs: Mapping[str, Any],
    expect: Callable[[Record], float],
    expected_usd: float | None,
) -> dict[str, Any]:
    """The facts by the generation's record, which are pushed; else by the task's ``inputs``."""
    if record is None or record.generation_id != generation_id:
        return facts_of(context, client, generation_id, inputs=inputs)
    facts = facts_of(
        context,
        client,
        generation_id,
        inputs=record.inputs,
        model=record.model,
        submitted_at=record.created_at,
        expected=expect(record),
        expected_usd=expected_usd,
    )
    push_facts(context, facts)
    return facts


def with_facts(made: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the facts in it; what the manifest knows itself comes first."""
    known = {name: value for name, value in made.items() if value is not None}
    return {**made, **facts, **known}


def expected_usd(client: KlingClient, make_request: Callable[[], VideoRequest]) -> float | None:
    """USD by the price list, asked once; None where it does not say or does not answer."""
    try:
        request = make_request()
        return cost.estimate(request, client.prices(request.model))
    except KlingError:
        return None


def charged(generation: Generation, expected: float | None, log: Any) -> float | None:
    """USD that a generation which has ended counts as; None where nothing says."""
    found = cost.charged(generation.usage, expected)
    if found.odd:
        log.warning("%s: %s is counted.", found.odd, found.usd)
    return found.usd


def push_facts(context: Context, facts: Mapping[str, Any]) -> None:
    """Never raises: what is paid for goes on without it."""
    with suppress(Exception):
        context["ti"].xcom_push(key=FACTS_KEY, value=dict(facts))


def pull_facts(context: Context, generation_id: str) -> dict[str, Any]:
    """What this attempt pushed before it was deferred; empty where it is not to be had."""
    with suppress(Exception):  # an XCom backend may raise anything, and this is for display
        ti: Any = context["ti"]
        facts = ti.xcom_pull(task_ids=ti.task_id, key=FACTS_KEY, map_indexes=ti.map_index)
        if isinstance(facts, Mapping) and facts.get("generation_id") == generation_id:
            return dict(facts)
    return {}


def push_failure(
    context: Context,
    error: KlingError,
    kling_conn_id: str,
    *,
    kept: Kept | None = EVERYWHERE,
    prompt: object = None,
) -> None:
    """Why this attempt failed and what can be done, for the task's page; never raises.

    ``prompt`` tells which video it would have been, where nothing was submitted.
    """
    telemetry.failed(getattr(error, "kind", None) or type(error).__name__)
    with suppress(Exception):
        failure = {
            "message": error.message,
            "advice": advice(error, renderer(kling_conn_id, kept=kept)),
            "kind": error.kind if isinstance(error, GenerationFailedError) else None,
            "error": type(error).__name__,
            "generation_id": error.generation_id,
            "prompt": prompt if isinstance(prompt, str) else None,
            "try_number": getattr(context["ti"], "try_number", None),
        }
        context["ti"].xcom_push(key=FAILURE_KEY, value=failure)


def origin_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """Where a video came from that is another one's image: its id, file and task."""
    return {name: made[name] for name in _ORIGIN if made.get(name) is not None}


def _instant(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def unix_seconds(instant: object) -> float | None:
    """The reverse of ``submitted_at``; None for anything else."""
    try:
        return datetime.fromisoformat(instant).timestamp() if isinstance(instant, str) else None
    except ValueError:
        return None


def seconds_of(duration: object) -> int | None:
    """Seconds of video out of a number or its text; None for anything else."""
    text = "" if duration is None else str(duration).strip()
    text = text.removesuffix(".0")  # as a form's number comes
    return int(text) if text.isdecimal() and len(text) < 6 else None
