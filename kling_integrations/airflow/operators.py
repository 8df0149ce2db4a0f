"""KlingVideoOperator: a prompt becomes a video, and is paid for once.

The record of the payment is kept where a clear does not reach it, and in Airflow's task state
store (``record_places``, ``durable``, ``submitting``), so a retry, a restart or a clear finds what
is paid for. What operator and sensor do alike is in
``deferral`` (around the triggerer) and ``delivery`` (file, manifest, assets).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import BaseOperator, conf

from ..core import cost
from ..core.catalog import DEFAULT_MODEL
from ..core.errors import (
    GenerationFailedError,
    GenerationNotFoundError,
    KlingError,
    NextStep,
    Verb,
)
from ..core.generation import Generation
from ..core.manifest import manifest
from ..core.request import VideoRequest
from ..core.schedule import Schedule
from ..core.submission import Record, State
from ..core.waiting import DEFAULT_TIMEOUT
from . import telemetry, version_compat
from .arguments import check_outlets, one_of, seconds
from .deadlines import end_time, limit_of, wait_until
from .deferral import (
    check_serializable,
    confirm,
    defer,
    defer_until,
    poll_once,
    schedule_of,
    trigger_for,
)
from .delivery import announce_paid, deliver
from .durable import SubmissionStore
from .events import from_event
from .exceptions import KlingTaskError, task_error
from .facts import described, expected_usd, pull_facts, push_failure, with_facts
from .get_provider_info import DEFAULT_CONNECTION
from .hints import EVERYWHERE, Kept
from .hooks import KlingHook
from .lineage import WithLineage
from .links import KlingVideoLink
from .masked_fields import MaskedField
from .object_storage import check_target
from .progress_log import ProgressLog
from .record_places import default_record_path
from .request_fields import FIELDS, fields_of, inputs_of, pictures_of, request_from
from .siblings import FormerTasks, Siblings
from .spending import Spending, run_limit
from .stopping import Stopping, what_goes_on
from .submitting import Submitter, duration_of
from .task_identity import TaskIdentity

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient


class KlingVideoOperator(WithLineage, BaseOperator):
    """Generates one video; returns its manifest (a small JSON object, never a signed URL).

    :param model: an id or an alias of the catalogue, ``"v2.5-turbo-pro"``; an image makes it
        image-to-video.
    :param prompt: what the video should show; refused when a template makes nothing of it.
    :param duration: seconds of video.
    :param image, tail_image: first and last frame: a URL, a path on the worker, anything that
        ObjectStoragePath reads (``s3://…``), or the manifest of the task that made it.
    :param image_frame: ``"last"`` or ``"first"``: ``image`` is a video (the manifest of an earlier
        task, or its file), and this frame of it is the image. ``"last"`` goes on where it ended.
    :param audio: the gateway's ``generate_audio``.
    :param parameters: further parameters by the gateway's names, checked like the others.
    :param extra: sent as it is, unchecked.
    :param output_path: where the video goes: a path or any ObjectStoragePath URI; one that ends
        in a slash is a folder. None: no download.
    :param wait_for_completion: False returns right after the submit; a KlingVideoSensor waits.
    :param deferrable: wait in the triggerer instead of on a worker slot. Default:
        ``[operators] default_deferrable``.
    :param durable: keep the record of the payment over retries and clears.
    :param record_path: the folder of the records, at a path or an ObjectStoragePath URI
        (``s3://connection@bucket/prefix``, ``gs://``, ``abfs://``) that all workers reach. Default:
        ``[kling] record_path``; without it a hidden folder beside the video, and without an
        output_path the worker's own under KLING_HOME. Airflow's task state store (3.3 and up) is
        used as well.
    :param timeout: seconds from the submit (default: an hour); a clear starts them anew. The
        generation goes on when they are over: a retry waits for it again.
    :param poll_interval: seconds between two polls; None: when a finish is likely.
    :param max_cost_usd: refuse, before submitting, what the gateway's price list says costs
        more. A price that is not listed is refused as well: a limit that lets the unknown pass
        would take it for 0.
    :param max_usd_per_run: what all tasks of the DAG run may cost together, mapped ones too, on
        whichever worker. In ``default_args`` it is the whole DAG's. Default: ``[kling]
        max_usd_per_run``; None: no budget. Needs a ``record_path`` that all workers reach.
    :param on_ambiguous_submit: what to do about a POST whose outcome is not known, once a
        generation would have ended and the gateway's log does not name it: ``"fail"``, or
        ``"resubmit"``, which may pay twice. What the log names is gone on with in either case.
    :param on_clear: what a clear does with a video that is finished and was delivered:
        ``"reuse"`` delivers it again without paying, ``"regenerate"`` pays for another one. A
        clear with a changed input makes a new video in either case, and names the one that it
        leaves behind; what still runs, or was not delivered yet, is gone on with. A retry never
        pays for what is running or finished, even where the input renders differently: it warns
        of what has changed.

    Raises KlingFailed, which no retry repeats, for a refused request or key, an account without
    credits, a moderated prompt and a POST that the gateway's log does not name after its time;
    KlingWaitTimeout when the timeout is over; KlingTaskError, which the task's retries repeat, for
    trouble of the provider, rate limits, a failed download, a POST whose outcome can still be
    looked up, and all trouble about a generation that is paid for.
    """

    template_fields: Sequence[str] = (
        "kling_conn_id",
        *FIELDS,
        "output_path",
        "record_path",
        "max_cost_usd",
        "max_usd_per_run",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json", "extra": "json"}
    operator_extra_links = (KlingVideoLink(),)
    ui_color = "#d8f3dc"

    image = MaskedField()
    tail_image = MaskedField()
    parameters = MaskedField()
    extra = MaskedField()

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
        image_frame: str | None = None,
        tail_image: Any = None,
        audio: bool | str | None = None,
        parameters: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        output_path: str | None = None,
        kling_conn_id: str = DEFAULT_CONNECTION,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        durable: bool = True,
        record_path: str | None = None,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        poll_interval: float | None = None,
        max_cost_usd: float | str | None = None,
        max_usd_per_run: float | str | None = None,
        on_ambiguous_submit: Literal["fail", "resubmit"] = "fail",
        on_clear: Literal["reuse", "regenerate"] = "reuse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**version_compat.supported(kwargs))
        self.kling_conn_id = kling_conn_id
        self.model = model
        self.prompt = prompt
        self.duration = duration
        self.aspect_ratio = aspect_ratio
        self.negative_prompt = negative_prompt
        self.cfg_scale = cfg_scale
        self.image = image
        self.image_frame = image_frame
        self.tail_image = tail_image
        self.audio = audio
        self.parameters = parameters
        self.extra = extra
        self.output_path = output_path
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.durable = durable
        self.record_path = record_path or default_record_path()
        self.timeout = seconds(timeout)
        self.poll_interval = poll_interval
        self.max_cost_usd = max_cost_usd
        self.max_usd_per_run = run_limit(max_usd_per_run)
        self.on_ambiguous_submit = one_of(
            "on_ambiguous_submit", on_ambiguous_submit, "fail", "resubmit"
        )
        self.on_clear = one_of("on_clear", on_clear, "reuse", "regenerate")
        check_outlets(self)
        self._pictures = pictures_of(self)  # before a template or an XCom takes their place
        self._submissions: SubmissionStore | None = None
        self._submitter: Submitter | None = None
        self._generation_id: str | None = None
        self._expected_usd: float | None = None
        self._spending: Spending | None = None
        self._facts: dict[str, Any] = {}
        self._schedules: dict[tuple[str, int | None], Schedule] = {}
        self._delivered = False
        self._stopping = Stopping()

    # --- an attempt ----------------------------------------------------------------------------

    def execute(self, context: Context) -> dict[str, Any]:
        self._stopping.begin(context)
        with self._task_errors(context):
            # Before the client: a key that is gone must not fail a task for good that has paid.
            store = self._open_store(context)
            store.load()
            self._generation_id = store.paid_id
            with self._stopping.watch(KlingHook(self.kling_conn_id).access().client()) as client:
                submitter = self._submitter_for(context, client, store)
                spending = self._spending_of(context)
                with spending.released_unless(lambda: submitter.open):
                    generation = submitter.attach_or_submit()
                if not submitter.picked_up:
                    spending.paid(generation.id)  # after the record, whose id comes first
                self._generation_id = generation.id
                if submitter.picked_up:
                    announce_paid(self.log, context, client, generation.id)
                assert store.current is not None
                record = store.current.record
                if self._expected_usd is None and submitter.asks_for(record):
                    self._expected_usd = expected_usd(client, submitter.make_request)
                self._describe(context, client, generation.id)
                if not self.wait_for_completion:
                    made = manifest(generation, base_url=client.endpoint.base_url)
                    return with_facts(made, self._facts)
                if submitter.picked_up:
                    generation = poll_once(self, client, generation)
                if generation.is_terminal and (generation.video or generation.error):
                    return self._deliver(context, client, generation, record)
                return self._wait_and_deliver(context, client, generation, store)

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """On a worker again, with the trigger's event: confirms the finish and delivers."""
        result = from_event(event)
        self._generation_id = result.generation_id
        with self._task_errors(context):
            store = self._open_store(context)
            record = store.record_of(result.generation_id)
            if result.error is not None:
                raise result.error
            with KlingHook(self.kling_conn_id).access().client() as client:
                announce_paid(self.log, context, client, result.generation_id)
                self._facts = pull_facts(context, result.generation_id)
                if record is not None:
                    submitter = self._submitter_for(context, client, store)
                    submitter.warn_of_changes(record, looks_into_images=False)
                return self._deliver(
                    context,
                    client,
                    confirm(client, result.generation_id),
                    record,
                    elapsed=result.elapsed,
                    polls=result.polls,
                    late=result.late,
                )

    def execute_again(self, context: Context, event: Any = None) -> dict[str, Any]:
        """On a worker again, once the gateway's log can tell what became of an earlier POST."""
        return self.execute(context)

    def on_kill(self) -> None:
        """The end of the attempt, by a signal or a timeout: submits no more, logs what goes on."""
        self._stopping.end()
        what_goes_on(
            self.log,
            self.kling_conn_id,
            self._kept,
            pending=self._submitter.open if self._submitter else None,
            generation_id=self._generation_id,
            delivered=self._delivered,
        )

    @contextmanager
    def _task_errors(self, context: Context) -> Iterator[None]:
        """Errors of the core as those of a task; a failed generation is noted in the record."""
        try:
            yield
        except (KlingError, KlingTaskError) as caught:
            error = caught if isinstance(caught, KlingError) else caught.error
            if isinstance(caught, KlingTaskError):  # the connection is missing or cannot work
                error.generation_id = error.generation_id or self._generation_id
            elif isinstance(error, GenerationFailedError):
                self._note_failure(context, error)
            elif isinstance(error, GenerationNotFoundError):
                # The record makes every later attempt wait for the same generation.
                error.next_steps += (NextStep(Verb.SUBMIT_NEW, error.generation_id),)
            push_failure(context, error, self.kling_conn_id, kept=self._kept, prompt=self.prompt)
            later = self._submitter is not None and self._submitter.is_settled_later
            raise task_error(
                error, self.kling_conn_id, kept=self._kept, settled_later=later
            ) from None

    def _note_failure(self, context: Context, error: GenerationFailedError) -> None:
        generation_id = error.generation_id
        if generation_id:
            usd = cost.charged(error.usage, self._expected_usd, failed=True).usd
            self._spending_of(context).settle(generation_id, usd)
        stored = self._submissions.current if self._submissions else None
        if self._submissions and stored and stored.record.generation_id == generation_id:
            self._submissions.update(state=State.FAILED)

    # --- paying --------------------------------------------------------------------------------

    def _submitter_for(
        self, context: Context, client: KlingClient, store: SubmissionStore
    ) -> Submitter:
        task = TaskIdentity.of(context)
        spending = self._spending_of(context)
        self._submitter = Submitter(
            client,
            cache(lambda: request_from(**fields_of(self), pictures=self._given_pictures)),
            inputs_of(fields_of(self)),
            store,
            task,
            self.log,
            self.kling_conn_id,
            Siblings(store.shared, task, self.log) if store.shared and task.is_mapped else None,
            FormerTasks(store.shared, task, self.log) if store.shared else None,
            waits=self.wait_for_completion,
            regenerate=self.on_clear == "regenerate",
            resubmit_uncertain=self.on_ambiguous_submit == "resubmit",
            before_paying=lambda request: self._before_paying(client, request, spending),
            on_accepted=lambda generation_id: self._on_accepted(context, client, generation_id),
        )
        if self.deferrable:
            self._submitter.pause = lambda until: defer_until(self, until, "execute_again")
        return self._submitter

    def _before_paying(
        self, client: KlingClient, request: VideoRequest, spending: Spending
    ) -> None:
        check_target(self.output_path)
        schedule = self._schedule(client, request.model, request.duration)
        if self.deferrable and self.wait_for_completion:
            now = time.time()
            check_serializable(trigger_for(self, "an-id", schedule, now, now))
        stored = self._submissions.current if self._submissions else None
        in_doubt = stored is not None and stored.record.state is State.INTENT
        self._expected_usd = spending.reserve(client, request, in_doubt=in_doubt)

    @property
    def _given_pictures(self) -> set[str]:
        return self._pictures | pictures_of(self)

    def _on_accepted(self, context: Context, client: KlingClient, generation_id: str) -> None:
        self._generation_id = generation_id
        telemetry.submitted(self.model)
        announce_paid(self.log, context, client, generation_id)

    def _describe(self, context: Context, client: KlingClient, generation_id: str) -> None:
        """Notes what is known of the generation: by its record, where that differs from now."""
        stored = self._submissions.current if self._submissions else None
        self._facts = described(
            context,
            client,
            generation_id,
            stored.record if stored else None,
            inputs=inputs_of(fields_of(self)),
            expect=lambda record: (
                self._schedule(client, record.model, duration_of(record)).expected
            ),
            expected_usd=self._expected_usd,
        )

    def _spending_of(self, context: Context) -> Spending:
        if self._spending is None:
            self._spending = Spending(self, context)
        return self._spending

    def _open_store(self, context: Context) -> SubmissionStore:
        self._submissions = store = SubmissionStore()
        if self.durable:
            self._submissions = store = SubmissionStore.of(
                context, self.record_path, self.output_path, self.log
            )
        return store

    @property
    def _kept(self) -> Kept | None:
        if self._submissions is not None:
            return self._submissions.kept
        return EVERYWHERE if self.durable else None

    # --- waiting and delivering ----------------------------------------------------------------

    def _schedule(self, client: KlingClient, model: str, duration: int | None) -> Schedule:
        """What earlier ones took is read once in an attempt."""
        key = (model, duration)
        if key not in self._schedules:
            self._schedules[key] = schedule_of(self, client, model, duration)
        return self._schedules[key]

    def _wait_and_deliver(
        self, context: Context, client: KlingClient, generation: Generation, store: SubmissionStore
    ) -> dict[str, Any]:
        stored = store.current
        assert stored is not None
        record = stored.record
        schedule = self._schedule(client, record.model, duration_of(record))
        end = end_time(self, context, stored.waiting_since, client)
        if self.deferrable:
            submitted_at = record.created_at
            limit = limit_of(self, context, stored.waiting_since, client)
            defer(
                self, generation.id, schedule, end_time=end, submitted_at=submitted_at, limit=limit
            )
        progress = ProgressLog(self.log)
        generation = wait_until(
            end, client, generation.id, schedule, progress, submitted_at=record.created_at
        )
        elapsed, polls, late = progress.elapsed, progress.polls, progress.late
        return self._deliver(
            context, client, generation, record, elapsed=elapsed, polls=polls, late=late
        )

    def _deliver(
        self,
        context: Context,
        client: KlingClient,
        generation: Generation,
        record: Record | None,
        *,
        elapsed: float | None = None,
        polls: int | None = None,
        late: float | None = None,
    ) -> dict[str, Any]:
        if not self._facts:
            self._describe(context, client, generation.id)
        facts = self._facts
        made = deliver(
            self, context, client, generation, facts=facts, elapsed=elapsed, polls=polls, late=late
        )
        self._spending_of(context).settle(generation.id, made.get("usd"))
        # Only now: until it is delivered, a clear must find this one and not pay for another.
        if record is not None and self._submissions:
            self._submissions.update(state=State.COMPLETED)
        self._delivered = True
        self.log.info("Done: %s", json.dumps(made))
        return made
