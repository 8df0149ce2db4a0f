"""KlingReviewOperator: a person approves a video, rejects it, or pays for another take.

The conversation is a loop in one task: the question waits without a worker slot, another take
waits in the triggerer. What was asked, paid and answered is in the task state store, so a retry
goes on where the review was and pays for nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
)

from ..core import cost, submission
from ..core.errors import GenerationFailedError, InvalidRequestError, KlingError
from ..core.generation import Generation, Status
from ..core.request import VideoRequest
from ..core.schedule import Schedule
from ..core.submission import Record, State
from . import version_compat
from .deadlines import backstop
from .deferral import confirm
from .delivery import announce_assets, deliver
from .events import from_event
from .exceptions import KlingTaskError, task_error
from .facts import facts_of, push_facts, push_failure, seconds_of
from .get_provider_info import DEFAULT_CONNECTION
from .hooks import KlingHook
from .learning import finished
from .lineage import WithLineage
from .object_storage import check_target
from .record_places import default_record_path
from .request_fields import inputs_of, manifest_or, request_from
from .review_record import REVIEW_KEY, Review
from .spending import Spending, run_limit
from .stopping import Stopping
from .task_ledger import TaskLedger
from .triggers import KlingVideoTrigger
from .version_compat import HITLOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient

APPROVE, REJECT, AGAIN = "Approve", "Reject", "Again"


class KlingReviewOperator(WithLineage, HITLOperator):  # type: ignore[misc,unused-ignore]
    """Asks people about a video; returns its manifest with ``review`` once one is approved.

    :param video: the manifest of the task that made it, ``KlingVideoOperator(…).output``.
    :param subject: the question; default: whether it is fit to be published.
    :param output_path: where further takes go; ``film.mp4`` becomes ``film-take2.mp4``.
    :param max_takes: how many takes there may be, the first included. 1: no "Again". Before
        Airflow 3.3, which has no record of what a task paid, there is none either.
    :param max_cost_usd: what all further takes may cost together by the gateway's price list.
    :param max_usd_per_run: as of KlingVideoOperator; further takes count.
    :param assigned_users: who may answer, ``{"id": …, "name": …}`` each; default: who may edit
        the DAG's runs.
    :param response_timeout: how long to wait for an answer; default: for ever.
    :param on_timeout: what no answer in time means: ``"approve"``, ``"reject"``, or None, which
        fails the task.
    :param on_reject: ``"skip"`` skips this task, and with it what comes after and its outlets;
        ``"fail"`` fails it.
    :param timeout: seconds that another take may take.

    *Approve* and *Reject* pay nothing. *Again* pays for one take, with the prompt that the
    reviewer typed or with the same one, once over all retries. Outlets are announced on approval
    only. Other arguments are those of HITLOperator (``notifiers``).
    """

    template_fields: Sequence[str] = (
        "subject",
        "body",
        "video",
        "output_path",
        "max_cost_usd",
        "max_usd_per_run",
        "kling_conn_id",
    )
    ui_color = "#d8f3dc"

    def __init__(
        self,
        *,
        video: Any,
        subject: str | None = None,
        output_path: str | None = None,
        max_takes: int = 3,
        max_cost_usd: float | str | None = None,
        max_usd_per_run: float | str | None = None,
        kling_conn_id: str = DEFAULT_CONNECTION,
        response_timeout: timedelta | None = None,
        on_timeout: Literal["approve", "reject"] | None = None,
        on_reject: Literal["skip", "fail"] = "skip",
        timeout: float | timedelta = 3600.0,
        **kwargs: Any,
    ) -> None:
        if max_takes < 1:
            raise ValueError("max_takes is at least 1: the take that is reviewed.")
        if max_takes > 1 and not output_path:
            raise ValueError("Further takes need an output_path; max_takes=1 has none.")
        if on_timeout not in (None, "approve", "reject"):
            raise ValueError('on_timeout is "approve", "reject" or None.')
        if on_reject not in ("skip", "fail"):
            raise ValueError('on_reject is "skip" or "fail".')
        repeats = max_takes > 1 and bool(version_compat.FOREVER)
        super().__init__(
            subject=subject or "Is this video fit to be published?",
            body="",  # says what was made, once that is known
            options=[APPROVE, REJECT, *([AGAIN] if repeats else [])],
            defaults=on_timeout and on_timeout.capitalize(),
            params={**_params(kwargs.pop("params", None)), **_form(repeats)},
            response_timeout=response_timeout,
            **kwargs,
        )
        self.video = video
        self.output_path = output_path
        self.max_takes = max_takes
        self.max_cost_usd = max_cost_usd
        self.max_usd_per_run = run_limit(max_usd_per_run)
        self.record_path = default_record_path()
        self.kling_conn_id = kling_conn_id
        self.on_timeout = on_timeout
        self.on_reject = on_reject
        self.timeout = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        self._stopping = Stopping()

    def on_kill(self) -> None:
        """The end of the attempt: another take that was not submitted yet is not from then on."""
        self._stopping.end()
        super().on_kill()

    # --- the question --------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        review = self._load(context)
        if review.pending is not None:
            return self._take(context, review)
        return self._ask(context, review)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        answer = super().execute_complete(context, event)
        review = self._load(context)
        (choice,) = answer["chosen_options"]
        given = answer["params_input"] or {}
        by = answer.get("responded_by_user") or {}
        said = {
            "choice": choice,
            "note": given.get("note") or None,
            "by": by.get("name") or by.get("id"),
            "at": answer["responded_at"].isoformat(),
        }
        if choice == AGAIN:
            return self._again(context, review, said, given.get("prompt"))
        made = review.result(said)
        context["ti"].xcom_push(key=REVIEW_KEY, value=made)
        if choice == APPROVE:
            self.manifest = made
            announce_assets(context, self.outlets, made)
            return made
        self.log.info("Rejected by %s: %s", said["by"], said["note"] or "without a note")
        words = f"The video was rejected: {said['note'] or 'no note was left'}"
        raise (AirflowFailException if self.on_reject == "fail" else AirflowSkipException)(words)

    def _ask(self, context: Context, review: Review) -> Any:
        context["ti"].xcom_push(key=REVIEW_KEY, value=review.shown())
        self.body = _body(review.newest, len(review.takes), self.max_takes, context["ti"])
        return super().execute(context)  # raises, to wait without a worker

    def _load(self, context: Context) -> Review:
        given = manifest_or(self.video)
        if not isinstance(given, Mapping) or not given.get("generation_id"):
            error = InvalidRequestError(
                "video is no manifest: it takes what the task returned that made the video."
            )
            raise task_error(error, self.kling_conn_id)
        return Review.load(version_compat.task_state_store(context), given)

    # --- another take --------------------------------------------------------------------------

    def _again(
        self, context: Context, review: Review, said: dict[str, Any], prompt: str | None
    ) -> Any:
        """Notes what is wanted before anything is paid; then the rest may fail and be repeated."""
        if len(review.takes) >= self.max_takes:
            review.refuse(f"There are {len(review.takes)} takes, the most that are allowed.")
            return self._ask(context, review)
        review.want((prompt or "").strip() or str(review.newest.get("prompt") or ""), said)
        return self._take(context, review)

    def _take(self, context: Context, review: Review) -> Any:
        self._stopping.begin(context)
        spending = self._spending(context, review)
        try:
            with self._stopping.watch(self._client(context)) as client:
                generation = self._paid(client, review)
                if generation is None:
                    try:
                        generation = self._submitted(client, review, spending)
                    except InvalidRequestError as error:
                        spending.release()
                        review.refuse(error.message)
                        return self._ask(context, review)
                spending.paid(generation.id)
                self._describe(context, client, generation, review)
                schedule = self._schedule(client, review)
                speed = client.clock.speed
        except KlingError as error:
            push_failure(context, error, self.kling_conn_id)
            raise task_error(error, self.kling_conn_id) from None
        since = review.since
        end = since + float(self.timeout) / speed
        return self.defer(
            trigger=KlingVideoTrigger(
                generation.id,
                self.kling_conn_id,
                end_time=end,
                submitted_at=since,
                limit="timeout",
                **schedule.numbers(),
            ),
            method_name="take_complete",
            timeout=backstop(end),
        )

    def _paid(self, client: KlingClient, review: Review) -> Generation | None:
        """What an earlier attempt paid for as the pending take, by its record: a picture of the
        request may be gone by now. Raises SubmissionUncertainError where it may be paid.
        """
        record = self._record(client, review)
        if record is not None and record.state is State.INTENT:
            try:
                client.recover()  # what became of its POST
            except InvalidRequestError as error:  # a gateway that has no log
                self.log.info("The gateway's log cannot be read: %s", error.message)
            record = self._record(client, review)
            if record is not None and record.state is State.INTENT:
                raise submission.refusal(record)
        if record is None or record.generation_id is None:
            return None
        return Generation(record.generation_id, Status.UNKNOWN, model=record.model)

    def _record(self, client: KlingClient, review: Review) -> Record | None:
        assert isinstance(client.ledger, TaskLedger)
        return client.ledger.of_take(
            client.base_url,
            len(review.takes) + 1,
            fingerprint=review.pending_fingerprint,
            since=review.since,
        )

    def _submitted(self, client: KlingClient, review: Review, spending: Spending) -> Generation:
        """Raises InvalidRequestError where nothing can be, or was, submitted."""
        check_target(self.output_path)
        request = self._request(review)
        if not review.is_priced:
            review.price(self._priced(client, request, review, spending), request.fingerprint)
        return client.submit(request, take=len(review.takes) + 1)

    def take_complete(self, context: Context, event: Any = None) -> Any:
        """Another take has ended: it is saved, and asked about."""
        review = self._load(context)
        result = from_event(event)
        try:
            if result.error is not None:
                raise result.error
            with KlingHook(self.kling_conn_id).access().client() as client:
                generation = confirm(client, result.generation_id)
                facts = self._describe(context, client, generation, review)
                target = SimpleNamespace(
                    output_path=_take_path(str(self.output_path), len(review.takes) + 1),
                    outlets=None,  # announced when it is approved
                    log=self.log,
                )
                made = deliver(
                    target,
                    context,
                    client,
                    generation,
                    facts=facts,
                    elapsed=result.elapsed,
                    polls=result.polls,
                    late=result.late,
                )
        except GenerationFailedError as error:
            # So that "Again" with the same prompt does not meet the failed one again.
            TaskLedger.of(context, default_record_path()).wait_failed("", error)
            usd = cost.charged(error.usage, review.pending_usd, failed=True).usd
            self._spending(context, review).settle(result.generation_id, usd)
            review.refuse(error.message)
            return self._ask(context, review)
        except KlingError as error:
            push_failure(context, error, self.kling_conn_id)
            raise task_error(error, self.kling_conn_id) from None
        self._spending(context, review).settle(result.generation_id, made.get("usd"))
        review.add(made)
        return self._ask(context, review)

    def _client(self, context: Context) -> KlingClient:
        if version_compat.task_state_store(context) is None:
            raise KlingTaskError(KlingError("Another take needs the task state store (3.3)."))
        return (
            KlingHook(self.kling_conn_id)
            .access()
            .client(TaskLedger.of(context, default_record_path()))
        )

    def _request(self, review: Review) -> VideoRequest:
        return request_from(**review.fields)

    def _spending(self, context: Context, review: Review) -> Spending:
        return Spending(self, context, f".take{len(review.takes) + 1}")

    def _priced(
        self, client: KlingClient, request: VideoRequest, review: Review, spending: Spending
    ) -> float | None:
        limit = cost.limit(self.max_cost_usd)
        prices = client.prices(request.model)
        if limit is not None:
            expected = cost.check_cost(request, prices, max(0.0, limit - review.usd))
        else:
            expected = cost.explain(request, prices)
        spending.reserve_estimate(expected, request.model)
        return expected.usd

    def _schedule(self, client: KlingClient, review: Review) -> Schedule:
        model, duration = review.fields["model"], seconds_of(review.fields.get("duration"))
        earlier = finished(self, client, model, duration)
        return Schedule.expecting(model, duration=duration, finished=earlier)

    def _describe(
        self, context: Context, client: KlingClient, generation: Generation, review: Review
    ) -> dict[str, Any]:
        fields = review.fields
        facts = facts_of(
            context,
            client,
            generation.id,
            inputs=inputs_of(fields),
            model=fields["model"],
            submitted_at=review.since,
            expected=self._schedule(client, review).expected,
            expected_usd=review.pending_usd,
        )
        push_facts(context, facts)
        return facts


def _params(given: Any) -> dict[str, Any]:
    """Params as they are, with what Airflow knows of their source."""
    of = getattr(given, "get_param", None)
    return {name: of(name) if of else given[name] for name in given or ()}


def _form(repeats: bool) -> dict[str, Any]:
    from airflow.sdk import Param

    note = Param("", type=["null", "string"], title="Note", description="Kept with the answer.")
    prompt = Param(
        "",
        type=["null", "string"],
        title="Prompt of another take",
        description='For "Again", which pays for another video. Empty: the same prompt.',
    )
    return {"note": note, **({"prompt": prompt} if repeats else {})}


def _body(made: Mapping[str, Any], number: int, max_takes: int, ti: Any) -> str:
    """Markdown: the poster, what it is, and where to watch it.

    Airflow keeps the text of the first question of a try. So the picture's address is that of the
    review itself, behind which is always the newest take.
    """
    query = {name: getattr(ti, name) for name in ("run_id", "task_id", "map_index")}
    poster = f"kling/dags/{quote(ti.dag_id)}/poster?{urlencode(query)}"
    prompt = " ".join(str(made.get("prompt") or "").split())
    price = made.get("usd")
    what = [str(made.get("model") or "")]
    if isinstance(price, int | float):
        what.append(cost.dollars(price))
    take = f"Take {number}: " if max_takes > 1 else ""  # this text outlives it
    again = f" At most {max_takes} takes." if max_takes > 1 else ""
    return (
        f"![The newest take's first picture]({poster})\n\n"
        f"> {take}{_plain(prompt)}\n\n{_plain(' · '.join(what))}\n\n"
        f"Watch it in the tab **Video** of this task, which shows the newest take and its "
        f"prompt.{again}"
    )


def _plain(text: str) -> str:
    """Text of others as text: no link or picture of theirs is drawn in the question."""
    return "".join(f"\\{char}" if char in "\\`*_{}[]()#+-.!<>|~&" else char for char in text)


def _take_path(path: str, number: int) -> str:
    """``film.mp4`` → ``film-take2.mp4``; a folder stays one."""
    folder, slash, name = path.rpartition("/")
    if not name:
        return path
    stem, dot, suffix = name.rpartition(".")
    stem, suffix = (stem, suffix) if dot and stem else (name, "mp4")
    return f"{folder}{slash}{stem}-take{number}.{suffix}"
