"""Drives the rows of a batch on an AsyncKlingClient: so many at once, within a budget.

One event loop, a task for each generation under way. A row's payment is recorded by the client's
ledger before and after its POST, so whatever ends the process, the next run goes on from there.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .. import cost
from ..errors import (
    AuthenticationError,
    DownloadError,
    GenerationFailedError,
    InsufficientCreditsError,
    KlingError,
    KlingWarning,
    LedgerError,
    RateLimitedError,
    ServerError,
    SubmissionUncertainError,
    SubmittingEndedError,
)
from ..generation import Generation, Status
from ..http.async_client import AsyncKlingClient
from ..progress import Progress
from ..submission import Entry
from .budget import Budget
from .endings import cut_off, not_reached
from .in_doubt import Doubts
from .options import PATIENCE, GoesOnError, Options
from .plan import Need, Step
from .reporting import Reporter
from .results import RowStatus, classify, counted, now_iso
from .saving import save_in
from .schedules import Schedules
from .tally import Tally
from .window import Window

_LOOK_UP_EVERY = 20.0  # seconds between two looks into the gateway's log
_SAVING = 64  # videos that wait to be saved, beyond which nothing more is submitted


class Run:
    """One run over the steps of a plan. ``await run()`` once; ``steps`` then hold the results.

    ``on_result`` is called with each step as its row ends, ``on_change`` with the Tally after
    every change.
    """

    def __init__(
        self,
        client: AsyncKlingClient,
        steps: list[Step],
        options: Options,
        budget: Budget,
        *,
        on_result: Callable[[Step], object] | None = None,
        on_change: Callable[[Tally], object] | None = None,
    ) -> None:
        self.steps = steps
        self.interrupted = False
        self.stopped: KlingError | None = None
        self.tally = Tally(len(steps), max_cost=budget.limit)
        self._client = client
        self._options = options
        self._budget = budget
        folder = options.wishes.folder
        self._save_video = options.save or (save_in(folder) if folder is not None else None)
        learned = options.learned
        self._window = Window(options.at_once, learned.limit, learned.patience)
        self._report = Reporter(self.tally, self._window, budget, on_result, on_change)
        self._schedules = Schedules(learned.times)
        self._queue: deque[Step] = deque()
        self._held: list[Step] = []  # they do not fit into the budget, as it stands
        self._doubts = Doubts(client, self._schedules)
        self._got_through = False  # a POST was answered, whatever it said
        self._left: list[Step] = []  # something else waits for them
        self._tasks: dict[asyncio.Task[None], Step] = {}
        self._posting: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until every row has ended, or nothing more can be submitted.

        A cancellation stops the waiting: POSTs under way get their reply, what runs at the gateway
        goes on, and every row has a result that says so. ``interrupted`` is True then.
        """
        self._begin()
        try:
            await self._look_up()
            await self._drain()
            await self._settle_doubts()
        except asyncio.CancelledError:
            self.interrupted = True
            self._client.end_submitting()  # also what waits for its turn
            self.tally.note = "interrupted: submissions under way get their reply"
            self._report.changed()
            await self._let_go()
        for step in [*self._queue, *self._held, *self._doubts.steps]:
            self._close(step)
        self._report.changed()

    # --- beginning and ending --------------------------------------------------------------

    def _begin(self) -> None:
        """What has ended is counted; what is paid for counts as spent, and goes first."""
        later = []
        for step in self.steps:
            if step.need is Need.NOTHING:
                self._budget.hold(counted(step.result))
                self._budget.settle(counted(step.result), None)
                self._report.row(step)
            elif step.need is Need.SUBMIT:
                later.append(step)
            else:
                step.reserved = step.paid
                self._budget.hold(step.reserved)
                attach = step.need is Need.ATTACH
                (self._queue if attach else self._doubts.steps).append(step)
        self._queue.extend(later)
        self._report.changed()

    async def _let_go(self) -> None:
        """After an interrupt: replies of POSTs are waited for, everything else is left."""
        for task in set(self._tasks) - self._posting:
            task.cancel()
        while self._tasks:
            with suppress(asyncio.CancelledError):  # once more: they are waited for no longer
                await asyncio.wait(list(self._tasks), timeout=self._client.timeout)
            for task in list(self._tasks):
                task.cancel()

    def _close(self, step: Step) -> None:
        """The result of a row that was not got to."""
        trouble = self._doubts.trouble
        ending = not_reached(
            step, interrupted=self.interrupted, stopped=self.stopped, trouble=trouble
        )
        self._report.end(step, *ending)

    # --- the loop --------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Starts what may start, until nothing is left that can."""
        while True:
            self._start()
            if not self._tasks and (not self._queue or self._left):
                return
            self._wake.clear()
            await self._pause()

    def _start(self) -> None:
        now = self._client.clock.now()
        since = self._window.blocked_since
        if since is not None and now - since > PATIENCE.outage and not self._window.running:
            self._stop(ServerError("The gateway takes no submission any more."))
        while self._queue and len(self._tasks) < self._options.at_once + _SAVING:
            step = self._queue[0]
            if step.need is Need.ATTACH:
                if not self._window.has_room():
                    return
                self._window.attach()
            elif self.stopped is not None:
                self._held.append(self._queue.popleft())
                continue
            elif not self._window.is_free(now):
                return
            else:
                if not self._budget.reserve(step.result.expected_usd):
                    self._held.append(self._queue.popleft())
                    continue
                step.reserved = step.result.expected_usd
                self._window.post()
            self._queue.popleft()
            task = asyncio.ensure_future(self._tend(step))
            self._tasks[task] = step
            task.add_done_callback(self._ended)
        self._report.changed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._wake.set()

    async def _pause(self) -> None:
        """Until something has ended, or the pause after a refusal is over."""
        clock = self._client.clock
        seconds = self._window.pause(clock.now()) if self._queue else 0.0
        try:
            async with asyncio.timeout(clock.real(seconds) if seconds else None):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _stop(self, error: KlingError) -> None:
        """Nothing more is submitted; what runs is waited for."""
        if self.stopped is None:
            self.stopped = error
            self.tally.note = f"nothing more is submitted: {error.message}"

    def _release(self, step: Step) -> None:
        """Nothing was paid for this step: rows that did not fit may fit now."""
        self._budget.release(step.reserved)
        step.reserved = None
        self._unhold()

    def _unhold(self) -> None:
        if self._held and self.stopped is None:
            self._queue.extend(self._held)
            self._held.clear()

    # --- one row ---------------------------------------------------------------------------

    async def _tend(self, step: Step) -> None:
        """One row, from its POST or its record to its result; raises nothing."""
        running = step.need is Need.ATTACH
        try:
            if running:
                assert step.entry is not None
                generation, entry = step.entry.generation(), step.entry
            else:
                submitted = await self._submit(step)
                if submitted is None:
                    return
                generation, entry, running = submitted, None, True
            step.need = Need.ATTACH
            step.result.generation_id = generation.id
            if self.interrupted:
                raise asyncio.CancelledError
            done = await self._wait(step, generation, entry)
            self._window.ended(self._client.clock.now())
            running = False
            await self._save(step, done, entry)
        except GoesOnError:
            running = False
            self._left.append(step)
        except asyncio.CancelledError:
            self._report.end(step, *cut_off(step.result))
        except KlingError as error:
            self._failed(step, error)
        except Exception as error:  # noqa: BLE001 (a row never fails the batch)
            known = RowStatus.RUNNING if step.result.generation_id else RowStatus.NOT_SUBMITTED
            self._report.end(step, known, "error", f"{type(error).__name__}: {error}")
        finally:
            if running:
                self._window.ended(self._client.clock.now())

    async def _submit(self, step: Step) -> Generation | None:
        """The row's generation; None where there is none now, and the step was put elsewhere."""
        window, task = self._window, asyncio.current_task()
        assert task is not None
        self._posting.add(task)
        try:
            row = step.row
            request = await asyncio.to_thread(row.request) if row.pictures() else row.request()
            generation = await self._client.submit(request, take=row.take, resubmit=step.resubmit)
        except RateLimitedError:
            self._got_through = True
            window.refused(self._client.clock.now())
            self._put_back(step)
        except ServerError as error:  # no connection was had: surely not taken
            window.unreachable(self._client.clock.now())
            self._put_back(step)
            self._unreachable(error)
        except (AuthenticationError, InsufficientCreditsError, SubmittingEndedError) as error:
            window.dropped()
            if not self.interrupted:
                self._stop(error)
            self._put_back(step)
        except SubmissionUncertainError as error:
            window.dropped()
            self._in_doubt(step, error)
        except LedgerError as error:
            window.dropped()
            if error.generation_id:  # paid, though its id could not be written down
                window.post()
                window.accepted()
                self._stop(error)
                return Generation(id=error.generation_id, status=Status.UNKNOWN)
            self._stop(error)
            self._put_back(step)
        except BaseException:
            window.dropped()
            raise
        else:
            window.accepted()
            self._got_through = True
            self._doubts.accepted()
            if self.stopped is None:
                self.tally.note = ""
            self.tally.paid_now += bool(generation.raw)
            step.result.submitted_at = now_iso(time.time())
            self._wake.set()  # one that is taken may allow one more
            self._report.changed()
            return generation
        finally:
            self._posting.discard(task)
        return None

    def _unreachable(self, error: ServerError) -> None:
        """Says so; where nothing has ever got through, nothing more is tried."""
        if self._got_through:
            self.tally.note = f"{error.message.rstrip('.')}; it is tried again"
        else:
            self._stop(error)

    def _put_back(self, step: Step) -> None:
        self._release(step)
        self._queue.appendleft(step)

    def _in_doubt(self, step: Step, error: SubmissionUncertainError) -> None:
        """It may have been paid: the reservation stays, and the log is looked into later."""
        if too_many := self._doubts.add(step, error):
            self._stop(too_many)

    async def _wait(self, step: Step, generation: Generation, entry: Entry | None) -> Generation:
        """The completed generation, paid for and counted."""
        if generation.status is Status.COMPLETED:
            self._settle(step, generation)
            return generation
        client, row = self._client, step.row
        schedule = self._schedules.of(row.model, row.duration)
        self.tally.expected = client.clock.real(schedule.expected)
        elapsed = entry.age * client.clock.speed if entry else 0.0 if generation.raw else None
        last: Progress | None = None

        def note(progress: Progress) -> None:
            nonlocal last
            last = progress
            if progress.polls and not progress.note:  # the gateway answers
                self._got_through = True

        done = await client.wait(
            generation.id,
            timeout=self._timeout(entry),
            schedule=schedule,
            elapsed=elapsed,
            on_update=note,
        )
        if last is not None:
            step.result.seconds = round(last.elapsed, 1)
            self._schedules.saw(row.model, row.duration, last)
        self._settle(step, done)
        return done

    def _timeout(self, entry: Entry | None) -> float:
        """Seconds that a row is waited for from now on."""
        return self._options.timeout

    def _settle(self, step: Step, done: Generation) -> None:
        step.result.complete(done, None)
        self._count(step, cost.charged(done.usage, step.result.expected_usd))

    def _count(self, step: Step, charged: cost.Charged) -> None:
        """What a generation cost takes the place of what was reserved for it."""
        if charged.odd:
            warnings.warn(
                f"Row {step.row.number}: {charged.odd}. Generation: {step.result.generation_id}",
                KlingWarning,
                stacklevel=2,
            )
        self._budget.settle(step.reserved, charged.usd)
        reserved, step.reserved = step.reserved, None
        if charged.usd is not None and charged.usd < (reserved or 0.0):
            self._unhold()

    async def _save(self, step: Step, done: Generation, entry: Entry | None) -> None:
        where = None
        if self._save_video is not None:
            where = await self._save_video(self._client, step.row, done, entry)
        step.result.complete(done, where)
        self._report.row(step)

    def _failed(self, step: Step, error: KlingError) -> None:
        status, kind = classify(error)
        if step.result.status == RowStatus.COMPLETED and not isinstance(error, DownloadError):
            status, kind = RowStatus.COMPLETED, "download"  # asked for a link, in vain
        if isinstance(error, GenerationFailedError):
            step.result.usd = cost.spent(error.usage)
            self._count(step, cost.charged(error.usage, step.result.expected_usd, failed=True))
        elif status is RowStatus.REFUSED:
            self._release(step)
        self._report.end(step, status, kind, error.message)

    # --- submissions without a known outcome -----------------------------------------------

    async def _look_up(self) -> None:
        for step in await self._doubts.look_up():
            if step.need is Need.SUBMIT:
                self._release(step)
            self._queue.append(step)
        if self._doubts.trouble:
            self.tally.note = self._doubts.trouble

    async def _settle_doubts(self) -> None:
        """Looks until every such generation would have ended, and so be listed."""
        clock = self._client.clock
        while self._doubts.steps:
            await self._look_up()
            if self._queue:
                await self._drain()
                continue
            left = self._doubts.seconds_left()
            if left <= 0.0:
                break
            await asyncio.sleep(clock.real(min(left, _LOOK_UP_EVERY)))
        await self._repeat_doubts()

    async def _repeat_doubts(self) -> None:
        """Submits again what the log does not name, where the user wants that."""
        if self._doubts.steps and self._options.wishes.retry_uncertain:
            for step in self._doubts.give_up():
                # It may have been paid all the same.
                self._budget.settle(step.reserved, step.reserved)
                step.reserved = None
                self._queue.append(step)
            await self._drain()
