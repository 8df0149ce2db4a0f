"""``kling jobs``, ``show`` and ``history``: what was submitted, and how it stands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..core import catalog, cost, settings
from ..core.errors import AuthenticationError, KlingError, NextStep, Verb, describe
from ..core.generation import Generation, Status
from ..core.progress import Progress, ago, clock_time
from ..core.storage.ledger import Ledger
from ..core.storage.owner import colleague
from ..core.storage.saved_files import saved_file
from ..core.submission import Entry, State
from ._arguments import add_command, count, day
from ._context import connect, find, poll, readable_ledger, uncertain, user_ledger
from ._exit_codes import DONE
from ._text import iso_time, money, one_line, size

if TYPE_CHECKING:
    from ._console import Console

_POLLS_AT_ONCE = 8
_LONGEST_MODEL = 24  # columns
_MOST_SEARCHED = 10_000
_YEAR_IS_CLEAR = 300 * 86_400.0  # seconds: a date without its year cannot be mistaken

_STATES = {
    State.INTENT: "uncertain",
    State.ABANDONED: "uncertain",
    State.SUBMITTED: "running",
}


def add(commands: Any) -> None:
    """Adds the three commands to the grammar."""
    add_command(commands, "jobs", _run_jobs, "what is running, asked at the gateway once")

    show = add_command(commands, "show", _run_show, "one generation: state, request, cost, file")
    show.add_argument("id", metavar="ID", nargs="?", default="last", help="default: the last one")

    history = add_command(
        commands, "history", _run_history, "what was submitted from here, newest first"
    )
    history.add_argument("--search", metavar="TEXT", default="", help="in prompts and ids")
    history.add_argument("--model", metavar="MODEL", default="", help="part of a model's id")
    history.add_argument("--tag", metavar="WORD", default="", help="generated with this --tag")
    history.add_argument(
        "--day", metavar="DATE", type=day, help="submitted on this day: 2026-11-21, or today"
    )
    history.add_argument("--limit", metavar="N", type=count, default=20, help="default: 20")


# --- jobs ------------------------------------------------------------------------------------


def _run_jobs(args: argparse.Namespace, console: Console) -> int:
    ledger = user_ledger()
    base_url = settings.base_url()
    running, unclear = ledger.running(base_url), uncertain(ledger, base_url)
    answers = _poll_all(ledger, running, console)
    rows, jobs = [], []
    for entry in running:
        state, pace = _standing(entry, answers)
        rows.append(
            (
                console.short_id(entry.generation_id),
                state,
                pace,
                _model(entry),
                one_line(entry.prompt),
            )
        )
        jobs.append(_as_json(entry) | {"status": state, "expected_seconds": _expected(entry)})
    if rows:
        console.table(rows, ("ID", "STATE", "ELAPSED", "MODEL", "PROMPT"))
        done = sum(1 for job in jobs if job["status"] == Status.COMPLETED)
        finished = f"{done} {'is' if done == 1 else 'are'} finished. " if done else ""
        console.note(f"\n{finished}Wait for all and save them: {console.command('wait')}")
    else:
        console.say("Nothing is running.")
    for entry in unclear:
        console.note(f"{_when(entry)}: without a known outcome: {one_line(entry.prompt, 50)}")
    if unclear:
        console.note(console.hint(NextStep(Verb.RECOVER)))
    console.result({"generations": jobs, "uncertain": [_as_json(entry) for entry in unclear]})
    return DONE


def _poll_all(
    ledger: Ledger, running: list[Entry], console: Console
) -> dict[str, Generation | None]:
    """One poll each, side by side; None for a generation without a usable answer."""
    if not running:
        return {}

    from concurrent.futures import ThreadPoolExecutor

    def ask(entry: Entry) -> Generation | KlingError:
        try:
            return poll(client, ledger, entry.generation_id or "")
        except KlingError as error:
            return error

    try:
        with connect(ledger) as client, ThreadPoolExecutor(_POLLS_AT_ONCE) as pool:
            found = list(pool.map(ask, running))
    except AuthenticationError as error:
        console.note(describe(error, console.hint))
        return {}
    answers: dict[str, Generation | None] = {}
    for entry, answer in zip(running, found, strict=True):
        if isinstance(answer, KlingError):
            console.note(f"{entry.generation_id}: {answer.message}")
        answers[entry.generation_id or ""] = None if isinstance(answer, KlingError) else answer
    return answers


def _standing(entry: Entry, answers: dict[str, Generation | None]) -> tuple[str, str]:
    """State and pace of a running generation, as far as the gateway answered."""
    answer = answers.get(entry.generation_id or "", entry.generation())
    elapsed = entry.age * settings.clock_for(entry.base_url).speed
    expected = _expected(entry)
    progress = Progress(answer or entry.generation(), elapsed, expected or elapsed, 0.0, 0)
    state = progress.word if answer else "no answer"
    if progress.status.is_terminal:
        return state, ""
    return state, progress.pace if expected else clock_time(elapsed)


# --- show ------------------------------------------------------------------------------------


def _run_show(args: argparse.Namespace, console: Console) -> int:
    ledger = readable_ledger(console)
    base_url = settings.base_url()
    sandbox = settings.is_sandbox(base_url)
    generation_id, entry = find(args.id, ledger, base_url)
    generation = None
    if entry is None or entry.state is State.SUBMITTED:
        with connect(ledger) as client:
            generation = poll(client, ledger, generation_id)
        entry = ledger.entry(base_url, generation_id) if ledger else None
    elif entry:
        generation = entry.generation()
    state = _state(entry, generation)
    usage = generation.usage if generation else None
    why = generation.error.message if generation and generation.error else None
    why = why or (entry.error if entry else None)
    video = generation.video if generation else None
    console.facts(
        [
            ("id", generation_id),
            ("state", state),
            ("sandbox", "yes: nothing here is real" if sandbox else None),
            *_request_facts(entry),
            ("cost", money(cost.spent(usage))),
            ("why", why),
            ("link ends", video and video.expires_at and f"{video.expires_at:%Y-%m-%d %H:%M} UTC"),
            *_file_facts(entry),
        ]
    )
    if state == Status.COMPLETED and saved_file(entry) is None:
        console.note(console.hint(NextStep(Verb.DOWNLOAD, generation_id)))
    elif state not in (Status.COMPLETED, Status.FAILED):
        console.note(console.hint(NextStep(Verb.WAIT, generation_id)))
    console.result(
        (_as_json(entry) if entry else {"generation_id": generation_id})
        | {
            "status": state,
            "error": why,
            "usage": usage.to_json() if usage else {},
            "sandbox": sandbox,
        }
    )
    return DONE


def _request_facts(entry: Entry | None) -> list[tuple[str, object]]:
    if entry is None:
        return []
    return [
        *((name.replace("_", " "), value) for name, value in entry.request.items()),
        ("submitted", f"{_when(entry)} ({ago(entry.age)} ago)"),
        ("by", colleague(entry)),
        ("took", clock_time(entry.elapsed) if entry.elapsed else None),
    ]


def _file_facts(entry: Entry | None) -> list[tuple[str, object]]:
    if entry is None or entry.path is None:
        return []
    gone = "" if saved_file(entry) else " (no longer there, or changed)"
    return [("file", f"{entry.path}{gone}"), ("size", size(entry.size))]


def _state(entry: Entry | None, generation: Generation | None) -> str:
    """One word: what the gateway answered, else what the ledger knows."""
    if generation and generation.status is not Status.UNKNOWN:
        return generation.status.value
    if entry is None:
        return "running"
    return _STATES.get(entry.state, entry.state.value)


# --- history ---------------------------------------------------------------------------------


HEADERS = ("SUBMITTED", "STATE", "MODEL", "LENGTH", "COST", "ID", "PROMPT", "FILE", "BY")


def _run_history(args: argparse.Namespace, console: Console) -> int:
    ledger = user_ledger()
    entries = matching(
        ledger, args.limit, search=args.search, model=args.model, tag=args.tag, day=args.day
    )
    if entries:
        console.table(*history_table(entries, console, shared=ledger.is_shared))
    elif args.search or args.model or args.tag or args.day:
        console.say("Nothing fits.")
    else:
        console.say("Nothing was submitted from here yet.")
    console.result({"generations": [_as_json(entry) for entry in entries]})
    return DONE


def matching(
    ledger: Ledger,
    limit: int,
    *,
    search: str = "",
    model: str = "",
    tag: str = "",
    day: date | None = None,
) -> list[Entry]:
    """The newest generations, at most ``limit``, to which all that is given applies.

    ``search`` looks in prompts and ids, ``model`` in model ids; ``tag`` is the whole word, ``day``
    a day in local time. Tags and days are looked for in the newest 10,000.
    """
    narrowed = bool(tag or day)
    entries = ledger.history(_MOST_SEARCHED if narrowed else limit, search, model)
    fits = (
        entry
        for entry in entries
        if (not tag or entry.tag == tag)
        and (day is None or datetime.fromtimestamp(entry.record.created_at).date() == day)
    )
    return list(islice(fits, limit))


def history_table(
    entries: Sequence[Entry], console: Console, *, shared: bool
) -> tuple[list[tuple[object, ...]], tuple[str, ...]]:
    """A row of each generation, and the headers; ``shared`` adds who submitted it."""
    rows: list[tuple[object, ...]] = []
    for entry in entries:
        saved = saved_file(entry, by_size=True)
        rows.append(
            (
                _when(entry),
                _state(entry, None) + (" sandbox" if settings.is_sandbox(entry.base_url) else ""),
                _model(entry),
                f"{entry.duration} s" if entry.duration else "",
                money(cost.spent(entry.generation().usage)),
                console.short_id(entry.generation_id),
                one_line(entry.prompt, 60 if console.width is None else 30),
                console.short_path(saved.path) if saved else "",
                *([str(entry.owner or "")] if shared else []),
            )
        )
    return rows, HEADERS if shared else HEADERS[:-1]


def _when(entry: Entry) -> str:
    """When the intent was written, in local time."""
    moment = datetime.fromtimestamp(entry.record.created_at)
    return moment.strftime("%b %d %H:%M" if entry.age < _YEAR_IS_CLEAR else "%Y-%m-%d %H:%M")


def _model(entry: Entry) -> str:
    known = catalog.candidates(entry.record.model)
    return known[0].alias if len(known) == 1 else one_line(entry.record.model, _LONGEST_MODEL)


def _expected(entry: Entry) -> float | None:
    known = catalog.candidates(entry.record.model)
    return known[0].expected_seconds(entry.duration) if len(known) == 1 else None


def _as_json(entry: Entry) -> dict[str, Any]:
    saved = saved_file(entry, by_size=True)
    return {
        "generation_id": entry.generation_id,
        "client_request_id": entry.record.client_request_id,
        "status": _state(entry, None),
        "model": entry.record.model,
        "prompt": entry.prompt,
        "request": entry.request,
        "tag": entry.tag,
        "submitted_at": iso_time(entry.since),
        "elapsed_seconds": entry.elapsed,
        "usage": entry.usage,
        "path": str(saved.path) if saved else None,
        "error": entry.error,
        "sandbox": settings.is_sandbox(entry.base_url),
        "by": str(entry.owner) if entry.owner else None,
    }
