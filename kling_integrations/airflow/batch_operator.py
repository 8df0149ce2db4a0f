"""KlingBatchOperator: a table of prompts becomes a table of videos, in one task.

The worker submits as many as may run at once and then defers: one trigger polls them, and wakes a
worker when enough have ended. What is known lies in the stores of results and records, so any
worker can go on. ``core.batch`` does the work; this is how Airflow drives it.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import Asset, BaseOperator, ObjectStoragePath, conf

from ..core import cost
from ..core.batch import pictures
from ..core.batch.budget import Budget
from ..core.batch.frames import table_of
from ..core.batch.job import BadRowsError
from ..core.batch.learned import Learned
from ..core.batch.options import PATIENCE, Options
from ..core.batch.plan import Need, Step, Wishes, committed, plan
from ..core.batch.results import Result, RowStatus, added_columns, line, own_columns
from ..core.batch.resuming import resume
from ..core.batch.round import Round
from ..core.batch.rows import Checked, Row, Table, adopted, check
from ..core.batch.run import Run
from ..core.batch.saving import file_name
from ..core.batch.threads import run_to_end
from ..core.errors import InvalidRequestError, KlingError, LedgerError
from ..core.generation import Generation, Saved
from ..core.request import VideoRequest
from ..core.submission import Entry
from ..core.waiting import DEFAULT_TIMEOUT
from . import version_compat
from .batch_storage import ResultsFile, RunLedger, open_ledger, read_table
from .batch_trigger import KlingBatchTrigger, ended_ids, learned_from
from .deadlines import backstop
from .deferral import defer_until
from .exceptions import KlingFailed, KlingTaskError, task_error
from .get_provider_info import DEFAULT_CONNECTION
from .hooks import Access, KlingHook
from .lineage import WithLineage
from .object_storage import check_target, given_path, save_video
from .record_places import record_folder
from .request_fields import given, mapping_of, read_text
from .spending import Spending, run_limit
from .stopping import Stopping

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.async_client import AsyncKlingClient


# The part of a window that has ended when a worker is woken: half of it is worth a worker's start
# where more is submitted then; at the end, most of it.
_HALF, _MOST = 0.5, 0.9


@dataclass(frozen=True, slots=True)
class Since:
    """What was seen since the last round: ids that ``ended`` (None: unknown), what was learned."""

    ended: list[str] | None = None
    learned: Learned = field(default_factory=Learned)


class KlingBatchOperator(WithLineage, BaseOperator):
    """Makes the video of each row, paid for once; returns counts and the address of the results.

    :param rows: a list of mappings (of an earlier task, for example), or
    :param rows_path: a .csv, .jsonl, .json or .parquet file, anywhere that ObjectStoragePath reads.
        The columns are parameters of ``VideoRequest`` (``prompt``, ``model``, ``duration``,
        ``image``, …) and ``key``; all others are carried through.
    :param defaults: parameters for what a row leaves out.
    :param columns: which column is meant by a parameter or by ``key``: ``{"prompt": "text"}``.
    :param output_path: the folder of the videos, ending in a slash; None leaves them at the
        gateway.
    :param results_path: the table of results: .jsonl, .csv or .parquet. JSON Lines beside it are
        written in every round. It belongs to one run: put ``{{ ds }}`` or ``{{ run_id }}`` into it,
        for another run under the same address finds these videos and makes none.
    :param record_path: a folder for the records of the payments (default: beside the results).
    :param at_once: generations under way at most; less where the gateway answers 429.
    :param max_cost_usd: for the whole table, over all attempts.
    :param max_usd_per_run: as of KlingVideoOperator; what the rows that are left are expected to
        cost is reserved as a whole, before the first of them is submitted.
    :param fail_on_partial_error: fail the task where a row ended without a video; otherwise a row
        that failed is data.
    :param on_stale_state: what to do with results of a table that had other rows: ``"resume"``
        goes on with the rows that are the same, ``"fail"`` fails before anything is paid.
    :param on_ambiguous_submit: ``"fail"`` leaves a row uncertain whose POST has no known outcome
        and is not in the gateway's log after its time; ``"resubmit"`` may pay twice for it.
    :param retry_failed: submit again what the provider failed at in an earlier attempt.
    :param skip_bad: rows that cannot be submitted become results, and the others go ahead;
        otherwise the task fails and names all of them.
    :param raw: cells that look like what is left of something else are meant as they are:
        prompts like ``nan`` or with ``{braces}``, a row without a picture beside others.
    :param timeout: seconds that each row is waited for.
    :param deferrable: wait in the triggerer. Default: ``[operators] default_deferrable``.

    A retry or a clear goes on where the table stands. Raises KlingFailed and KlingTaskError.
    """

    template_fields: Sequence[str] = (
        "kling_conn_id",
        "rows",
        "rows_path",
        "defaults",
        "output_path",
        "results_path",
        "record_path",
        "max_cost_usd",
        "max_usd_per_run",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"rows": "json", "defaults": "json"}
    ui_color = "#d8f3dc"

    def __init__(
        self,
        *,
        results_path: str,
        rows: Sequence[Mapping[str, Any]] | None = None,
        rows_path: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        columns: Mapping[str, str] | None = None,
        output_path: str | None = None,
        record_path: str | None = None,
        kling_conn_id: str = DEFAULT_CONNECTION,
        at_once: int = 50,
        max_cost_usd: float | str | None = None,
        max_usd_per_run: float | str | None = None,
        fail_on_partial_error: bool = False,
        on_stale_state: Literal["resume", "fail"] = "resume",
        on_ambiguous_submit: Literal["fail", "resubmit"] = "fail",
        retry_failed: bool = False,
        skip_bad: bool = False,
        raw: bool = False,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**version_compat.supported(kwargs))
        self.rows = rows
        self.rows_path = rows_path
        self.defaults = defaults
        self.columns = columns
        self.output_path = output_path
        self.results_path = results_path
        self.record_path = record_path
        self.kling_conn_id = kling_conn_id
        self.at_once = at_once
        self.max_cost_usd = max_cost_usd
        self.max_usd_per_run = run_limit(max_usd_per_run)
        self.fail_on_partial_error = fail_on_partial_error
        if on_stale_state not in ("resume", "fail"):
            raise ValueError('on_stale_state is "resume" or "fail".')
        self.on_stale_state = on_stale_state
        if on_ambiguous_submit not in ("fail", "resubmit"):
            raise ValueError('on_ambiguous_submit is "fail" or "resubmit".')
        self.on_ambiguous_submit = on_ambiguous_submit
        self.retry_failed = retry_failed
        self.skip_bad = skip_bad
        self.raw = raw
        self.timeout = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        self.deferrable = deferrable
        if at_once < 1:
            raise ValueError("at_once is at least 1.")
        self._stopping = Stopping()

    def execute(self, context: Context) -> dict[str, Any]:
        return self._advance(context)

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """On a worker again, with the ids that the trigger says have ended."""
        since = Since(ended_ids(event), learned_from(event))
        return self._advance(context, since)

    def execute_again(self, context: Context, event: Any = None) -> dict[str, Any]:
        """On a worker again, once the gateway's log names every POST that was taken."""
        return self._advance(context, Since())

    def on_kill(self) -> None:
        """The end of the attempt: no further row is submitted, replies on their way are kept."""
        self._stopping.end()
        self.log.warning(
            "No further row is submitted. What was submitted goes on at the gateway, is billed "
            "when it completes, and is gone on with by a retry or a clear of this task."
        )

    # --- one round -------------------------------------------------------------------------

    def _advance(self, context: Context, since: Since | None = None) -> dict[str, Any]:
        """``since`` is what was seen since an earlier round of this attempt; None in the first."""
        self._stopping.begin(context)
        try:
            access = KlingHook(self.kling_conn_id).access()
            table, results = self._table(), ResultsFile(self.results_path)
            if since is None:
                self._check_targets(results)
            ledger = open_ledger(self._record_address(results))
            checked = self._checked(table, access, ledger, is_resumed=since is not None)
            earlier, former = adopted(table, checked.rows, results.earlier())
            self._check_state(checked, earlier)
            spending = Spending(self, context)
            run = run_to_end(lambda: self._round(access, ledger, checked, earlier, since, spending))
            again = isinstance(run, Round) and run.again and not run.interrupted
            ids = [*(step.result.row_id for step in run.steps), *former]
            results.write(*self._lines(table, checked, run.steps), ids, final=not again)
        except KlingTaskError:
            raise
        except KlingError as error:
            raise task_error(error, self.kling_conn_id) from None
        self.log.info("%s", run.tally.line())
        if again:
            assert isinstance(run, Round)
            self._defer(run, access)
        spending.settle_all(_paid(run.steps))
        return self._finish(context, run, checked, results)

    async def _round(
        self,
        access: Access,
        ledger: RunLedger,
        checked: Checked,
        earlier: Mapping[str, Result],
        since: Since | None,
        spending: Spending,
    ) -> Run:
        from ..core.http.async_client import AsyncKlingClient

        limit = cost.limit(self.max_cost_usd)
        wishes = Wishes(
            retry_failed=self.retry_failed,
            retry_uncertain=self.on_ambiguous_submit == "resubmit",
            saves=given_path(self.output_path) is not None,
        )
        client = AsyncKlingClient(
            access.api_key,
            access.base_url,
            timeout=access.timeout,
            legacy_endpoint=access.legacy_endpoint,
            ledger=ledger,
            patience=PATIENCE,
            connections=min(100, self.at_once + 10),
        )
        async with self._stopping.watch(client):
            prices = await self._prices(client, checked.rows, limit)

            def price(request: VideoRequest) -> float | None:
                return cost.explain(request, prices.get(request.model)).usd

            planned, since = (plan, Since()) if since is None else (resume, since)
            steps = await asyncio.to_thread(
                planned, checked.rows, ledger, access.base_url, earlier, wishes, price
            )
            self._check_prices(steps, limit)
            await asyncio.to_thread(spending.reserve_rows, _expected(steps), limit)
            already = 0.0
            if limit is not None:
                already = await asyncio.to_thread(
                    committed, steps, earlier, ledger, access.base_url
                )
            save = self._saver(access) if wishes.saves else None
            options = Options(self.at_once, float(self.timeout), wishes, save, since.learned)
            run = (
                Round(client, steps, options, Budget(limit, already), ended=since.ended)
                if self.deferrable
                else Run(client, steps, options, Budget(limit, already))
            )
            await run.run()
        return run

    def _saver(self, access: Access) -> Any:
        sync, folder = access.client(), str(self.output_path).rstrip("/")

        async def save(
            client: AsyncKlingClient, row: Row, done: Generation, entry: Entry | None
        ) -> tuple[str, Saved]:
            target = f"{folder}/{file_name(row, done)}"
            return await asyncio.to_thread(save_video, sync, done, target, row.prompt)

        return save

    async def _prices(
        self, client: AsyncKlingClient, rows: Sequence[Row], limit: float | None
    ) -> dict[str, object]:
        found: dict[str, object] = {}
        for model in sorted({row.model for row in rows}):
            try:
                found[model] = await client.prices(model)
            except KlingError:
                if limit is not None:
                    raise
        return found

    def _check_prices(self, steps: Sequence[Step], limit: float | None) -> None:
        for step in steps if limit is not None else ():
            if step.need is Need.SUBMIT and step.result.expected_usd is None:
                raise InvalidRequestError(
                    f"The cost of row {step.row.number} ({step.row.model}) is unknown beforehand, "
                    "so max_cost_usd cannot be kept. Nothing more was submitted."
                )

    def _defer(self, run: Round, access: Access) -> None:
        window = [
            {
                "id": step.result.generation_id,
                "since": since,
                "model": step.row.model,
                "duration": step.row.duration,
            }
            for step, since in run.running()
        ]
        speed = access.clock_speed
        if not window:  # only POSTs in doubt are left: the log names them later
            defer_until(self, time.time() + run.uncertain_for / speed + 1.0, "execute_again")
        end = max(float(each["since"]) for each in window) + float(self.timeout) / speed  # type: ignore[arg-type]
        trigger = KlingBatchTrigger(
            window=window,
            kling_conn_id=self.kling_conn_id,
            enough=math.ceil(len(window) * (_HALF if run.submits_more else _MOST)),
            end_time=end,
            learned=run.learned.to_json(),
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=backstop(end))

    # --- table, state, results -------------------------------------------------------------

    def _table(self) -> Table:
        rows, rows_path = read_text(given(self.rows), "[", math.inf), given_path(self.rows_path)
        if (rows is None) == (rows_path is None):
            raise InvalidRequestError("Give either rows or rows_path. Nothing was submitted.")
        if rows_path is not None:
            return read_table(rows_path)
        if isinstance(rows, str):
            raise InvalidRequestError(
                "rows is a list of mappings or of prompts, and this is the text of none: "
                f"{rows[:80]!r}. Nothing was submitted.",
                hint="As the text of a template: {{ … | tojson }}.",
            )
        is_lazy = isinstance(rows, Iterable) and not hasattr(rows, "columns")
        return table_of(list(rows) if is_lazy and not isinstance(rows, Mapping) else rows)

    def _check_targets(self, results: ResultsFile) -> None:
        """What can be known before anything is paid of where things are to go."""
        results.check(given_path(self.rows_path))
        if (folder := given_path(self.output_path)) is not None:
            check_target(f"{folder.rstrip('/')}/")
        if (record_path := given_path(self.record_path)) is not None:
            check_target(f"{record_folder(record_path).rstrip('/')}/", "record_path")

    def _checked(
        self, table: Table, access: Access, ledger: RunLedger, *, is_resumed: bool
    ) -> Checked:
        defaults = mapping_of("defaults", self.defaults)
        asked = (access.base_url, defaults, mapping_of("columns", self.columns))
        digest = pictures.digest(table, *asked)
        known = pictures.from_json(ledger.pictures(), digest) if is_resumed else {}
        checked = check(table, *asked, opened=ObjectStoragePath, known=known, raw=self.raw)
        for note in checked.notes:
            self.log.warning("%s", note)
        if checked.problems and (not self.skip_bad or not checked.rows):
            raise BadRowsError(checked.problems, len(table.records))
        kept = None if is_resumed else pictures.to_json(checked.rows, digest)
        if kept is not None:
            ledger.keep_pictures(kept)
        return checked

    def _record_address(self, results: ResultsFile) -> str:
        return given_path(self.record_path) or results.address.rpartition(".")[0] + ".records"

    def _check_state(self, checked: Checked, earlier: Mapping[str, Result]) -> None:
        known = {row.id for row in checked.rows}
        stale = [
            each for each in earlier.values() if each.generation_id and each.row_id not in known
        ]
        if not stale:
            return
        what = (
            f"{self.results_path} holds results of {len(stale)} rows that the table has no more "
            f"(the first is generation {stale[0].generation_id})"
        )
        if self.on_stale_state == "fail":
            raise LedgerError(f"{what}. Nothing was submitted.")
        self.log.warning("%s: their videos are left behind.", what)

    def _lines(
        self, table: Table, checked: Checked, steps: Sequence[Step]
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """The columns of the results, and their rows."""
        own, names = own_columns(table.columns), added_columns(table.columns)
        found = {step.row.number: step.result for step in steps}
        found |= {problem.row: problem.result() for problem in checked.problems}
        records = enumerate(table.records, 1)
        rows = [line(record, own, found[number], names) for number, record in records]
        return [*own, *names.values()], rows

    def _finish(
        self, context: Context, run: Run, checked: Checked, results: ResultsFile
    ) -> dict[str, Any]:
        counts = Counter(str(step.result.status) for step in run.steps)
        counts[RowStatus.REFUSED] += len(checked.problems)
        made: dict[str, Any] = {
            "rows": len(run.steps) + len(checked.problems),
            **{status.value: counts[status] for status in RowStatus},
            "usd": round(run.tally.spent, 6),
            "results_path": results.address,
            "output_path": self.output_path,
        }
        self.manifest = {**made, "rows_path": self.rows_path}  # for lineage
        self.log.info("Done: %s", json.dumps(made))
        for outlet in self.outlets or ():
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(made)
        if run.stopped is not None:
            raise task_error(run.stopped, self.kling_conn_id)
        if run.interrupted or counts[RowStatus.RUNNING]:
            running = KlingError(
                f"{counts[RowStatus.RUNNING]} generations go on at the gateway and are billed when "
                "they complete. A retry of this task goes on with them."
            )
            raise KlingTaskError(running, self.kling_conn_id)
        unsaved = [step for step in run.steps if step.result.error_kind == "download"]
        if unsaved:
            first = unsaved[0].result
            raise KlingTaskError(
                KlingError(
                    f"{len(unsaved)} videos could not be saved; they are paid for and kept, and a "
                    f"retry saves them. Row {first.row}: {first.error}"
                ),
                self.kling_conn_id,
            )
        bad = made["rows"] - counts[RowStatus.COMPLETED]
        if bad and self.fail_on_partial_error:
            words = f"{bad} of {made['rows']} rows ended without a video: see {results.address}."
            raise KlingFailed(KlingError(words), self.kling_conn_id)
        return made


def _expected(steps: Sequence[Step]) -> list[float | None]:
    """USD of each row that is still to be submitted; None where the price is not known."""
    return [step.result.expected_usd for step in steps if step.need is Need.SUBMIT]


def _paid(steps: Sequence[Step]) -> float:
    """USD that the table has cost over all attempts, or will: what goes on is billed, too."""
    billed = (RowStatus.COMPLETED, RowStatus.RUNNING, RowStatus.UNCERTAIN)
    return sum(step.paid or 0.0 for step in steps if step.result.status in billed)
