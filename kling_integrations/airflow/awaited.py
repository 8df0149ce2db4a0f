"""What a sensor waits for: a generation by its id, or by the manifest of the task that paid it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from ..core.errors import InvalidRequestError
from ..core.protocol import check_id
from ..core.schedule import Schedule
from .facts import facts_of, seconds_of, unix_seconds
from .request_fields import manifest_or

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient


@dataclass(frozen=True, slots=True)
class Awaited:
    """``submitted_at`` is in Unix seconds, ``duration`` in seconds of video; None: not known."""

    generation_id: str
    model: str | None = None
    duration: int | None = None
    submitted_at: float | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    finished: tuple[float, ...] = ()
    expected_usd: float | None = None

    @classmethod
    def of(cls, given: Any, *, model: str | None, duration: int | str | None) -> Self:
        """``given``: an id or a manifest, also as text. Raises InvalidRequestError for neither."""
        given = manifest_or(given)
        made: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        generation_id = made.get("generation_id") if made else given
        if not isinstance(generation_id, str) or generation_id.strip() in ("", "None"):
            raise InvalidRequestError("generation_id is empty: nothing to wait for.")
        parameters = made.get("parameters")
        inputs = dict(parameters) if isinstance(parameters, Mapping) else {}
        if isinstance(made.get("prompt"), str):
            inputs["prompt"] = made["prompt"]
        usd = made.get("expected_usd")
        return cls(
            check_id(generation_id),
            model=model or made.get("model"),
            duration=seconds_of(duration if duration is not None else inputs.get("duration")),
            submitted_at=unix_seconds(made.get("submitted_at")),
            inputs=inputs,
            expected_usd=usd if isinstance(usd, int | float) else None,
        )

    @property
    def schedule(self) -> Schedule:
        return Schedule.expecting(self.model, duration=self.duration, finished=self.finished)

    def knowing(self, finished: Iterable[float]) -> Self:
        """The same, expected by what earlier ones took (seconds, the newest last)."""
        return replace(self, finished=tuple(finished))

    def elapsed(self, client: KlingClient) -> float | None:
        """Seconds since the submit, by the gateway's clock."""
        if self.submitted_at is None:
            return None
        return max(0.0, time.time() - self.submitted_at) * client.clock.speed

    def facts(self, context: Context, client: KlingClient) -> dict[str, Any]:
        return facts_of(
            context,
            client,
            self.generation_id,
            inputs=self.inputs,
            model=self.model,
            submitted_at=self.submitted_at,
            expected=self.schedule.expected,
            expected_usd=self.expected_usd,
        )
