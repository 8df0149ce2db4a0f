"""KlingVideoSensor: waits for a generation that something else submitted, and lands its video."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from ..core import protocol
from ..core.errors import GenerationNotFoundError, InvalidRequestError, KlingError
from ..core.generation import Generation
from ..core.manifest import manifest
from ..core.progress import clock_time
from ..core.protocol import Trouble
from ..core.schedule import Schedule
from ..core.waiting import DEFAULT_TIMEOUT, Patience, ended
from .exceptions import (
    Ended,
    KlingSensorTimeout,
    KlingTaskError,
    KlingWaitTimeout,
    from_event,
    timed_out,
    verdict,
)
from .hooks import DEFAULT_CONNECTION, KlingHook
from .links import KlingVideoLink
from .object_storage import land
from .operators import LAST_LOOK, announce_assets, backstop, end_time, supported
from .triggers import KlingVideoTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient

_POKE = 15.0


class KlingVideoSensor(BaseSensorOperator):
    """Succeeds when the generation is completed; returns the manifest, as the operator does.

    :param generation_id: the id, or the manifest of the task that submitted it.
    :param output_path: as of KlingVideoOperator.
    :param deferrable: wait in the triggerer; without it ``mode`` says how to poke.
    :param poke_interval: seconds between two looks; None: when a finish is likely (deferred),
        or every 15 s (poked).
    :param timeout: seconds from the sensor's start. The generation goes on when they are over.
    :param model, duration: of the generation, for the expectation of how long it takes.

    A failed generation, a timeout and a key that is refused skip the task with ``soft_fail`` or
    ``never_fail``, deferred or not. A gateway that is out of reach is outlived.
    """

    template_fields: Sequence[str] = (
        "generation_id",
        "kling_conn_id",
        "output_path",
        "model",
        "duration",
    )
    operator_extra_links = (KlingVideoLink(),)
    ui_color = "#d8f3dc"

    def __init__(
        self,
        *,
        generation_id: Any,
        output_path: str | None = None,
        kling_conn_id: str = DEFAULT_CONNECTION,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: timedelta | float | None = None,
        timeout: timedelta | float = DEFAULT_TIMEOUT,
        model: str | None = None,
        duration: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            poke_interval=_POKE if poke_interval is None else poke_interval,
            timeout=timeout,
            **supported(kwargs),
        )
        self.generation_id = generation_id
        self.output_path = output_path
        self.kling_conn_id = kling_conn_id
        self.deferrable = deferrable
        self.model = model
        self.duration = duration
        self._fixed = poke_interval is not None
        self._announced = False

    def execute(self, context: Context) -> Any:
        with self._verdicts(), KlingHook(self.kling_conn_id).client as client:
            return (self._defer if self.deferrable else self._poke)(context, client)

    def _poke(self, context: Context, client: KlingClient) -> Any:
        self._client = client
        # On the sandbox, whose hours are minutes, pokes are as near as its speed says.
        self.poke_interval = client.clock.real(self.poke_interval)
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            generation_id, _ = self._named()
            raise timed_out(
                generation_id, self.kling_conn_id, clock_time(float(self.timeout))
            ) from None

    def _defer(self, context: Context, client: KlingClient) -> dict[str, Any]:  # noqa: RET503 (defer raises)
        generation_id, model = self._named()
        self._announce(context, client, generation_id)
        generation = self._look(context, client, generation_id)
        if generation is not None and generation.is_terminal:
            return self._deliver(context, client, generation)
        last = end_time(self, context, time.time(), client)
        self.defer(
            trigger=KlingVideoTrigger(
                generation_id=generation_id,
                kling_conn_id=self.kling_conn_id,
                end_time=last,
                **self._schedule(model).numbers(),
            ),
            method_name="execute_complete",
            timeout=backstop(last),
        )

    def poke(self, context: Context) -> PokeReturnValue | bool:
        with self._verdicts():
            generation_id, _ = self._named()
            if not self._announced:
                self._announce(context, self._client, generation_id)
            generation = self._look(context, self._client, generation_id)
            if generation is None or not generation.is_terminal:
                return False
            return PokeReturnValue(True, self._deliver(context, self._client, generation))

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        found = from_event(event)
        with self._verdicts():
            if found.error is not None:
                raise found.error
            with KlingHook(self.kling_conn_id).client as client:
                self._announce(context, client, found.generation_id)
                generation = client.wait(
                    found.generation_id, timeout=LAST_LOOK, schedule=Schedule.fixed(5.0)
                )
                return self._deliver(context, client, generation, found)

    # --- looking -------------------------------------------------------------------------------

    def _look(self, context: Context, client: KlingClient, generation_id: str) -> Generation | None:
        """One poll; None where there was no usable answer, which a later one outlives.

        Raises what ends the wait: 401, 403, 400, and 404 for longer than a fresh generation's.
        """
        outcome = client.exchange(client.endpoint.poll(generation_id))
        answer = protocol.read_poll(outcome, generation_id)
        if not isinstance(answer, Trouble):
            self.log.info("Generation %s is %s.", generation_id, answer.status)
            return answer
        self.log.warning("No answer for %s (%s); asking again.", generation_id, answer.reason)
        if answer.status == 404 and self._waited(context, client) > Patience().not_found:
            raise GenerationNotFoundError(
                f"The gateway keeps answering that it knows no generation {generation_id}: is the "
                "key of the account that paid for it in use?",
                generation_id=generation_id,
            )
        return None

    def _waited(self, context: Context, client: KlingClient) -> float:
        """Gateway seconds since this sensor began, in its first life when it is rescheduled."""
        ti = context["ti"]
        begin = ti.get_first_reschedule_date(context) if self.reschedule else None
        begin = begin or getattr(ti, "start_date", None)
        since = time.time() - begin.timestamp() if begin else 0.0
        return float(since * client.clock.speed)

    def _deliver(
        self,
        context: Context,
        client: KlingClient,
        generation: Generation,
        found: Ended | None = None,
    ) -> dict[str, Any]:
        ended(generation)
        path = saved = None
        if self.output_path:
            path, saved = land(client.save, generation, str(self.output_path))
            self.log.info("Saved: %s (%d bytes)", path, saved.size)
        made = manifest(
            generation,
            base_url=client.endpoint.base_url,
            model=self._named()[1],
            path=path,
            saved=saved,
            elapsed=found.elapsed if found else None,
            polls=found.polls if found else None,
        )
        announce_assets(context, self.outlets, made)
        return made

    def _announce(self, context: Context, client: KlingClient, generation_id: str) -> None:
        self._announced = True
        ti, link = context["ti"], KlingVideoLink()
        ti.xcom_push(key="generation_id", value=generation_id)
        ti.xcom_push(key=link.xcom_key, value=link.address(client, generation_id))

    # --- small things --------------------------------------------------------------------------

    def _named(self) -> tuple[str, str | None]:
        """Id and model; the manifest of the task before this one names both."""
        given, model = self.generation_id, self.model
        if isinstance(given, Mapping):
            model = model or given.get("model")
            given = given.get("generation_id")
        if not isinstance(given, str) or not given.strip() or given.strip() == "None":
            raise InvalidRequestError("generation_id is empty: nothing to wait for.")
        return given.strip(), model or None

    def _schedule(self, model: str | None) -> Schedule:
        duration = str(self.duration).strip() if self.duration is not None else ""
        seconds = int(duration) if duration.isdecimal() else None
        schedule = Schedule.expecting(model, duration=seconds)
        return schedule.every(self.poke_interval) if self._fixed else schedule

    def _verdicts(self) -> _Verdicts:
        return _Verdicts(self)


class _Verdicts:
    """Errors of the core as Airflow's, and ``soft_fail`` alike in every mode.

    Airflow itself skips for different errors when a sensor pokes and when it resumes
    (apache/airflow#71255); here what fails the sensor for good skips it in both.
    """

    def __init__(self, sensor: KlingVideoSensor) -> None:
        self._sensor = sensor

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, KlingError):
            error = verdict(error)
        if not isinstance(error, KlingTaskError):
            return
        if isinstance(error, KlingWaitTimeout):
            error = KlingSensorTimeout(error.error)
        if self._sensor.soft_fail or self._sensor.never_fail:
            name = "soft_fail" if self._sensor.soft_fail else "never_fail"
            raise AirflowSkipException(f"Skipped because of {name}: {error}") from error
        raise error from None
