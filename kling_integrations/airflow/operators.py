"""KlingVideoOperator: a prompt becomes a video, and is paid for once.

The record of the payment is kept in Airflow's task state store, an intent before the POST and
the generation's id right after it, so a retry, a restart or a clear finds what is running. What
the record says to do is decided in ``core.submission``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import BaseOperator, conf

from ..core import recovery, submission
from ..core.catalog import DEFAULT_MODEL
from ..core.errors import (
    GenerationFailedError,
    GenerationNotFoundError,
    InvalidRequestError,
    KlingError,
    RateLimitedError,
    ServerError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from ..core.generation import Generation, Status
from ..core.manifest import manifest
from ..core.progress import Progress, clock_time
from ..core.request import VideoRequest
from ..core.schedule import Schedule
from ..core.submission import Action, Record, State
from ..core.waiting import DEFAULT_TIMEOUT, ended
from .durable import Shelf
from .exceptions import from_event, sensor_call, timed_out, verdict
from .hooks import DEFAULT_CONNECTION, KlingHook
from .links import KlingVideoLink
from .masked_fields import Discreet
from .object_storage import land, read, uri
from .triggers import KlingVideoTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.generation import Saved
    from ..core.http.client import KlingClient

# Behind the trigger's own deadline, seconds: a last poll, a triggerer's restart, the sweep of
# the scheduler. Only a triggerer that is gone lets it come to that.
_BACKSTOP = 300.0

# The last look at a finished generation, on the worker: seconds that an outage may take there.
LAST_LOOK = 120.0


class KlingVideoOperator(BaseOperator):
    """Generates one video; returns its manifest (a small JSON object, never a signed URL).

    :param model: an id or an alias of the catalogue, ``"v2.5-turbo-pro"``; an image makes it
        image-to-video.
    :param prompt: what the video should show.
    :param duration: seconds of video.
    :param image, tail_image: first and last frame: a URL, a path on the worker, or anything that
        ObjectStoragePath reads (``s3://…``).
    :param audio: the gateway's ``generate_audio``.
    :param parameters: further parameters by the gateway's names, checked like the others.
    :param extra: sent as it is, unchecked.
    :param output_path: where the video goes: a path or any ObjectStoragePath URI; one that ends
        in a slash is a folder. None: no download.
    :param wait_for_completion: False returns right after the submit; a KlingVideoSensor waits.
    :param deferrable: wait in the triggerer instead of on a worker slot. Default:
        ``[operators] default_deferrable``.
    :param durable: keep the record of the payment over retries and clears (Airflow 3.3 and up).
    :param timeout: seconds from the submit; a clear starts them anew. The generation goes on
        when they are over: a retry looks at it again.
    :param poll_interval: seconds between two looks; None: when a finish is likely.
    :param max_cost_usd: refuse, before submitting, what the gateway's price list says costs
        more. A price that is not listed is refused as well: a limit that lets the unknown pass
        would take it for 0.
    :param on_ambiguous_submit: what to do after a POST whose outcome is not known: ``"fail"``, or
        ``"resubmit"``, which may pay twice.

    Errors: a refused request or key, no credits, a moderated prompt fail the task at once
    (KlingFailed); provider trouble, rate limits, a failed download and the timeout are retried
    as the task says (KlingTaskError).
    """

    template_fields: Sequence[str] = (
        "kling_conn_id",
        "model",
        "prompt",
        "duration",
        "aspect_ratio",
        "negative_prompt",
        "cfg_scale",
        "image",
        "tail_image",
        "audio",
        "parameters",
        "extra",
        "output_path",
        "max_cost_usd",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json", "extra": "json"}
    operator_extra_links = (KlingVideoLink(),)
    ui_color = "#d8f3dc"

    image = Discreet()
    tail_image = Discreet()
    parameters = Discreet()
    extra = Discreet()

    def __init__(
        self,
        *,
        prompt: str | None = None,
        model: str = DEFAULT_MODEL,
        duration: int | str | None = None,
        aspect_ratio: str | None = None,
        negative_prompt: str | None = None,
        cfg_scale: float | str | None = None,
        image: Any = None,
        tail_image: Any = None,
        audio: bool | str | None = None,
        parameters: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        output_path: str | None = None,
        kling_conn_id: str = DEFAULT_CONNECTION,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        durable: bool = True,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        poll_interval: float | None = None,
        max_cost_usd: float | str | None = None,
        on_ambiguous_submit: Literal["fail", "resubmit"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**supported(kwargs))
        self.kling_conn_id = kling_conn_id
        self.model = model
        self.prompt = prompt
        self.duration = duration
        self.aspect_ratio = aspect_ratio
        self.negative_prompt = negative_prompt
        self.cfg_scale = cfg_scale
        self.image = image
        self.tail_image = tail_image
        self.audio = audio
        self.parameters = parameters
        self.extra = extra
        self.output_path = output_path
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.durable = durable
        self.timeout = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        self.poll_interval = poll_interval
        self.max_cost_usd = max_cost_usd
        if on_ambiguous_submit not in ("fail", "resubmit"):
            raise ValueError('on_ambiguous_submit is "fail" or "resubmit".')
        self.on_ambiguous_submit = on_ambiguous_submit
        if not self.timeout > 0:
            raise ValueError("timeout is a positive number of seconds.")
        self._generation_id: str | None = None
        self._ended = False

    # --- an attempt ----------------------------------------------------------------------------

    def execute(self, context: Context) -> dict[str, Any]:
        try:
            with KlingHook(self.kling_conn_id).client as client:
                return self._execute(context, client)
        except KlingError as error:
            raise verdict(self._named(error)) from None

    def _execute(self, context: Context, client: KlingClient) -> dict[str, Any]:
        request = self._request()
        schedule = self._schedule(request)
        shelf = self._shelf(context)
        generation = self._attach_or_submit(context, client, request, shelf)
        self._generation_id = generation.id
        self._announce(context, client, generation.id)
        kept = shelf.kept
        assert kept is not None
        if not self.wait_for_completion:
            return manifest(generation, base_url=client.endpoint.base_url, model=request.model)
        if not generation.is_terminal and shelf.found:
            generation = self._glance(client, generation)
        last_look = end_time(self, context, kept.since, client)
        submitted_at = kept.record.created_at
        if generation.is_terminal and (generation.video or generation.error):
            return self._deliver(context, client, request, generation, shelf)
        if self.deferrable:
            self._defer(generation.id, last_look, submitted_at, schedule)
        last: Progress | None = None

        def update(progress: Progress) -> None:
            nonlocal last
            if last is None or (last.status, last.note) != (progress.status, progress.note):
                self.log.info("%s", progress)
            last = progress

        now = time.time()
        try:
            generation = client.wait(
                generation.id,
                timeout=max(0.0, last_look - now) * client.clock.speed,
                schedule=schedule,
                elapsed=max(0.0, now - submitted_at) * client.clock.speed,
                on_update=update,
            )
        except WaitTimeoutError:
            waited = clock_time(last.elapsed if last else 0.0)
            raise timed_out(generation.id, self.kling_conn_id, waited) from None
        except GenerationFailedError:
            shelf.change(state=State.FAILED)
            raise
        return self._deliver(
            context,
            client,
            request,
            generation,
            shelf,
            elapsed=last.elapsed if last else None,
            polls=last.polls if last else None,
        )

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Back on a worker: the trigger's news, a fresh look, the download."""
        found = from_event(event)
        self._generation_id = found.generation_id
        try:
            shelf = self._shelf(context)
            shelf.load()
            if found.error is not None:
                if isinstance(found.error, GenerationFailedError):
                    shelf.change(state=State.FAILED)
                raise found.error
            with KlingHook(self.kling_conn_id).client as client:
                self._announce(context, client, found.generation_id)
                # The event holds no address, and one from back then may have ended by now.
                generation = client.wait(
                    found.generation_id, timeout=LAST_LOOK, schedule=Schedule.fixed(5.0)
                )
                return self._deliver(
                    context,
                    client,
                    self._request(),
                    generation,
                    shelf,
                    elapsed=found.elapsed,
                    polls=found.polls,
                )
        except KlingError as error:
            raise verdict(self._named(error)) from None

    def on_kill(self) -> None:
        """The worker's end, by a signal or a timeout: says what goes on."""
        if self._ended:
            self.log.info("Generation %s is finished and delivered.", self._generation_id)
        elif self._generation_id:
            self.log.warning(
                "Generation %s goes on at the gateway (there is no cancel) and is billed when it "
                "completes. A retry or a clear waits for it again; so does %s",
                self._generation_id,
                sensor_call(self._generation_id, self.kling_conn_id),
            )
        else:
            self.log.warning("Stopped before a generation's id was known.")

    # --- paying --------------------------------------------------------------------------------

    def _attach_or_submit(
        self, context: Context, client: KlingClient, request: VideoRequest, shelf: Shelf
    ) -> Generation:
        """The generation that the record names, or a new one; the record is kept either way."""
        max_tries = _max_tries(context)
        kept = shelf.load()
        record = kept.record if kept else None
        cleared = record is not None and record.max_tries != max_tries
        if record and record.state is State.SUBMITTED and cleared and not self.wait_for_completion:
            record = self._as_it_stands(client, record)
        decision = submission.decide(
            record,
            _fingerprint(request, client),
            cleared=cleared,
            resubmit_uncertain=self.on_ambiguous_submit == "resubmit",
        )
        if record is not None and decision.action is Action.REFUSE:
            found = self._look_up(client, record)
            if found is None:
                raise submission.refusal(record)
            record = shelf.keep(record.submitted(found)).record
            decision = submission.decide(record, _fingerprint(request, client))
        self.log.info("%s: %s.", decision.action.capitalize(), decision.reason)
        if decision.action is Action.SUBMIT or record is None:
            return self._submit(client, request, shelf, max_tries)
        # From here on this clear is known, and what follows it is a retry.
        since = time.time() if cleared else None
        record = shelf.keep(replace(record, max_tries=max_tries), since).record
        shelf.found = True
        assert record.generation_id is not None
        return Generation(record.generation_id, Status.UNKNOWN, model=record.model)

    def _submit(
        self, client: KlingClient, request: VideoRequest, shelf: Shelf, max_tries: int | None
    ) -> Generation:
        # What cannot be deferred must be known before it is paid for.
        self._prove_deferrable(request)
        self._check_cost(client, request)
        record = replace(
            Record.intent(request, max_tries), fingerprint=_fingerprint(request, client)
        )
        shelf.keep(record, record.created_at)
        try:
            generation = client.submit(request, client_request_id=record.client_request_id)
        except BaseException as error:
            shelf.keep(record.after(error))
            raise
        self._generation_id = generation.id
        shelf.keep(record.submitted(generation.id))
        self.log.info("Submitted: generation %s of %r", generation.id, request)
        return generation

    def _as_it_stands(self, client: KlingClient, record: Record) -> Record:
        """A task that only submits learns nothing of the end: a clear has to ask."""
        assert record.generation_id is not None
        status = client.get(record.generation_id).status
        states = {Status.COMPLETED: State.COMPLETED, Status.FAILED: State.FAILED}
        return record.ended(states[status]) if status in states else record

    def _look_up(self, client: KlingClient, record: Record) -> str | None:
        """An id that the gateway's log gives for a POST whose reply was lost; None mostly."""
        try:
            return _in_logs(client, record)
        except KlingError as error:
            self.log.info("The gateway's log cannot be read: %s", error.message)
            return None

    def _check_cost(self, client: KlingClient, request: VideoRequest) -> None:
        if self.max_cost_usd is None:
            return
        from ..core import cost

        limit = float(self.max_cost_usd)
        try:
            expected = cost.check_cost(request, client.prices(request.model), limit)
        except InvalidRequestError as error:
            error.hint = "Raise max_cost_usd, or leave it out to submit at any price."
            raise
        self.log.info("Expected to cost %s (at most $%.2f).", expected, limit)

    def _glance(self, client: KlingClient, generation: Generation) -> Generation:
        """One look before waiting. Trouble is for the wait to outlive, not for a retry."""
        try:
            return client.get(generation.id)
        except (GenerationNotFoundError, RateLimitedError, ServerError) as error:
            self.log.info("%s Waiting all the same.", error.message)
            return generation

    # --- waiting -------------------------------------------------------------------------------

    def _defer(
        self, generation_id: str, end_time: float, submitted_at: float, schedule: Schedule
    ) -> None:
        self.defer(
            trigger=self._trigger(generation_id, end_time, submitted_at, schedule),
            method_name="execute_complete",
            timeout=backstop(end_time),
        )

    def _trigger(
        self, generation_id: str, end_time: float, submitted_at: float, schedule: Schedule
    ) -> KlingVideoTrigger:
        return KlingVideoTrigger(
            generation_id=generation_id,
            kling_conn_id=self.kling_conn_id,
            end_time=end_time,
            submitted_at=submitted_at,
            **schedule.numbers(),
        )

    def _prove_deferrable(self, request: VideoRequest) -> None:
        if self.deferrable and self.wait_for_completion:
            now = time.time()
            prove_serialisable(self._trigger("an-id", now, now, self._schedule(request)))

    def _schedule(self, request: VideoRequest) -> Schedule:
        try:
            schedule = Schedule.expecting(request.model, duration=request.duration)
            return schedule.every(self.poll_interval) if self.poll_interval else schedule
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(f"poll_interval {self.poll_interval!r}: {error}") from None

    # --- delivering ----------------------------------------------------------------------------

    def _deliver(
        self,
        context: Context,
        client: KlingClient,
        request: VideoRequest,
        generation: Generation,
        shelf: Shelf,
        *,
        elapsed: float | None = None,
        polls: int | None = None,
    ) -> dict[str, Any]:
        """The file, the manifest and the asset events of a finished generation."""
        try:
            ended(generation)
        except GenerationFailedError:
            shelf.change(state=State.FAILED)
            raise
        path: str | None = None
        saved: Saved | None = None
        if self.output_path:
            path, saved = land(client.save, generation, str(self.output_path), request.prompt)
            self.log.info("Saved: %s (%d bytes)", path, saved.size)
        made = manifest(
            generation,
            base_url=client.endpoint.base_url,
            model=request.model,
            path=path,
            saved=saved,
            elapsed=elapsed,
            polls=polls,
        )
        announce_assets(context, self.outlets, made)
        # Only now: until it is delivered, a clear must find this one and not pay for another.
        shelf.change(state=State.COMPLETED)
        self._ended = True
        self.log.info("Done: %s", json.dumps(made))
        return made

    # --- small things --------------------------------------------------------------------------

    def _request(self) -> VideoRequest:
        parameters = Discreet.value(self, "parameters") or {}
        extra = Discreet.value(self, "extra")
        for name, value in {"parameters": parameters, "extra": extra or {}}.items():
            if not isinstance(value, Mapping):
                raise InvalidRequestError(f"{name} is a dictionary, not {type(value).__name__}.")
        arguments = {
            "model": self.model,
            "prompt": self.prompt,
            "duration": _given(self.duration),
            "aspect_ratio": _given(self.aspect_ratio),
            "negative_prompt": _given(self.negative_prompt),
            "cfg_scale": _given(self.cfg_scale),
            "image": _picture(Discreet.value(self, "image")),
            "tail_image": _picture(Discreet.value(self, "tail_image")),
            "audio": _given(self.audio),
            "extra": extra,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        if twice := given.keys() & parameters.keys():
            raise InvalidRequestError(f"Given twice, once in parameters: {', '.join(twice)}.")
        return VideoRequest(**given, **parameters)

    def _shelf(self, context: Context) -> Shelf:
        store = context.get("task_state_store") if self.durable else None
        if self.durable and store is None:
            self.log.warning(
                "This Airflow has no task state store (3.3 has): a retry or a clear of this task "
                "cannot know what was paid for and pays again. Set retries=0, or submit with "
                "wait_for_completion=False and retries=0 and wait in a KlingVideoSensor."
            )
        return Shelf(store)

    def _announce(self, context: Context, client: KlingClient, generation_id: str) -> None:
        """The id and the link, as soon as they are known."""
        ti = context["ti"]
        ti.xcom_push(key="generation_id", value=generation_id)
        link = KlingVideoLink()
        ti.xcom_push(key=link.xcom_key, value=link.address(client, generation_id))

    def _named(self, error: KlingError) -> KlingError:
        """The errors' hints speak of the shell; a task adds what to do in Airflow."""
        if isinstance(error, SubmissionUncertainError):
            error.hint = (
                "Clear the task once a generation would have ended: it looks for this id in the "
                "gateway's log and goes on with what it finds. To pay for another one knowingly, "
                'set on_ambiguous_submit="resubmit", or delete kling_submission from the task\'s '
                "state store, and clear it."
            )
        elif isinstance(error, GenerationNotFoundError) and error.generation_id:
            error.hint = (
                "A clear keeps looking for it, because it is paid for. To pay for another one, "
                "start a new run, or delete kling_submission from the task's state store and clear."
            )
        elif isinstance(error, GenerationFailedError | WaitTimeoutError):
            pass  # these say it themselves
        elif error.generation_id:
            error.hint = (
                "A retry or a clear of this task goes on with the same generation; so does "
                f"{sensor_call(error.generation_id, self.kling_conn_id)}"
            )
        return error


def end_time(task: Any, context: Context, since: float, client: KlingClient) -> float:
    """Unix seconds at which a wait ends that began at ``since``.

    Airflow does not end a deferred task at its execution_timeout (apache/airflow#69678): here
    the wait ends at whichever comes first. Where a worker waits, Airflow sees to it itself.
    """
    last = since + client.clock.real(float(task.timeout))
    limit: timedelta | None = task.execution_timeout
    if not task.deferrable or limit is None:
        return last
    started = getattr(context.get("ti"), "start_date", None)
    begin = started.timestamp() if started else time.time()
    return min(last, float(begin + limit.total_seconds()))


def backstop(last: float) -> timedelta:
    """What ``defer(timeout=)`` gets: later than the trigger's own deadline ``last``."""
    return timedelta(seconds=max(0.0, last - time.time()) + _BACKSTOP)


def prove_serialisable(trigger: KlingVideoTrigger) -> None:
    """Raises InvalidRequestError for a trigger that Airflow could not store."""
    kwargs = trigger.serialize()[1]
    try:
        json.dumps(kwargs, allow_nan=False)
        try:
            from airflow.sdk.serde import serialize
        except ImportError:  # before 3.2
            return
        serialize(kwargs)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"The task cannot be deferred ({error}): nothing is submitted."
        ) from None


def announce_assets(context: Context, outlets: Any, made: Mapping[str, Any]) -> None:
    """Puts the file's address and the generation's id into the events of the task's outlets.

    An ``Asset`` among them gets the figures as its event's extra; an ``AssetAlias`` becomes the
    file's own asset, for paths that are only known now.
    """
    if not outlets or not made.get("path"):
        return
    from airflow.providers.common.compat.sdk import Asset, AssetAlias

    address = uri(str(made["path"]))
    told = {
        "uri": address,
        **{key: made[key] for key in ("generation_id", "model", "size", "sha256", "sandbox")},
    }
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(Asset(address), extra=told)
        elif isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(told)


def supported(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Without the arguments that this Airflow's BaseOperator does not know yet, with a word."""
    if "retry_policy" in kwargs and not hasattr(BaseOperator, "retry_policy"):
        import logging

        logging.getLogger(__name__).warning(
            "This Airflow has no retry policies (3.3 has): the task's retries count as they are."
        )
        return {name: value for name, value in kwargs.items() if name != "retry_policy"}
    return kwargs


def _fingerprint(request: VideoRequest, client: KlingClient) -> str:
    """The sandbox's videos are no substitute for real ones: another gateway, another input."""
    return f"sandbox:{request.fingerprint}" if client.is_sandbox else request.fingerprint


def _max_tries(context: Context) -> int | None:
    """Airflow raises it when a user clears a task, and leaves it alone when it retries."""
    tries = getattr(context.get("ti"), "max_tries", None)
    return tries if isinstance(tries, int) else None


def _given(value: Any) -> Any:
    """A template that renders to nothing, or to the word None, gives no value."""
    return None if isinstance(value, str) and value.strip() in ("", "None") else value


def _picture(value: Any) -> Any:
    """An image of a task before this one: its path or manifest, in any store."""
    value = _given(value)
    if isinstance(value, Mapping):
        value = value.get("path")
    if hasattr(value, "protocol") and hasattr(value, "path"):  # an ObjectStoragePath
        value = str(value)
    if isinstance(value, str) and "://" in value and not value.startswith(("http://", "https://")):
        try:
            return read(value)
        except Exception as error:
            raise InvalidRequestError(
                f"The image {value.partition('?')[0]} cannot be read ({type(error).__name__})."
            ) from error
    return value


def _in_logs(client: KlingClient, record: Record) -> str | None:
    start, end = record.created_at - 900.0, record.created_at + 1800.0
    for asked, made in recovery.log_rows(client, start, end, time.sleep):
        if asked == record.client_request_id:
            return made
    return None
