"""Batches from Python and from ``%kling batch``: a DataFrame in, a DataFrame out.

Works in a notebook, with a live board and a gallery, and in any other program, with lines.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core import cost, settings
from ..core.batch.frames import table_of, with_results
from ..core.batch.job import Batch, Order, Outcome, Prepared
from ..core.batch.plan import Need
from ..core.batch.results import RowStatus
from ..core.batch.rows import meant
from ..core.batch.tally import Tally
from ..core.batch.threads import run_to_end
from ..core.errors import NextStep, StoppedWaiting, Verb
from ..core.storage.file_names import local_target, target_of
from ..core.storage.ledger import Ledger
from ..core.storage.object_files import is_address
from ..core.waiting import DEFAULT_TIMEOUT
from .frontend import showing, write
from .options import loaded

_LINE_EVERY = 5.0  # seconds between two lines of a script's batch


def batch(
    table: Any,
    *,
    out: str | Path | None = None,
    prompt: str | None = None,
    key: str | None = None,
    results: str | Path | None = None,
    max_cost: float | None = None,
    at_once: int = 10,
    timeout: float = DEFAULT_TIMEOUT,
    skip_bad: bool = False,
    retry_failed: bool = False,
    retry_uncertain: bool = False,
    fail_on_partial_error: bool = False,
    quiet: bool = False,
    raw: bool = False,
    **parameters: Any,
) -> Any:
    """The videos of a table, each row paid for once; the table with the results as columns.

    ``table``: a DataFrame of pandas or polars, a file (CSV, JSON Lines, JSON, Parquet), a list of
    mappings or of prompts. Columns that are named like parameters of ``VideoRequest`` are the
    request, ``parameters`` what a row leaves out; ``prompt``, ``image`` and ``tail_image`` may
    name a column instead, and ``key`` names the one by which rows are known. ``out``: the folder
    of the videos (None leaves them at the gateway; then ``results`` must say where the table of
    results is written, else it is ``out/results.jsonl``). ``max_cost``: USD for the whole batch,
    all runs of it. ``timeout``: seconds for each row.

    A ``prompt`` for all rows may hold columns in braces: ``"A {product} at the {place}"``. Prompts
    and keys that are what is left of a missing value (``nan``, ``#REF!``), a repeated header,
    braces that nothing fills and a blank picture beside others make a row bad, unless ``raw``.

    The same call again goes on where it was. A row that fails is a row: see the columns ``status``,
    ``error_kind`` and ``error``. Raises BadRowsError, before anything is paid, for rows that cannot
    be submitted (unless ``skip_bad``), StoppedWaiting on an interrupt, and with
    ``fail_on_partial_error`` a KlingError where a row ended without a video.
    """
    rows = table_of(table)
    defaults, names = meant(rows, {"prompt": prompt, **parameters}, key)
    order = Order(
        defaults=defaults,
        names=names,
        folder=None if out is None else Path(_located(local_target(out))),
        results=None if results is None else _located(target_of(results)),
        max_cost=within_cell(max_cost),
        at_once=at_once,
        timeout=timeout,
        skip_bad=skip_bad,
        retry_failed=retry_failed,
        retry_uncertain=retry_uncertain,
        raw=raw,
    )
    made = Batch(rows, order, Ledger(), settings.base_url())
    outcome = _run(made, _display(quiet))
    if fail_on_partial_error:
        outcome.raise_partial()
    return with_results(table, made.columns, made.lines(outcome.results))


def _run(
    batch: Batch,
    display: Display,
    confirm: Callable[[Prepared], None] | None = None,
) -> Outcome:
    """Checks, prices and runs a batch with its display."""
    batch.check_rows()
    prepared = batch.prepare(run_to_end(batch.prices))
    if confirm:
        confirm(prepared)
    with showing():
        display.begin(batch, prepared)

    def show() -> None:
        with showing():
            display.show()

    outcome = batch.run_to_end(prepared, display.take, show)
    with showing():
        display.end(batch, outcome)
    if outcome.interrupted:
        running = [each for each in outcome.results if each.status == RowStatus.RUNNING]
        raise StoppedWaiting(
            running[0].generation_id if running else None,
            message=f"Stopped. Everything that has ended is kept; {len(running)} generations go "
            "on at the gateway and are billed when they complete.",
            next_steps=[NextStep(Verb.SUBMIT_AGAIN)],
        )
    return outcome


class Display:
    """How a batch is shown while it runs. ``take`` comes from its thread, ``show`` from the main
    one; this one shows nothing."""

    def __init__(self) -> None:
        self._last: Tally | None = None

    def begin(self, batch: Batch, prepared: Prepared) -> None:
        """Nothing is paid yet."""

    def take(self, tally: Tally) -> None:
        self._last = tally

    def show(self) -> None:
        """Called now and then while the batch runs."""

    def end(self, batch: Batch, outcome: Outcome) -> None:
        """The batch has ended."""


class Lines(Display):
    """Lines on stderr, for scripts."""

    def __init__(self) -> None:
        super().__init__()
        self._said, self._next = "", 0.0

    def begin(self, batch: Batch, prepared: Prepared) -> None:
        write(sys.stderr, headline(batch, prepared))

    def show(self) -> None:
        if self._last is not None and time.monotonic() >= self._next:
            self._say(self._last.line())

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said, self._next = line, time.monotonic() + _LINE_EVERY
            write(sys.stderr, line)

    def end(self, batch: Batch, outcome: Outcome) -> None:
        self._say(outcome.tally.line())


class InNotebook(Display):
    """A board that becomes a gallery."""

    def __init__(self) -> None:
        from .display.batch_board import Board
        from .frontend import choose_ui

        super().__init__()
        self._sandbox = settings.is_sandbox(settings.base_url())
        self._board = Board(choose_ui(), sandbox=self._sandbox)

    def begin(self, batch: Batch, prepared: Prepared) -> None:
        from .frontend import print_line, print_notes

        print_notes(batch.checked.notes)
        print_notes(f"skipped: {line}" for line in batch.checked.skipped())
        print_line(headline(batch, prepared))

    def show(self) -> None:
        if self._last is not None:
            self._board.update(self._last)

    def end(self, batch: Batch, outcome: Outcome) -> None:
        from .display.pages import gallery
        from .frontend import print_line

        self._board.update(outcome.tally, last=True)
        prompts = {row.number: row.prompt for row in batch.checked.rows}
        spent = outcome.tally.spent
        self._board.end(gallery(outcome.results, prompts, spent=spent, sandbox=self._sandbox))
        if outcome.trouble:
            print_line(outcome.trouble)


def headline(batch: Batch, prepared: Prepared) -> str:
    """``500 rows, 480 to submit · expected cost $240.00``."""
    total, due = len(batch.table.records), prepared.count(Need.SUBMIT)
    price = "unknown" if prepared.unpriced else cost.dollars(prepared.expected)
    return f"{total:,} rows, {due:,} to submit{f' · expected cost {price}' if due else ''}"


def _display(quiet: bool) -> Display:
    if quiet:
        return Display()
    from .frontend import in_notebook

    if loaded() is None and in_notebook():
        from .session import current

        current()
    return InNotebook() if loaded() is not None else Lines()


def _located(target: str) -> str:
    """A path beside the notebook, where there is one; an address as it is."""
    if is_address(target):
        return target
    here = loaded()
    return str((here.folder if here is not None else Path.cwd()) / Path(target).expanduser())


def contact_sheet(
    results: Any,
    path: str | Path | None = None,
    *,
    columns: int | None = None,
    width: int = 1600,
    overwrite: bool = False,
) -> Any:
    """One picture of a batch, a tile for each row: a PIL image, also saved at ``path`` if given.

    ``results`` is what ``batch`` returned, or a results file; ``path`` is a .jpg or a .png. A
    file there that is no contact sheet is replaced with ``overwrite`` alone. ``width`` in pixels.
    Raises InvalidRequestError where there is nothing to show.
    """
    from ..core.batch import sheet

    target = None if path is None else Path(_located(local_target(path)))
    rows = table_of(results).records
    return sheet.make(rows, target, columns=columns, width=width, overwrite=overwrite)


# --- %kling batch ----------------------------------------------------------------------------


def run_line(args: argparse.Namespace, console: Any) -> Any:
    """``%kling batch df --prompt text -o out/``: a variable, or a file as in a shell.

    Raises UsageError where the price needs ``--yes``.
    """
    from ..commands import batch_from, report_dry_run
    from .options import notebook, options
    from .templating import Template, look_up

    found, value = look_up(args.file, args.names)
    table = value if found else args.file
    rows = table_of(table)
    if args.prompt and not args.raw:
        args.prompt = Template(args.prompt, "--prompt").fill_beside(rows.columns, args.names)
    args.model = args.model or options().default_model or None
    args.max_cost = within_cell(args.max_cost)
    for name in ("out", "results"):
        if getattr(args, name):
            setattr(args, name, _located(target_of(getattr(args, name))))
    made = batch_from(args, rows, Ledger())
    if args.dry_run:
        made.check_rows()
        report_dry_run(args, console, made)
        return None
    outcome = _run(made, _display(False), lambda prepared: _confirm(args, made, prepared))
    frame = with_results(table if found else None, made.columns, made.lines(outcome.results))
    notebook().assign(None, frame)
    return frame


def run_contact_sheet(args: argparse.Namespace, console: Any) -> Any:
    """``%kling contact-sheet table``: shown in the cell, and saved with ``-o``."""
    from ..core.media import contact_sheet as sheets
    from .display.markup import base64_text
    from .frontend import publish
    from .templating import look_up

    found, value = look_up(args.results, args.names)
    results = value if found else args.results
    sheet = contact_sheet(results, args.out, columns=args.columns, overwrite=args.overwrite)
    shown = sheet.copy()
    shown.thumbnail((1000, 4000))
    text = f"contact sheet, {sheet.width}×{sheet.height}"
    publish(({"image/jpeg": base64_text(sheets.encoded(shown, "JPEG")), "text/plain": text}, {}))
    return sheet


def _confirm(args: argparse.Namespace, batch: Batch, prepared: Prepared) -> None:
    """A sum above the user's option needs a word: a limit, or ``--yes``."""
    from ..commands import UsageError
    from .options import options

    above = prepared.unpriced or prepared.expected > options().confirm_above
    if above and not args.yes and args.max_cost is None:
        raise UsageError(
            f"{headline(batch, prepared)}. Nothing was submitted.",
            hint="To go ahead add --yes, or --max-cost with a limit. Sums up to "
            f"${options().confirm_above:.2f} need none (%config KlingMagics.confirm_above).",
        )


def within_cell(max_cost: float | None) -> float | None:
    """The limit of a batch: its own, and what the running cell may cost after what it has."""
    from .options import options
    from .session import current

    own, of_cell = cost.limit(max_cost, "max_cost"), options().max_cost
    if of_cell is None:
        return own
    left = max(0.0, of_cell - current().cell_cost)
    return left if own is None else min(own, left)
