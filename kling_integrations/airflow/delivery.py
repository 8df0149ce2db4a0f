"""What becomes of a generation in Airflow, for operator and sensor alike.

Its id and link are announced as soon as they are known; a finished one becomes a file, a manifest
and the events of the task's assets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias

from ..core.generation import Generation, Saved
from ..core.manifest import manifest
from ..core.waiting import ended
from . import telemetry
from .facts import charged, seconds_of, unix_seconds, with_facts
from .learning import learn
from .links import KlingVideoLink
from .object_storage import file_uri, given_path, save_video

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient


def announce(context: Context, client: KlingClient, generation_id: str) -> None:
    """Pushes the id and the link of the task's page to XCom."""
    ti, link = context["ti"], KlingVideoLink()
    ti.xcom_push(key="generation_id", value=generation_id)
    ti.xcom_push(key=link.xcom_key, value=link.address(client, generation_id, ti))


def announce_paid(log: Any, context: Context, client: KlingClient, generation_id: str) -> None:
    """Beside a generation that is paid for, an XCom that cannot be pushed is a warning."""
    try:
        announce(context, client, generation_id)
    except Exception as error:  # noqa: BLE001 (an XCom backend may raise anything)
        log.warning(
            "The id %s cannot be pushed to XCom (%s). The task goes on.",
            generation_id,
            type(error).__name__,
        )


def deliver(
    task: Any,
    context: Context,
    client: KlingClient,
    generation: Generation,
    *,
    facts: Mapping[str, Any],
    elapsed: float | None = None,
    polls: int | None = None,
    late: float | None = None,
) -> dict[str, Any]:
    """The manifest of a generation that ended, its video saved to the task's ``output_path``.

    ``elapsed`` (seconds) and ``polls`` are those of the wait, ``late`` the seconds within which
    the finish was noticed. Raises GenerationFailedError for a failed generation, DownloadError.
    """
    ended(generation)
    path: str | None = None
    saved: Saved | None = None
    if (target := given_path(task.output_path)) is not None:
        path, saved = save_video(client, generation, target, facts.get("prompt"))
        task.log.info("Saved: %s (%d bytes)", path, saved.size)
    made = manifest(
        generation,
        base_url=client.endpoint.base_url,
        model=facts.get("model"),
        path=path,
        saved=saved,
        elapsed=elapsed,
        polls=polls,
    )
    made |= {
        # The gateway's replies often leave it out; then its price list has the word.
        "usd": charged(generation, _number(facts.get("expected_usd")), task.log),
        "noticed_within_seconds": None if late is None else round(late, 1),
    }
    made = with_facts(made, facts)
    if elapsed is not None and late is not None and made.get("model"):  # its end was seen
        parameters = facts.get("parameters") or {}
        learn(task, client, str(made["model"]), seconds_of(parameters.get("duration")), elapsed)
    task.manifest = made  # for lineage
    telemetry.finished(made, unix_seconds(made.get("submitted_at")))
    announce_assets(context, task.outlets, made)
    return made


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def announce_assets(
    context: Context, outlets: Iterable[Any] | None, made: Mapping[str, Any]
) -> None:
    """Adds the file's address and the generation's id to the events of the task's outlets.

    An ``Asset`` gets the figures as its event's extra; an ``AssetAlias`` becomes the file's own
    asset, for paths that are only known now.
    """
    if not outlets or not made.get("path"):
        return
    address = file_uri(str(made["path"]))
    extra = {
        "uri": address,
        **{key: made[key] for key in ("generation_id", "model", "size", "sha256", "sandbox")},
    }
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(Asset(address), extra=extra)
        elif isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(extra)
