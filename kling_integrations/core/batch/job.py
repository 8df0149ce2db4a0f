"""A batch from its table to its results: what shell, notebook and scripts have in common."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import cost
from ..errors import InvalidRequestError, KlingError, NextStep, Verb
from ..http.async_client import AsyncKlingClient
from ..request import VideoRequest
from ..storage import file_names, object_files, result_files
from ..storage.ledger import Ledger
from ..storage.sqlite_file import kept_open
from ..storage.target_lock import TargetLock
from ..waiting import DEFAULT_TIMEOUT, seconds
from .budget import Budget
from .options import PATIENCE, Options
from .plan import Need, Step, Wishes, committed, doubted_before, plan
from .problems import Problem, listed
from .results import Result, RowStatus, added_columns, counted, is_results, line, own_columns
from .rows import Checked, Table, adopted, check
from .run import Run
from .tally import Tally
from .threads import run_to_end

_MOST_SHOWN = 20  # lines of an error about bad rows


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks of a batch.

    ``defaults`` are parameters for what a row leaves out, ``names`` the columns that are called
    otherwise (``{"prompt": "text", "key": "sku"}``). ``folder``: where the videos go, None leaves
    them at the gateway; ``results``: the table that is written (.jsonl, .csv, .parquet, a folder
    that is there, or an address in object storage; default ``results.jsonl`` in the folder of the
    videos). ``max_cost`` in USD for
    the whole batch, earlier runs of it included. ``timeout`` in seconds for each row. ``skip_bad``:
    rows that cannot be submitted get a result that says so, and the others go ahead. ``raw``: texts
    that look like mistakes are meant, and no columns are filled into them, see ``rows.check``.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    results: Path | str | None = None
    max_cost: float | None = None
    at_once: int = 10
    requests_per_second: float | None = None
    timeout: float = DEFAULT_TIMEOUT
    skip_bad: bool = False
    retry_failed: bool = False
    retry_uncertain: bool = False
    overwrite: bool = False
    raw: bool = False

    @property
    def results_path(self) -> Path | str:
        """A path on this disk as a Path, an address in object storage as text.

        Raises InvalidRequestError where nothing says where the results go, and for what is no
        target (see ``file_names.target_of``).
        """
        if self.results is not None:
            target = file_names.target_of(self.results)
            if object_files.is_address(target):
                return target
            path = Path(target).expanduser()
            is_folder = not path.suffix and path.is_dir()
            return path / "results.jsonl" if is_folder else path
        if self.folder is None:
            raise InvalidRequestError(
                "Without a folder for the videos, say where the results go.",
                next_steps=[NextStep(Verb.SET_OUTPUT)],
            )
        return self.folder / "results.jsonl"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch before anything is paid. ``expected`` in USD for what would be submitted.

    ``unpriced``: how many of those have no known price. ``committed``: USD that count against the
    limit beside the steps, see ``plan.committed``.
    """

    checked: Checked
    steps: list[Step]
    expected: float
    unpriced: int
    committed: float = 0.0

    def count(self, *needs: Need) -> int:
        return sum(step.need in needs for step in self.steps)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a batch ended: a result for every row of the table, in its order."""

    results: list[Result]
    tally: Tally
    interrupted: bool = False
    stopped: KlingError | None = None
    files: tuple[Path | str, ...] = ()
    trouble: str = ""
    """Why the results could not be written; empty where they were."""

    def count(self, status: RowStatus) -> int:
        return sum(result.status == status for result in self.results)

    def raise_partial(self) -> None:
        """Raises KlingError where a row ended without a video: the table as a whole has failed."""
        bad = [each for each in self.results if each.status != RowStatus.COMPLETED]
        if bad:
            raise KlingError(
                f"{len(bad)} of {len(self.results)} rows ended without a video. Row {bad[0].row}: "
                f"{bad[0].status} ({bad[0].error_kind}): {bad[0].error}",
                generation_id=bad[0].generation_id,
                next_steps=[NextStep(Verb.SUBMIT_AGAIN)],
            )


def _check_order(order: Order) -> None:
    """Raises InvalidRequestError for what would fail after something is paid."""
    cost.limit(order.max_cost, "max_cost")
    at_once = order.at_once
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
        raise InvalidRequestError(f"at_once is a whole number from 1 on, not {at_once!r:.60}.")
    seconds(order.timeout, "timeout")
    rate = order.requests_per_second
    if rate is not None and (
        isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0
    ):
        raise InvalidRequestError(f"requests_per_second is a number above 0, not {rate!r:.60}.")


class BadRowsError(InvalidRequestError):
    """Rows that cannot be submitted; nothing was. ``problems`` has them all."""

    def __init__(self, problems: Sequence[Problem], rows: int) -> None:
        shown = [f"  {line}" for line in listed(problems, _MOST_SHOWN)]
        steps = [NextStep(Verb.SKIP_BAD_ROWS)] if len(problems) < rows else []
        if any(each.literal for each in problems):
            steps.append(NextStep(Verb.TAKE_LITERALLY))
        super().__init__(
            "\n".join(
                [
                    f"{len(problems)} of {rows} rows cannot be submitted. Nothing was submitted.",
                    *shown,
                ]
            ),
            next_steps=steps,
        )
        self.problems = tuple(problems)


class Batch:
    """One table with one order. ``prepare`` pays nothing; ``run`` does.

    ``columns`` is how each result column is called beside the table's own.

    Raises InvalidRequestError for a table, a column or a results file that cannot be.
    """

    def __init__(self, table: Table, order: Order, ledger: Ledger, base_url: str) -> None:
        _check_order(order)
        self.table = table
        self.order = order
        self._ledger = ledger
        self._base_url = base_url
        if order.folder is not None:
            file_names.check_folder(Path(file_names.local_target(order.folder)))
        self._results = order.results_path
        self._journal = result_files.Journal(self._journal_path())
        self._check_targets()
        self.checked = check(table, base_url, order.defaults, order.names, raw=order.raw)
        self._own = own_columns(table.columns)
        self.columns = added_columns(self._own)
        self._trouble = ""
        self._replaces = False
        self._former: set[str] = set()  # what earlier versions called some of the rows

    def _journal_path(self) -> Path:
        """Beside the results; where those are in object storage, which knows no appending, beside
        the videos or the records of payments."""
        if isinstance(self._results, Path):
            return result_files.journal_of(self._results)
        if self.order.folder is not None:
            return self.order.folder / "results.jsonl"
        name = hashlib.sha256(self._results.encode()).hexdigest()[:16]
        return self._ledger.path.parent / "batches" / f"{name}.jsonl"

    def _check_targets(self) -> None:
        for target in dict.fromkeys((self._results, self._journal.path)):
            self._check_target(target)
            is_input = result_files.is_input(target, self.table.source)
            if is_input and (target == self._journal.path or not self._is_given_back()):
                raise InvalidRequestError(
                    f"The results would be written to {str(target)!r}, which is the table itself: "
                    "it is left as it is, and nothing was submitted.",
                    next_steps=[NextStep(Verb.SET_OUTPUT)],
                )

    def _check_target(self, target: Path | str) -> None:
        overwrite = self.order.overwrite
        if isinstance(target, str):
            result_files.check_address(target, overwrite=overwrite)
            return
        result_files.check_target(target)
        file_names.check_folder(target.parent)
        if not overwrite and target.exists() and not result_files.is_ours(target):
            raise result_files.not_ours(target)

    def _is_given_back(self) -> bool:
        """Whether the table is one of results, whole, so that the new results may replace it."""
        return is_results(self.table.columns) and not self.table.bad

    # --- before anything is paid -----------------------------------------------------------

    def check_rows(self) -> None:
        """Raises BadRowsError where rows cannot be submitted, unless they shall be skipped."""
        if self.checked.problems and not self.order.skip_bad:
            raise BadRowsError(self.checked.problems, len(self.table.records))
        if not self.checked.rows:
            raise BadRowsError(self.checked.problems, len(self.table.records))

    def models(self) -> list[str]:
        return sorted({row.model for row in self.checked.rows})

    def prepare(self, prices: Mapping[str, object]) -> Prepared:
        """What each row needs. ``prices``: by model id, what ``client.prices`` says of it.

        Raises LedgerError where the records cannot be read, and InvalidRequestError where a limit
        is asked for and the gateway names no price.
        """
        order = self.order

        def price(request: VideoRequest) -> float | None:
            return cost.explain(request, prices.get(request.model)).usd

        wishes = Wishes(order.folder, order.retry_failed, order.retry_uncertain)
        earlier, self._former = adopted(self.table, self.checked.rows, self._earlier())
        is_forgetful = not self._ledger.history(1)  # and the file is made, so it can be kept open
        with kept_open(self._ledger.path):
            steps = plan(self.checked.rows, self._ledger, self._base_url, earlier, wishes, price)
        doubted = doubted_before(steps, earlier) if is_forgetful else []
        for step in () if order.retry_uncertain else doubted:
            step.need = Need.LOOK_UP
        due = [step for step in steps if step.need is Need.SUBMIT]
        unpriced = [step for step in due if step.result.expected_usd is None]
        if order.max_cost is not None and unpriced:
            row = unpriced[0].row
            reason = cost.explain(row.request(), prices.get(row.model)).reason
            raise InvalidRequestError(
                f"The cost of row {row.number} ({row.model}) is unknown beforehand ({reason}), so "
                f"the limit of {cost.dollars(order.max_cost)} cannot be kept. Nothing was "
                "submitted.",
                next_steps=[NextStep(Verb.RAISE_COST_LIMIT)],
            )
        expected = sum(step.result.expected_usd or 0.0 for step in due)
        already = 0.0
        if order.max_cost is not None:
            already = committed(steps, earlier, self._ledger, self._base_url)
            already += sum(
                counted(earlier[step.result.row_id]) for step in doubted if step.need is Need.SUBMIT
            )
        return Prepared(self.checked, steps, expected, len(unpriced), already)

    def _earlier(self) -> dict[str, Result]:
        try:
            return self._journal.earlier()
        except InvalidRequestError:
            if not self.order.overwrite:
                raise
            self._replaces = True
            return {}

    # --- running ---------------------------------------------------------------------------

    def client(self) -> AsyncKlingClient:
        return AsyncKlingClient(
            base_url=self._base_url,
            ledger=self._ledger,
            patience=PATIENCE,
            connections=min(100, 2 * self.order.at_once + 10),
            max_requests_per_second=self.order.requests_per_second,
        )

    async def prices(self, *, strict: bool = True) -> dict[str, object]:
        """What the gateway's price list says of each model of the table. Costs nothing.

        Without a limit in the order, or not ``strict``, a list that cannot be had is none.
        """
        found: dict[str, object] = {}
        needed = strict and self.order.max_cost is not None
        try:
            async with self.client() as client:
                for model in self.models():
                    try:
                        found[model] = await client.prices(model)
                    except KlingError:
                        if needed:
                            raise
        except KlingError:
            if strict:
                raise
        return found

    async def run(
        self, prepared: Prepared, on_change: Callable[[Tally], object] | None = None
    ) -> Outcome:
        """Submits, waits and saves, and writes the results. A cancellation ends it early.

        Raises InvalidRequestError where another run writes the same results, LedgerError where
        the records fail before anything is submitted.
        """
        order = self.order
        with self._alone(), kept_open(self._ledger.path):
            if order.folder is not None:
                order.folder.mkdir(parents=True, exist_ok=True)
            if self._replaces:
                self._journal.path.unlink(missing_ok=True)
            if isinstance(self._results, str):  # whether it can be written is seen before paying
                await asyncio.to_thread(self._write_to, self._results, self._in_order(prepared))
            async with self.client() as client:
                wishes = Wishes(order.folder, order.retry_failed, order.retry_uncertain)
                run = Run(
                    client,
                    prepared.steps,
                    Options(order.at_once, seconds(order.timeout, "timeout"), wishes),
                    Budget(order.max_cost, prepared.committed),
                    on_result=self._write,
                    on_change=on_change,
                )
                await run.run()
            results = self._in_order(prepared)
            files = self._write_all(results)
        return Outcome(results, run.tally, run.interrupted, run.stopped, files, self._trouble)

    def run_to_end(
        self,
        prepared: Prepared,
        on_change: Callable[[Tally], object] | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> Outcome:
        """``run`` for ordinary code. An interrupt ends it early, and is no exception.

        ``on_change`` is called by another thread, ``meanwhile`` now and then by the caller's.
        """
        return run_to_end(lambda: self.run(prepared, on_change), meanwhile)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time for one table of results: two would each have the whole budget."""
        lock = TargetLock(self._ledger.path.parent, self._journal.path)
        try:
            lock.acquire()
        except InvalidRequestError:
            raise InvalidRequestError(
                f"Another run of this batch writes {str(self._journal.path)!r} right now. Nothing "
                "was submitted."
            ) from None
        try:
            yield
        finally:
            self._journal.close()
            lock.release()

    # --- results ---------------------------------------------------------------------------

    def _write(self, step: Step) -> None:
        """A row's line, as it ends. A full disk must not end the waiting for what is paid."""
        try:
            self._journal.add(self._line(step.result))
        except Exception as error:  # noqa: BLE001 (nothing that is written may lose what is paid)
            self._trouble = _not_written(self._journal.path, error)

    def _write_all(self, results: Sequence[Result]) -> tuple[Path | str, ...]:
        """The journal, in order, and the table. What is in the journal is not lost where the
        table cannot be written: the next run writes it."""
        self._journal.close()
        written: list[Path | str] = []
        for target in dict.fromkeys((self._journal.path, self._results)):
            try:
                self._write_to(target, results)
            except Exception as error:  # noqa: BLE001 (as above)
                self._trouble = _not_written(target, error)
                return tuple(written)
            written.append(target)
        self._trouble = ""
        return tuple(written)

    def _write_to(self, target: Path | str, results: Sequence[Result]) -> None:
        names = [*self._own, *self.columns.values()]
        lines = map(self._line, results)
        if isinstance(target, str):
            result_files.write_table_at(target, names, lines)
        else:
            is_journal = target == self._journal.path
            ids = {each.row_id for each in results} | self._former
            others = self._journal.others(ids) if is_journal else []
            result_files.write_table(target, names, lines, others=others)

    def lines(self, results: Sequence[Result]) -> list[dict[str, Any]]:
        """The whole rows, as they are written: their own cells, then the result's."""
        return [self._line(result) for result in results]

    def _line(self, result: Result) -> dict[str, Any]:
        return line(self.table.records[result.row - 1], self._own, result, self.columns)

    def _in_order(self, prepared: Prepared) -> list[Result]:
        found = {step.row.number: step.result for step in prepared.steps}
        for problem in prepared.checked.problems:
            found[problem.row] = problem.result()
        return [found[number] for number in sorted(found)]


def _not_written(target: Path | str, error: Exception) -> str:
    why = getattr(error, "strerror", None) or getattr(error, "message", None) or error
    return f"{target} cannot be written: {why}"
