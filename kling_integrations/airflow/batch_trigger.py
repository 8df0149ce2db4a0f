"""KlingBatchTrigger: waits for a window of generations in the triggerer, and only polls.

One event, when enough of them have ended. It makes no paid call and changes nothing, so it may be
restarted, moved or run twice at any moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from ..core.batch.learned import Learned
from ..core.batch.schedules import Schedules
from ..core.errors import KlingError
from ..core.progress import Progress
from .exceptions import KlingTaskError
from .get_provider_info import DEFAULT_CONNECTION
from .shared_client import shared_client

if TYPE_CHECKING:
    from ..core.http.async_client import AsyncKlingClient

FORMAT = 1

# Real seconds that it takes at least: an event that comes before the executor's own word about the
# worker's slot is taken for a failure by a busy scheduler, and more end meanwhile.
_LEAST = 5.0


class KlingBatchTrigger(BaseTrigger):
    """Yields the ids that have ended, or whose wait has, once there are ``enough`` of them.

    ``window``: a mapping for each generation, with its ``id``, ``since`` (Unix seconds of its
    submit), ``model`` and ``duration`` (seconds of video or None). ``end_time`` in Unix seconds.
    ``learned`` is a ``Learned`` as JSON: when these are likely to end; what is seen here is added.
    """

    def __init__(
        self,
        window: Sequence[Mapping[str, Any]] = (),
        kling_conn_id: str = DEFAULT_CONNECTION,
        enough: int = 1,
        end_time: float | None = None,
        learned: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        # `unknown`: what a newer version wrote before a downgrade is ignored.
        super().__init__()  # type: ignore[no-untyped-call]
        self.window = [dict(each) for each in window]
        self.kling_conn_id = kling_conn_id
        self.enough = max(1, int(enough))
        self.end_time = time.time() + 3600.0 if end_time is None else float(end_time)
        self.learned = dict(learned) if learned else None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{KlingBatchTrigger.__module__}.{KlingBatchTrigger.__qualname__}",
            {
                "window": self.window,
                "kling_conn_id": self.kling_conn_id,
                "enough": self.enough,
                "end_time": self.end_time,
                "learned": self.learned,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        ended: list[str] = []
        learned = Learned.of(self.learned)
        schedules = Schedules(learned.times)
        try:
            async with shared_client(self.kling_conn_id) as client:
                ended = await self._some_ended(client, schedules)
        except (KlingError, KlingTaskError) as error:  # the worker meets it, and says so
            self.log.warning("The generations cannot be looked at from here: %s", error)
        learned = replace(learned, times=schedules.times)
        event = {"format": FORMAT, "ended": ended, "learned": learned.to_json()}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _some_ended(self, client: AsyncKlingClient, schedules: Schedules) -> list[str]:
        self.log.info("Waiting for %d of %d generations.", self.enough, len(self.window))
        waits = {asyncio.ensure_future(self._wait(client, each, schedules)) for each in self.window}
        ended: list[str] = []
        began = time.monotonic()
        try:
            while waits and len(ended) < self.enough:
                done, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                ended += [task.result() for task in done]
            await asyncio.sleep(max(0.0, _LEAST - (time.monotonic() - began)))
            ended += [task.result() for task in waits if task.done()]
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return ended

    async def _wait(
        self, client: AsyncKlingClient, each: Mapping[str, Any], schedules: Schedules
    ) -> str:
        """The id of one, once it has ended, or its wait has: the worker looks which."""
        generation_id, now, speed = str(each["id"]), time.time(), client.clock.speed
        kind = str(each.get("model") or ""), each.get("duration")
        last: Progress | None = None

        def note(progress: Progress) -> None:
            nonlocal last
            last = progress

        try:
            await client.wait(
                generation_id,
                timeout=max(0.0, self.end_time - now) * speed,
                schedule=schedules.of(*kind),
                elapsed=max(0.0, now - float(each.get("since") or now)) * speed,
                on_update=note,
            )
            if last is not None:
                schedules.saw(*kind, last)
        except KlingError as error:
            self.log.info("%s", error.message)
        return generation_id


def ended_ids(event: object) -> list[str] | None:
    """The ids of an event; None for one that is not understood: then all are looked at."""
    if not isinstance(event, Mapping) or event.get("format") != FORMAT:
        return None
    found = event.get("ended")
    return [str(each) for each in found] if isinstance(found, list) else None


def learned_from(event: object) -> Learned:
    """What the trigger has seen, and was told; nothing for an event that is not understood."""
    return Learned.of(event.get("learned") if isinstance(event, Mapping) else None)
