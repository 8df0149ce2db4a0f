"""KlingVideoSensor: waits for a generation that something else submitted, and saves its video."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from ..core.errors import AuthenticationError, InvalidRequestError, KlingError
from ..core.generation import Generation, Status
from ..core.protocol import Outcome, check_id
from ..core.schedule import Schedule
from ..core.waiting import DEFAULT_TIMEOUT, Ask, Flow, Report, Sleep, waiting
from . import version_compat
from .deadlines import end_time, timed_out
from .deferral import confirm, defer, poll_once
from .delivery import announce, deliver
from .events import from_event
from .exceptions import KlingSensorTimeout, KlingTaskError, KlingWaitTimeout, task_error
from .get_provider_info import DEFAULT_CONNECTION
from .hooks import KlingHook
from .links import KlingVideoLink
from .progress_log import ProgressLog
from .request_fields import manifest_or

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient

_POKE_INTERVAL = 15.0


class KlingVideoSensor(BaseSensorOperator):
    """Succeeds when the generation is completed; returns the manifest, as the operator does.

    :param generation_id: the id, or the manifest of the task that submitted it, also as the text
        that a template makes of it.
    :param output_path: as of KlingVideoOperator.
    :param deferrable: wait in the triggerer; without it, ``mode`` says how to poke.
    :param poke_interval: seconds between two polls; None: when a finish is likely (deferred),
        or every 15 s (poked).
    :param timeout: seconds from the sensor's start (default: an hour). The generation goes on when
        they are over.
    :param model, duration: of the generation, for the expectation of how long it takes.

    Raises KlingFailed, KlingTaskError and KlingSensorTimeout, and skips the task instead with
    ``soft_fail`` or ``never_fail``, deferred or not. A gateway that is out of reach for a while
    fails nothing.
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
            poke_interval=_POKE_INTERVAL if poke_interval is None else poke_interval,
            timeout=timeout,
            **version_compat.supported(kwargs),
        )
        self.generation_id = generation_id
        self.output_path = output_path
        self.kling_conn_id = kling_conn_id
        self.deferrable = deferrable
        self.model = model
        self.duration = duration
        self._has_interval = poke_interval is not None
        self._announced = False
        self._steps: Flow[Generation] | None = None

    def execute(self, context: Context) -> Any:
        with self._task_errors(), KlingHook(self.kling_conn_id).access().client() as client:
            return (self._defer if self.deferrable else self._poke)(context, client)

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """On a worker again, with the trigger's event: confirms the finish and delivers."""
        result = from_event(event)
        with self._task_errors():
            if result.error is not None:
                raise result.error
            with KlingHook(self.kling_conn_id).access().client() as client:
                announce(context, client, result.generation_id)
                return deliver(
                    self,
                    context,
                    client,
                    confirm(client, result.generation_id),
                    model=self._awaited()[1],
                    elapsed=result.elapsed,
                    polls=result.polls,
                )

    # --- deferred ------------------------------------------------------------------------------

    def _defer(self, context: Context, client: KlingClient) -> dict[str, Any]:  # noqa: RET503 (defer raises)
        generation_id, model = self._awaited()
        announce(context, client, generation_id)
        generation = poll_once(self, client, Generation(generation_id, Status.UNKNOWN))
        if generation.is_terminal:
            return deliver(self, context, client, generation, model=model)
        schedule = self._expectation(model)
        if self._has_interval:
            schedule = schedule.every(self.poke_interval)
        end = end_time(self, context, time.time(), client)
        defer(self, generation_id, schedule, end_time=end)

    # --- poked ---------------------------------------------------------------------------------

    def _poke(self, context: Context, client: KlingClient) -> Any:
        self._client = client
        # On the sandbox, whose hours are minutes, pokes are as frequent as its speed says.
        self.poke_interval = client.clock.real(self.poke_interval)
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            raise timed_out(self._awaited()[0], float(self.timeout)) from None

    def poke(self, context: Context) -> PokeReturnValue | bool:
        with self._task_errors():
            generation_id, model = self._awaited()
            if not self._announced:
                announce(context, self._client, generation_id)
                self._announced = True
            generation = self._advance(context, self._client, generation_id, model)
            if generation is None:
                return False
            made = deliver(self, context, self._client, generation, model=model)
            return PokeReturnValue(True, made)

    def _advance(
        self, context: Context, client: KlingClient, generation_id: str, model: str | None
    ) -> Generation | None:
        """Drives the wait up to its next pause, which is the poke's end: then None."""
        if self._steps is None:
            self._steps = self._waiting(context, client, generation_id, model)
            self._progress = ProgressLog(self.log)
        outcome: Outcome | None = None
        try:
            while True:
                action = self._steps.send(outcome)
                outcome = None
                match action:
                    case Ask(call):
                        outcome = client.exchange(call)
                    case Report(progress):
                        self._progress(progress)
                    case Sleep():
                        return None
        except StopIteration as done:
            self._steps = None
            return done.value  # type: ignore[no-any-return]
        except BaseException:
            self._steps = None
            raise

    def _waiting(
        self, context: Context, client: KlingClient, generation_id: str, model: str | None
    ) -> Flow[Generation]:
        """The wait that all pokes of this process drive; Airflow bounds it by the timeout.

        A rescheduled sensor begins it anew with each poke, so what it has waited before counts
        against an id that the gateway does not know.
        """
        waited = self._waited_before(context) * client.clock.speed
        patience = client.patience
        return waiting(
            client.endpoint,
            Generation(generation_id, Status.UNKNOWN),
            schedule=self._expectation(model),
            now=client.clock.now,
            elapsed=None,
            timeout=inf,
            patience=replace(patience, outage=inf, not_found=max(0.0, patience.not_found - waited)),
            rng=random.Random(),
        )

    def _waited_before(self, context: Context) -> float:
        """Seconds since the first poke, where an earlier process made it."""
        first = context["ti"].get_first_reschedule_date(context) if self.reschedule else None
        return time.time() - first.timestamp() if first else 0.0

    # --- arguments and errors ------------------------------------------------------------------

    def _awaited(self) -> tuple[str, str | None]:
        """The id and the model; the manifest of an earlier task names both."""
        given, model = manifest_or(self.generation_id), self.model
        if isinstance(given, Mapping):
            model = model or given.get("model")
            given = given.get("generation_id")
        if not isinstance(given, str) or not given.strip() or given.strip() == "None":
            raise InvalidRequestError("generation_id is empty: nothing to wait for.")
        return check_id(given), model or None

    def _expectation(self, model: str | None) -> Schedule:
        duration = str(self.duration).strip() if self.duration is not None else ""
        seconds = int(duration) if duration.isdecimal() else None
        return Schedule.expecting(model, duration=seconds)

    @contextmanager
    def _task_errors(self) -> Iterator[None]:
        """Errors of the core as those of a task, and ``soft_fail`` alike in every mode.

        Airflow itself skips for different errors when a sensor pokes and when it resumes
        (apache/airflow#71255); here what fails the sensor for good skips it in both.
        """
        try:
            yield
        except (KlingError, KlingTaskError) as caught:
            error = caught
            core = caught if isinstance(caught, KlingError) else caught.error
            if isinstance(core, AuthenticationError):
                # A key or a connection can be mended, and what is waited for is paid for.
                core.generation_id = core.generation_id or str(self.generation_id)
                error = core
            if isinstance(error, KlingError):
                error = task_error(error, self.kling_conn_id)
            if isinstance(error, KlingWaitTimeout):
                error = KlingSensorTimeout(error.error, self.kling_conn_id)
            if self.soft_fail or self.never_fail:
                option = "soft_fail" if self.soft_fail else "never_fail"
                raise AirflowSkipException(f"Skipped because of {option}: {error}") from error
            raise error from None
