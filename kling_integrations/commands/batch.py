"""``kling batch``: a table of prompts in, a table of videos out."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import catalog, cost, settings
from ..core.errors import NextStep, StoppedWaiting, Verb
from ._arguments import (
    UsageError,
    add_command,
    count,
    dollars,
    generation_arguments,
    parameters_from,
    timeout_argument,
)
from ._context import user_ledger
from ._exit_codes import DONE, FAILED, REFUSED, RUNNING, TROUBLE, UNCERTAIN, exit_code
from ._target import path_of

if TYPE_CHECKING:
    from ..core.batch.job import Batch, Outcome, Prepared
    from ..core.batch.rows import Table
    from ..core.storage.ledger import Ledger
    from ._console import Console

_EPILOG = """\
FILE is a .csv, .tsv, .jsonl, .json or .parquet file, also at s3://, gs:// or abfs://, or - for
stdin. Its columns prompt, model, duration, aspect_ratio, negative_prompt, cfg_scale, image,
tail_image, audio, key, and whatever the row's model takes by the gateway's name, are the request;
the flags say what a row leaves out. All other columns are carried through to the results. Pictures
are paths (beside FILE, or from here), URLs, or in object storage.

The same batch again goes on where it was: what is paid for is picked up, a changed row is a new
one. Rows that ask for the same are as many videos; a column key names rows for good. Prompts like
nan or #REF!, a repeated header, {braces} that no column fills and blank pictures beside others are
invalid, unless --raw."""


def add(commands: Any) -> None:
    """Adds the command to the grammar."""
    parser = add_command(
        commands,
        "batch",
        _run,
        "make the videos of a table, each row paid for once",
        epilog=_EPILOG,
    )
    parser.add_argument("file", metavar="FILE", help="the table, or - for stdin")
    generation_arguments(parser)
    columns = parser.add_argument_group("columns").add_argument
    columns(
        "--prompt",
        metavar="COLUMN",
        help="the column of the prompts, or a prompt for all, with {columns} to fill in",
    )
    columns("--key", metavar="COLUMN", help="the column that names each row for good")
    batch_arguments(parser.add_argument_group("how"))


def batch_arguments(parser: argparse._ActionsContainer) -> None:
    """The flags that say how a batch is run."""
    add = parser.add_argument
    add("-o", "--out", metavar="DIR", help="the folder of the videos")
    add("--no-download", action="store_true", help="wait, but leave the videos at the gateway")
    add(
        "--results",
        metavar="FILE",
        help="the table that is written: .jsonl, .csv or .parquet, also at s3://, gs:// or abfs:// "
        "(default: DIR/results.jsonl; JSON Lines are written in any case, row by row)",
    )
    add("--max-cost", metavar="USD", type=dollars, help="for the whole batch, all runs of it")
    add("--at-once", metavar="N", type=count, default=10, help="generations at once (default: 10)")
    add("--rate", metavar="N", type=_rate, help="requests a second at most, all together")
    add("--skip-bad", action="store_true", help="go ahead without the invalid rows")
    add("--raw", action="store_true", help="take every text as it is: nan, {names} in braces, …")
    add(
        "--retry-failed",
        action="store_true",
        help="submit again what the provider failed at; not what was moderated",
    )
    add(
        "--retry-uncertain",
        action="store_true",
        help="submit again what has no known outcome and is not in the gateway's log",
    )
    add("--overwrite", action="store_true", help="replace a results file that was not made here")
    add("--dry-run", action="store_true", help="check all rows and say the price; send nothing")
    timeout_argument(parser)


def _run(args: argparse.Namespace, console: Console) -> int:
    return run_batch(args, console, _table(args.file))


def run_batch(args: argparse.Namespace, console: Console, table: Table) -> int:
    """Checks, prices and makes the videos of a table, as the flags say; the exit code.

    Raises BadRowsError before anything is paid, StoppedWaiting after an interrupt.
    """
    batch = batch_from(args, table, user_ledger())
    for note in batch.checked.notes:
        console.note(f"Note: {note}")
    batch.check_rows()
    for line in batch.checked.skipped():
        console.note(f"Skipped: {line}")
    if args.dry_run:
        return report_dry_run(args, console, batch)
    import asyncio  # which the other commands need not load

    prepared = batch.prepare(asyncio.run(batch.prices()))
    console.note(_headline(batch, prepared))
    with console.counting() as show:
        outcome = batch.run_to_end(prepared, show, console.count)
    return report(console, outcome)


def batch_from(args: argparse.Namespace, table: Table, ledger: Ledger) -> Batch:
    """The batch that the flags describe. Raises InvalidRequestError and UsageError."""
    from ..core.batch.job import Batch, Order
    from ..core.batch.rows import meant

    if args.out is None and not args.no_download:
        raise UsageError("Say where the videos go: -o DIR, or --no-download.")
    folder = None if args.no_download else path_of(args.out).absolute()
    given = {"model": catalog.DEFAULT_MODEL, **parameters_from(args, args.prompt)}
    defaults, names = meant(table, given, args.key)
    order = Order(
        defaults=defaults,
        names=names,
        folder=folder,
        results=args.results,
        max_cost=args.max_cost,
        at_once=args.at_once,
        requests_per_second=args.rate,
        timeout=args.timeout,
        skip_bad=args.skip_bad,
        retry_failed=args.retry_failed,
        retry_uncertain=args.retry_uncertain,
        overwrite=args.overwrite,
        raw=args.raw,
    )
    return Batch(table, order, ledger, settings.base_url())


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no positive number")
    return rate


def _table(file: str) -> Table:
    from ..core.storage import tables

    if file != "-":
        return tables.at(file)
    if sys.stdin is None:
        raise UsageError("The table - is read from stdin, which is closed.")
    try:
        table = tables.parse(sys.stdin.buffer.read())
    except OSError as error:
        raise UsageError(f"The table cannot be read from stdin: {error.strerror}.") from None
    return replace(table, source=Path("/dev/stdin"))


def _headline(batch: Batch, prepared: Prepared) -> str:
    from ..core.batch.plan import Need

    total = len(batch.table.records)
    parts = [f"{total} row{'' if total == 1 else 's'}"]
    for need, words in (
        (Need.SUBMIT, "to submit"),
        (Need.ATTACH, "paid for already"),
        (Need.LOOK_UP, "to look up"),
        (Need.NOTHING, "ended before"),
    ):
        if found := prepared.count(need):
            parts.append(f"{found} {words}")
    due = prepared.count(Need.SUBMIT)
    if due and prepared.unpriced:
        parts.append("expected cost unknown")
    elif due:
        parts.append(f"expected cost {cost.dollars(prepared.expected)}")
    if settings.is_sandbox(settings.base_url()):
        parts.append("SANDBOX: nothing is paid, the videos are test pictures")
    return " · ".join(parts)


def report_dry_run(args: argparse.Namespace, console: Console, batch: Batch) -> int:
    """Says what would be submitted and cost; sends nothing but the question for the prices."""
    from ..core.batch.plan import Need
    from ..core.batch.threads import run_to_end

    prepared = batch.prepare(run_to_end(lambda: batch.prices(strict=False)))
    console.note(_headline(batch, prepared))
    models = Counter(step.row.model for step in prepared.steps if step.need is Need.SUBMIT)
    for model, number in models.most_common():
        console.say(f"{number} × {model}")
    expected = None if prepared.unpriced else prepared.expected
    if args.max_cost is not None and expected is not None and expected > args.max_cost:
        console.note(f"It does not fit into {cost.dollars(args.max_cost)}: some rows would wait.")
    console.note("Nothing was sent.")
    console.result(
        {
            "dry_run": True,
            "rows": len(batch.table.records),
            "to_submit": prepared.count(Need.SUBMIT),
            "paid_for": prepared.count(Need.ATTACH),
            "uncertain": prepared.count(Need.LOOK_UP),
            "ended": prepared.count(Need.NOTHING),
            "bad": len(batch.checked.problems),
            "expected_usd": expected,
        }
    )
    return DONE


def report(console: Console, outcome: Outcome) -> int:
    """Says how it ended; the exit code. Raises StoppedWaiting after an interrupt."""
    from ..core.batch.results import RowStatus

    console.note(_summary(outcome))
    if outcome.trouble:
        console.note(outcome.trouble)
    for path in outcome.files[-1:]:
        console.say(str(path))
    if outcome.count(RowStatus.UNCERTAIN):
        console.note(console.hint(NextStep(Verb.RECOVER)))
        console.note("What is not in the gateway's log is submitted again with --retry-uncertain.")
    if outcome.interrupted:
        raise _stopped(outcome)
    console.result(
        {
            "rows": len(outcome.results),
            **{status.value: outcome.count(status) for status in RowStatus},
            "usd": round(outcome.tally.spent, 6),
            "submitted": outcome.tally.paid_now,
            "results": str(outcome.files[-1]) if outcome.files else None,
        }
    )
    return code_of(outcome)


def code_of(outcome: Outcome) -> int:
    """The worst that became of a row, as the exit code of a single generation."""
    from ..core.batch.results import RowStatus

    kinds = {result.error_kind for result in outcome.results}
    for found, code in (
        (outcome.trouble, TROUBLE),
        (outcome.count(RowStatus.UNCERTAIN), UNCERTAIN),
        (outcome.count(RowStatus.RUNNING), RUNNING),
        (outcome.stopped is not None, exit_code(outcome.stopped or Exception())),
        ("download" in kinds, TROUBLE),
        (outcome.count(RowStatus.FAILED), FAILED),
        (outcome.count(RowStatus.REFUSED), REFUSED),
        (outcome.count(RowStatus.NOT_SUBMITTED), REFUSED),
    ):
        if found:
            return code
    return DONE


def _summary(outcome: Outcome) -> str:
    words = Counter(result.status for result in outcome.results)
    parts = [f"{number} {status.replace('_', ' ')}" for status, number in words.most_common()]
    moderated = sum(result.moderated for result in outcome.results)
    if moderated:
        parts.append(f"{moderated} of them moderated")
    if outcome.tally.spent:
        parts.append(f"{cost.dollars(outcome.tally.spent)} in all")
    if outcome.stopped is not None:
        parts.append(f"stopped: {outcome.stopped.message}")
    return " · ".join(parts)


def _stopped(outcome: Outcome) -> StoppedWaiting:
    from ..core.batch.results import RowStatus

    running = [each for each in outcome.results if each.status == RowStatus.RUNNING]
    goes_on = (
        f" {len(running)} generations go on (there is no cancel) and are billed when they complete."
        if running
        else ""
    )
    return StoppedWaiting(
        running[0].generation_id if running else None,
        message=f"Stopped. Everything that has ended is kept.{goes_on}",
        next_steps=[NextStep(Verb.SUBMIT_AGAIN)],
    )
