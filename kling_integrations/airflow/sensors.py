"""KlingVideoSensor: waits for a generation that something else submitted, and saves its video."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
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

from ..core.errors import AuthenticationError, KlingError
from ..core.generation import Generation, Status
from ..core.protocol import Outcome
from ..core.waiting import DEFAULT_TIMEOUT, Ask, Flow, Report, Sleep, waiting
from . import version_compat
from .awaited import Awaited
from .deadlines import end_time, limit_of, timed_out
from .deferral import confirm, defer, poll_once
from .delivery import announce, deliver
from .events import from_event
from .exceptions import KlingSensorTimeout, KlingTaskError, KlingWaitTimeout, task_error
from .facts import push_facts, push_failure
from .get_provider_info import DEFAULT_CONNECTION
from .hooks import KlingHook
from .learning import finished
from .lineage import WithLineage
from .links import KlingVideoLink
from .object_storage import check_target
from .progress_log import ProgressLog

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient

_POKE_INTERVAL = 15.0


class KlingVideoSensor(WithLineage, BaseSensorOperator):
    """Succeeds when the generation is completed; returns the manifest, as the operator does.

    :param generation_id: the id, or the manifest of the task that submitted it, also as the text
        that a template makes of it. The manifest is better: it tells when the generation was
        submitted and what it is, so that the sensor asks when a finish is likely.
    :param output_path: as of KlingVideoOperator.
    :param deferrable: wait in the triggerer; without it, ``mode`` says how to poke.
    :param poke_interval: seconds between two polls; None: when a finish is likely (deferred),
        or every 15 s (poked).
    :param timeout: seconds from the sensor's start (default: an hour). The generation goes on when
        they are over.
    :param model, duration: of the generation, where only its id is given, for the expectation of
        how long it takes.

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
        self._finished: list[float] | None = None
        self._steps: Flow[Generation] | None = None

    def execute(self, context: Context) -> Any:
        with self._task_errors(context), KlingHook(self.kling_conn_id).access().client() as client:
            return (self._defer if self.deferrable else self._poke)(context, client)

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """On a worker again, with the trigger's event: confirms the finish and delivers."""
        result = from_event(event)
        with self._task_errors(context):
            if result.error is not None:
                raise result.error
            with KlingHook(self.kling_conn_id).access().client() as client:
                announce(context, client, result.generation_id)
                return deliver(
                    self,
                    context,
                    client,
                    confirm(client, result.generation_id),
                    facts=self._expected(client).facts(context, client),
                    elapsed=result.elapsed,
                    polls=result.polls,
                    late=result.late,
                )

    # --- deferred ------------------------------------------------------------------------------

    def _defer(self, context: Context, client: KlingClient) -> dict[str, Any]:  # noqa: RET503 (defer raises)
        awaited = self._expected(client)
        self._announce(context, client, awaited)
        generation = poll_once(self, client, Generation(awaited.generation_id, Status.UNKNOWN))
        if generation.is_terminal:
            facts = awaited.facts(context, client)
            return deliver(self, context, client, generation, facts=facts)
        schedule = awaited.schedule
        if self._has_interval:
            schedule = schedule.every(self.poke_interval)
        now, submitted_at = time.time(), awaited.submitted_at
        end = end_time(self, context, now, client)
        limit = limit_of(self, context, now, client)
        defer(self, generation.id, schedule, end_time=end, submitted_at=submitted_at, limit=limit)

    # --- poked ---------------------------------------------------------------------------------

    def _poke(self, context: Context, client: KlingClient) -> Any:
        self._client = client
        # On the sandbox, whose hours are minutes, pokes are as frequent as its speed says.
        self.poke_interval = client.clock.real(self.poke_interval)
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            raise timed_out(self._awaited().generation_id, float(self.timeout)) from None

    def poke(self, context: Context) -> PokeReturnValue | bool:
        with self._task_errors(context):
            awaited = self._expected(self._client)
            if not self._announced:
                self._announce(context, self._client, awaited)
                self._announced = True
            generation = self._advance(context, self._client, awaited)
            if generation is None:
                return False
            facts, log = awaited.facts(context, self._client), self._progress
            made = deliver(
                self,
                context,
                self._client,
                generation,
                facts=facts,
                elapsed=log.elapsed if awaited.submitted_at else None,
                late=log.late,
            )
            return PokeReturnValue(True, made)

    def _advance(
        self, context: Context, client: KlingClient, awaited: Awaited
    ) -> Generation | None:
        """Drives the wait up to its next pause, which is the poke's end: then None."""
        if self._steps is None:
            self._steps = self._waiting(context, client, awaited)
            self._progress = ProgressLog(self.log)
        outcome: Outcome | None = None
        # A rescheduled sensor begins anew each time: the poke interval is its only pause.
        is_due = self.reschedule
        try:
            while True:
                action = self._steps.send(outcome)
                outcome = None
                match action:
                    case Ask(call):
                        is_due = False
                        outcome = client.exchange(call)
                    case Report(progress):
                        self._progress(progress)
                    case Sleep() if not is_due:
                        return None
        except StopIteration as done:
            self._steps = None
            return done.value  # type: ignore[no-any-return]
        except BaseException:
            self._steps = None
            raise

    def _waiting(self, context: Context, client: KlingClient, awaited: Awaited) -> Flow[Generation]:
        """The wait that all pokes of this process drive; Airflow bounds it by the timeout.

        A rescheduled sensor begins it anew with each poke, so what it has waited before counts
        against an id that the gateway does not know.
        """
        waited = self._waited_before(context) * client.clock.speed
        patience = client.patience
        return waiting(
            client.endpoint,
            Generation(awaited.generation_id, Status.UNKNOWN),
            schedule=awaited.schedule,
            now=client.clock.now,
            elapsed=awaited.elapsed(client),
            timeout=inf,
            patience=replace(patience, outage=inf, not_found=max(0.0, patience.not_found - waited)),
            rng=random.Random(),
        )

    def _waited_before(self, context: Context) -> float:
        """Seconds since the first poke, where an earlier process made it."""
        first = context["ti"].get_first_reschedule_date(context) if self.reschedule else None
        return time.time() - first.timestamp() if first else 0.0

    # --- arguments and errors ------------------------------------------------------------------

    def _awaited(self) -> Awaited:
        return Awaited.of(self.generation_id, model=self.model, duration=self.duration)

    def _expected(self, client: KlingClient) -> Awaited:
        """With what earlier ones took, which is read once in a process, not at each poke."""
        awaited = self._awaited()
        if self._finished is None:
            known = awaited.model
            self._finished = finished(self, client, known, awaited.duration) if known else []
        return awaited.knowing(self._finished)

    def _announce(self, context: Context, client: KlingClient, awaited: Awaited) -> None:
        try:
            check_target(self.output_path)  # what would fail after the wait fails before it
        except KlingError as error:
            error.generation_id = awaited.generation_id
            raise
        announce(context, client, awaited.generation_id)
        push_facts(context, awaited.facts(context, client))

    @contextmanager
    def _task_errors(self, context: Context) -> Iterator[None]:
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
                push_failure(context, error, self.kling_conn_id)
                error = task_error(error, self.kling_conn_id)
            if isinstance(error, KlingWaitTimeout):
                error = KlingSensorTimeout(error.error, self.kling_conn_id)
            if self.soft_fail or self.never_fail:
                option = "soft_fail" if self.soft_fail else "never_fail"
                raise AirflowSkipException(f"Skipped because of {option}: {error}") from error
            raise error from None
