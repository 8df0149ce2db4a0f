"""What a task may cost: the limit of one video, and the budget that all tasks of a run share.

The price list is asked before anything is submitted. A run's budget is reserved before each POST
and settled by what was paid, in the store of records that all workers reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from ..core import cost
from ..core.errors import InvalidRequestError, KlingError
from ..core.storage.shared_budget import OverBudgetError, SharedBudget
from .record_places import default_record_path, open_shared
from .task_identity import TaskIdentity

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.client import KlingClient
    from ..core.request import VideoRequest

_NAME = "max_usd_per_run"


def run_limit(given: float | str | None) -> float | str | None:
    """What an operator was given, else ``[kling] max_usd_per_run`` of Airflow's configuration."""
    return given if given is not None else conf.get("kling", _NAME, fallback=None) or None


class Spending:
    """Of one attempt of a task, with its ``max_cost_usd``, ``max_usd_per_run``, ``record_path``.

    ``part`` tells payments of one task instance apart. Before a payment the methods raise
    KlingError; after one a budget that cannot be written is a warning.
    """

    def __init__(self, task: Any, context: Context, part: str = "") -> None:
        identity = TaskIdentity.of(context)
        self._task = task
        self._run = identity.run_name
        self._owner = f"{identity.record_name}{part}"
        self._budget: SharedBudget | None = None
        self._has_reserved = False

    def reserve(
        self, client: KlingClient, request: VideoRequest, *, in_doubt: bool = False
    ) -> float | None:
        """USD that the request will cost; None without a limit: the price is asked for later.

        ``in_doubt``: the task's last POST may have been paid, and stays counted. Raises
        InvalidRequestError for a price that is unknown or does not fit; LedgerError.
        """
        own, of_run = cost.limit(self._task.max_cost_usd), self._run_limit
        if own is None and of_run is None:
            return None  # the price must not stand in the way of a video
        prices = client.prices(request.model)
        if own is not None:
            expected = cost.check_cost(request, prices, own)
            self._task.log.info("Expected to cost %s (at most %s).", expected, cost.dollars(own))
        else:
            expected = cost.explain(request, prices)
        self.reserve_estimate(expected, request.model, in_doubt=in_doubt)
        return expected.usd

    def reserve_estimate(
        self, expected: cost.Estimate, what: str, *, in_doubt: bool = False
    ) -> None:
        """The part of ``reserve`` about the run's budget; ``what`` has that price."""
        limit = self._run_limit
        if limit is None:
            return
        if expected.usd is None:
            raise InvalidRequestError(
                f"The cost of {what} is unknown beforehand ({expected.reason}), so {_NAME} cannot "
                "be kept. Nothing was submitted.",
                hint=f"Leave {_NAME} out to submit at any price.",
            )
        try:
            self._open().reserve(self._owner, expected.usd, limit, in_doubt=in_doubt)
        except OverBudgetError as error:
            error.hint = f"The limit is {_NAME}, for all tasks of this run together."
            raise
        self._has_reserved = True

    def reserve_rows(self, expected: Sequence[float | None], limit: float | None) -> None:
        """Of a table: what its rows are expected to cost, each; ``limit`` is the table's own."""
        usd = [each for each in expected if each is not None]
        total = sum(usd) if limit is None else min(sum(usd), limit)
        if len(usd) < len(expected):
            self.reserve_estimate(cost.Estimate(None, "the price list leaves it open"), "a row")
        elif expected:
            self.reserve_estimate(cost.Estimate(total), "the table")

    @contextmanager
    def released_unless(self, open_: Callable[[], object]) -> Iterator[None]:
        """Around a submit: where it fails and nothing is ``open_``, nothing was paid."""
        try:
            yield
        except KlingError:
            if self._has_reserved and not open_():
                self.release()
            raise

    def paid(self, generation_id: str) -> None:
        self._note(lambda budget: budget.paid(self._owner, generation_id))

    def release(self) -> None:
        """Nothing was paid."""
        self._note(lambda budget: budget.release(self._owner))

    def settle(self, generation_id: str, usd: float | None) -> None:
        """A generation has ended: it cost so much, or where that is None what was reserved."""
        self._note(lambda budget: budget.settle(self._owner, generation_id, usd))

    def settle_all(self, usd: float) -> None:
        """All that this task instance has paid, over all attempts."""
        self._note(lambda budget: budget.settle_all(self._owner, usd))

    @property
    def _run_limit(self) -> float | None:
        return cost.limit(self._task.max_usd_per_run, _NAME)

    def _open(self) -> SharedBudget:
        if self._budget is None:
            address = default_record_path() or self._task.record_path
            if not address:
                raise InvalidRequestError(
                    f"{_NAME} needs one place that all tasks of the run reach, and there is none. "
                    "Nothing was submitted.",
                    hint="Set record_path in the section [kling] of Airflow's configuration "
                    "(s3://…, gs://…, abfs://…, or file:///… where all workers share a disk).",
                )
            store = open_shared(address, None, self._task.log)
            self._budget = SharedBudget(store, self._run)
        return self._budget

    def _note(self, work: Callable[[SharedBudget], None]) -> None:
        """What has happened already: a store that fails is a warning, and nothing is freed."""
        try:
            if self._run_limit is not None:
                work(self._open())
        except KlingError as error:
            self._task.log.warning(
                "The budget of this run cannot be written (%s). What was reserved stays reserved.",
                error.message,
            )
