"""Commands that look: the bare command, jobs, show, history."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..core import catalog, cost, settings
from ..core.errors import AuthenticationError, GenerationFailedError, KlingError, command
from ..core.generation import Generation, Status, Usage
from ..core.progress import clock_time
from ..core.storage.ledger import Ledger
from ..core.submission import Entry
from ..core.waiting import ended
from . import _context, _exit_codes
from ._console import ago, money, one_line, size
from ._arguments import command as subcommand

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ._console import Console

_SHORT_MODEL = 24


def add(commands: Any) -> None:
    subcommand(commands, "jobs", jobs, "what is running, asked at the gateway once")

    show = subcommand(commands, "show", show_, "one generation: state, request, cost, file")
    show.add_argument("id", metavar="ID", nargs="?", default="last", help="default: the last one")

    history = subcommand(
        commands, "history", history_, "what was submitted from here, newest first"
    )
    history.add_argument("--search", metavar="TEXT", default="", help="in prompts and ids")
    history.add_argument("--model", metavar="MODEL", default="", help="part of a model's id")
    history.add_argument("--limit", metavar="N", type=_count, default=20, help="default: 20")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count")
    return int(text)


# --- the bare command ------------------------------------------------------------------------


def status(args: argparse.Namespace, console: Console) -> int:
    """What `kling` alone says: where things stand, and the way in."""
    from ..version import __version__

    base_url = settings.base_url()
    sandbox = settings.is_sandbox(base_url)
    key = _context.key_variable()
    ledger = _context.readable_ledger(console)
    running = ledger.running(base_url) if ledger else []
    uncertain = _open(ledger, base_url)
    console.say(f"kling-integrations {__version__}")
    console.say(f"  gateway  {base_url}{'  (SANDBOX: nothing is real)' if sandbox else ''}")
    console.say(f"  key      {f'from {key}' if key else 'none needed' if sandbox else 'none'}")
    if running:
        console.say(f"  running  {len(running)}: kling jobs, kling wait")
    if uncertain:
        console.say(
            f"  unclear  {len(uncertain)} submissions without a known outcome: kling recover"
        )
    console.say("")
    ready = key or sandbox
    first = [] if ready else [("kling demo", "see it all in ten seconds, without a key or money")]
    ways = [
        ("kling generate 'A white raccoon in a forest'", "make a video"),
        ("kling models", "what there is"),
        ("kling history", "what was made"),
        ("kling -h", "everything else"),
    ]
    if not ready:
        ways.insert(0, ("kling sandbox", "a stand-in for the gateway, to try everything"))
        ways.insert(1, (f"export {settings.KEY_VARIABLES[0]}=…", "then it is for real"))
    for line, what in [*first, *ways]:
        console.say(f"  {line:<46}{what}")
    console.result(
        {
            "version": __version__,
            "base_url": base_url,
            "sandbox": sandbox,
            "key": key,
            "running": [entry.generation_id for entry in running],
            "uncertain": len(uncertain),
        }
    )
    return _exit_codes.DONE


def _open(ledger: Ledger | None, base_url: str) -> list[Entry]:
    """Submissions that block a repetition; those that the user paid past no longer matter."""
    if ledger is None:
        return []
    return [entry for entry in ledger.uncertain(base_url) if entry.record.state == "intent"]


# --- jobs ------------------------------------------------------------------------------------


def jobs(args: argparse.Namespace, console: Console) -> int:
    ledger = Ledger()
    base_url = settings.base_url()
    running, uncertain = ledger.running(base_url), _open(ledger, base_url)
    states: dict[str, str] = {}
    if running:
        try:
            with _context.connect(args, ledger) as client:
                states = _ask(client, ledger, running, console)
        except AuthenticationError as error:
            console.note(str(error))
    speed = settings.clock_for(base_url).speed
    rows, said = [], []
    for entry in running:
        state = states.get(entry.generation_id or "", "running")
        seconds = entry.age * speed
        usual = _expected(entry)
        of = f"{clock_time(seconds)} of {clock_time(usual)}" if usual else clock_time(seconds)
        over = state in (Status.COMPLETED, Status.FAILED)
        rows.append(
            (
                console.short_id(entry.generation_id),
                state,
                "" if over else of,
                _model(entry),
                one_line(entry.prompt),
            )
        )
        said.append(_as_json(entry) | {"status": state, "expected_seconds": usual})
    if rows:
        console.table(rows, ("ID", "STATE", "ELAPSED", "MODEL", "PROMPT"))
        done = sum(1 for entry in said if entry["status"] == Status.COMPLETED)
        console.note(f"\nkling wait waits for all and saves them{_finished_ones(done)}.")
    else:
        console.say("Nothing is running.")
    for entry in uncertain:
        console.note(f"{_when(entry)}: without a known outcome: {one_line(entry.prompt, 50)}")
    if uncertain:
        console.note("Look them up with: kling recover")
    console.result({"generations": said, "uncertain": [_as_json(entry) for entry in uncertain]})
    return _exit_codes.DONE


def _finished_ones(done: int) -> str:
    return f"; {done} {'is' if done == 1 else 'are'} finished" if done else ""


def _ask(
    client: KlingClient, ledger: Ledger, running: list[Entry], console: Console
) -> dict[str, str]:
    """The state of each, polled side by side; what ended is written down."""
    from concurrent.futures import ThreadPoolExecutor

    def look(entry: Entry) -> Generation | KlingError:
        try:
            return client.get(entry.generation_id or "")
        except KlingError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(look, running))
    states = {}
    for entry, answer in zip(running, answers, strict=True):
        if isinstance(answer, KlingError):
            states[entry.generation_id or ""] = "no answer"
            console.note(f"{entry.generation_id}: {answer.message}")
        else:
            note(ledger, entry.base_url, answer)
            unclear = answer.status is Status.UNKNOWN
            states[answer.id] = "running" if unclear else answer.status.value
    return states


def note(ledger: Ledger, base_url: str, generation: Generation) -> None:
    """Writes down that a generation was seen to have ended."""
    if not generation.is_terminal:
        return
    try:
        ledger.completed(base_url, ended(generation), None)
    except GenerationFailedError as error:
        ledger.wait_failed(base_url, error)


# --- show ------------------------------------------------------------------------------------


def show_(args: argparse.Namespace, console: Console) -> int:
    ledger = _context.readable_ledger(console)
    base_url = settings.base_url()
    generation_id, entry = _context.find(args.id, ledger, base_url)
    generation = None
    if entry is None or entry.record.state == "submitted":
        with _context.connect(args, ledger) as client:
            generation = client.get(generation_id)
        if ledger and entry:
            note(ledger, base_url, generation)
            entry = ledger.entry(base_url, generation_id)
    state = _state(entry, generation)
    usage = generation.usage if generation and generation.usage else _usage(entry)
    facts: list[tuple[str, object]] = [("id", generation_id), ("state", state)]
    if settings.is_sandbox(base_url):
        facts.append(("sandbox", "yes: nothing here is real"))
    if entry:
        facts += [
            (name.replace("_", " "), value)
            for name, value in entry.request.items()
            if value is not None
        ]
        facts.append(("submitted", f"{_when(entry)} ({ago(entry.age)} ago)"))
        if entry.elapsed:
            facts.append(("took", clock_time(entry.elapsed)))
    facts.append(("cost", money(cost.spent(usage))))
    why = entry.error if entry and entry.error else None
    if generation and generation.error:
        why = generation.error.message
    facts.append(("why", why))
    if generation and generation.video and generation.video.expires_at:
        facts.append(("link ends", f"{generation.video.expires_at:%Y-%m-%d %H:%M} UTC"))
    path = entry.saved_path if entry else None
    if entry and entry.path:
        facts.append(("file", path or f"{entry.path} (no longer there, or changed)"))
        facts.append(("size", size(entry.size)))
    for name, value in facts:
        if value not in (None, ""):
            console.say(f"{name:<16}{one_line(str(value))}")
    if state == Status.COMPLETED and path is None:
        console.note(f"Save it with: {command('download', generation_id)}")
    elif state not in (Status.COMPLETED, Status.FAILED):
        console.note(f"Wait for it with: {command('wait', generation_id)}")
    said = _as_json(entry) if entry else {"generation_id": generation_id}
    console.result(
        said
        | {
            "status": state,
            "error": why,
            "usage": usage.to_json() if usage else {},
            "sandbox": settings.is_sandbox(base_url),
        }
    )
    return _exit_codes.DONE


def _state(entry: Entry | None, generation: Generation | None) -> str:
    """One word: what the gateway says now, else what the ledger knows."""
    if generation and generation.status is not Status.UNKNOWN:
        return generation.status.value
    if entry is None or entry.record.state == "submitted":
        return "running"
    words = {"intent": "uncertain", "abandoned": "uncertain"}
    return words.get(entry.record.state, entry.record.state.value)


# --- history ---------------------------------------------------------------------------------


def history_(args: argparse.Namespace, console: Console) -> int:
    entries = Ledger().history(args.limit, args.search, args.model)
    rows = []
    for entry in entries:
        place = " sandbox" if settings.is_sandbox(entry.base_url) else ""
        rows.append(
            (
                _when(entry),
                _state(entry, None) + place,
                _model(entry),
                f"{entry.duration} s" if entry.duration else "",
                money(cost.spent(_usage(entry))),
                console.short_id(entry.generation_id),
                one_line(entry.prompt, 60 if console.width is None else 30),
                str(entry.saved_path or ""),
            )
        )
    headers = ("SUBMITTED", "STATE", "MODEL", "LENGTH", "COST", "ID", "PROMPT", "FILE")
    if rows:
        console.table(rows, headers)
    elif args.search or args.model:
        console.say("Nothing fits.")
    else:
        console.say("Nothing was submitted from here yet.")
    console.result({"generations": [_as_json(entry) for entry in entries]})
    return _exit_codes.DONE


def _usage(entry: Entry | None) -> Usage | None:
    return Usage(**entry.usage) if entry and entry.usage else None


def _when(entry: Entry) -> str:
    moment = datetime.fromtimestamp(entry.record.created_at)
    return moment.strftime("%b %d %H:%M" if _recent(entry) else "%Y-%m-%d %H:%M")


def _recent(entry: Entry) -> bool:
    return entry.age < 300 * 86_400  # days: the year goes without saying


def _model(entry: Entry) -> str:
    known = catalog.candidates(entry.record.model)
    return known[0].alias if len(known) == 1 else one_line(entry.record.model, _SHORT_MODEL)


def _expected(entry: Entry) -> float | None:
    known = catalog.candidates(entry.record.model)
    return known[0].expected_seconds(entry.duration) if len(known) == 1 else None


def _as_json(entry: Entry) -> dict[str, Any]:
    path = entry.saved_path
    return {
        "generation_id": entry.generation_id,
        "client_request_id": entry.record.client_request_id,
        "status": _state(entry, None),
        "model": entry.record.model,
        "prompt": entry.prompt,
        "request": entry.request,
        "submitted_at": submitted_at(entry),
        "elapsed_seconds": entry.elapsed,
        "usage": entry.usage,
        "path": str(path) if path else None,
        "error": entry.error,
        "sandbox": settings.is_sandbox(entry.base_url),
    }


def submitted_at(entry: Entry) -> str:
    """ISO 8601, UTC."""
    moment = entry.submitted_at or entry.record.created_at
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
