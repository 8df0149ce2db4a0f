"""Commands that make, wait for and fetch videos: generate, extend, wait, download."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import catalog, settings
from ..core.errors import KlingError, StoppedWaiting, WaitTimeoutError, command
from ..core.generation import Generation, Status, Usage
from ..core.manifest import manifest
from ..core.progress import Progress, clock_time
from ..core.storage.ledger import Ledger
from ..core.submission import Entry
from ..core.waiting import DEFAULT_TIMEOUT
from . import access, outcome
from .console import ago, columns, money, one_line
from .delivering import check_out, deliver, out_argument
from .grammar import UsageError, dollars, generation_arguments, request_from, seconds
from .grammar import command as subcommand

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ..core.request import VideoRequest
    from ..core.submission import Decision
    from .console import Console

_SOON = 24 * 3600.0  # seconds: a link that ends within them is worth a word
_DOING = {
    "submit": "be submitted",
    "attach": "be picked up",
    "reuse": "be picked up",
    "refuse": "be refused",
}
ID_HELP = "an id, the beginning of one, or last; after -- when it starts with a dash"


def add(commands: Any) -> None:
    generate = subcommand(
        commands,
        "generate",
        generate_,
        "make a video from a prompt, or pick up the one that is already there",
        aliases=["gen"],
        more="The same request again picks up what is running or finished, and costs nothing; "
        "--new pays\nfor another video. The path of the video goes to stdout, all else to "
        "stderr.",
        stray="Put the prompt in quotes.",
    )
    generate.add_argument("prompt", metavar="PROMPT", nargs="?", help="- reads it from stdin")
    generation_arguments(generate)
    _run_arguments(generate.add_argument_group("how"))

    extend = subcommand(
        commands,
        "extend",
        extend_,
        "go on where a video ends: its last frame becomes the first of a new one",
        stray="Put the prompt in quotes.",
    )
    extend.add_argument("id", metavar="ID", help=ID_HELP)
    extend.add_argument("prompt", metavar="PROMPT", help="what happens next")
    generation_arguments(extend)
    _run_arguments(extend.add_argument_group("how"))

    wait = subcommand(commands, "wait", wait_, "wait for generations and save their videos")
    wait.add_argument("id", metavar="ID", nargs="*", help=f"{ID_HELP}; all (default) that run")
    out_argument(wait)
    _timeout(wait)
    wait.add_argument("--no-download", action="store_true", help="only wait")

    download = subcommand(
        commands, "download", download_, "save the video of a finished generation"
    )
    download.add_argument("id", metavar="ID", help=ID_HELP)
    out_argument(download)


def _timeout(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--timeout",
        metavar="T",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        help="stop waiting after 90, 15m or 1h (default: 1h); the generation goes on",
    )


def _run_arguments(parser: argparse._ActionsContainer) -> None:
    out_argument(parser)
    _timeout(parser)
    add = parser.add_argument
    add("--detach", action="store_true", help="return after the submit, with the id")
    add("--no-download", action="store_true", help="wait, but leave the video where it is")
    add("--new", action="store_true", help="pay for another video of the same request")
    add("--max-cost", metavar="USD", type=dollars, help="refuse what is expected to cost more")
    add("--dry-run", action="store_true", help="show what would be sent and cost; send nothing")


# --- generate --------------------------------------------------------------------------------


def generate_(args: argparse.Namespace, console: Console) -> int:
    prompt = sys.stdin.read().strip() if args.prompt == "-" else args.prompt
    return _generate(args, console, request_from(args, prompt))


def extend_(args: argparse.Namespace, console: Console) -> int:
    from ..core import media

    ledger = Ledger()
    generation_id, entry = access.find(args.id, ledger, settings.base_url())
    path = entry.saved_path if entry else None
    if path is None:
        with access.connect(args, ledger) as client:
            prompt = entry.prompt if entry else None
            found = client.get(generation_id)
            path = deliver(client, ledger, found, None, prompt, console, answer=False).path
    known = catalog.candidates(entry.record.model)[:1] if entry else ()
    if args.model is None and known:
        args.model = known[0].alias
    return _generate(args, console, request_from(args, args.prompt, image=media.last_frame(path)))


class _TellingLedger(Ledger):
    """A ledger that remembers what it decided last: submitted, attached or reused."""

    decision: Decision | None = None

    def claim(self, *args: Any, **options: Any) -> Any:
        self.decision, record = super().claim(*args, **options)
        return self.decision, record


def _generate(args: argparse.Namespace, console: Console, request: VideoRequest) -> int:
    if args.dry_run:
        return _dry_run(args, console, request)
    check_out(args.out)
    ledger = _TellingLedger()
    with access.connect(args, ledger) as client:
        base_url = client.endpoint.base_url
        console.note(_headline(request, client.is_sandbox))
        earlier = None if args.new else ledger.standing(request, base_url)
        if args.max_cost is not None and not _is_free(earlier):
            from ..core import cost

            expected = cost.check_cost(request, client.prices(request.model), args.max_cost)
            console.note(f"Expected cost: {expected}")
        with _way_back(args):
            with console.submitting():
                generation = client.submit(request, new=args.new)
            try:
                console.note(_submitted(generation, earlier, ledger.decision))
                if args.detach and not generation.is_terminal:
                    again = _again(generation.id, args)
                    console.note(f"It goes on without you. Come back with: {again}")
                    console.say(generation.id)
                    console.result(manifest(generation, base_url=base_url, model=request.model))
                    return outcome.RUNNING
                made = _finish(client, ledger, generation, args, console, args.timeout)
            except KeyboardInterrupt as interrupt:
                if isinstance(interrupt, StoppedWaiting):
                    raise
                raise StoppedWaiting(generation.id) from None
        console.result(made)
    return outcome.DONE


def _headline(request: VideoRequest, sandbox: bool) -> str:
    parts = [request.model]
    if request.duration:
        parts.append(f"{request.duration} s")
    if request.prompt:
        parts.append(f"“{one_line(request.prompt, 60)}”")
    if sandbox:
        parts.append("SANDBOX: nothing is paid, the video is a test picture")
    return " · ".join(parts)


def _is_free(earlier: Entry | None) -> bool:
    """Whether the ledger will answer from what was paid before."""
    return earlier is not None and earlier.record.state in ("submitted", "completed", "intent")


def _submitted(generation: Generation, earlier: Entry | None, decision: Decision | None) -> str:
    """What the submit came to; without ``earlier`` another process was quicker by a moment."""
    if decision is None or decision.action == "submit":
        return f"Submitted: {generation.id}"
    since = f"{ago(earlier.age)} ago" if earlier else "just now"
    finished = " and is finished" if generation.status is Status.COMPLETED else ""
    return (
        f"Generation {generation.id} was submitted {since}{finished}: picked up, nothing is paid "
        "again. For another one: --new"
    )


@contextmanager
def _way_back(args: argparse.Namespace) -> Iterator[None]:
    """The command that goes on, in what is raised, names the place that was asked for."""
    try:
        yield
    except (StoppedWaiting, WaitTimeoutError) as error:
        if args.out is not None and error.generation_id:
            plain, whole = command("wait", error.generation_id), _again(error.generation_id, args)
            if isinstance(error, WaitTimeoutError):
                error.hint = (error.hint or "").replace(plain, whole)
            error.args = (str(error.args[0]).replace(plain, whole),)
        raise


def _again(generation_id: str, args: argparse.Namespace) -> str:
    if args.out is None:
        return command("wait", generation_id)
    return command(f"wait --out {shlex.quote(args.out)}", generation_id)


def _dry_run(args: argparse.Namespace, console: Console, request: VideoRequest) -> int:
    from ..core import cost, submission

    base_url = settings.base_url()
    ledger = access.readable_ledger(console)
    entry = ledger.standing(request, base_url) if ledger else None
    decision = submission.decide(
        entry.record if entry else None,
        request.fingerprint,
        new=args.new,
        saved=bool(entry and entry.saved_path),
    )
    try:
        with access.connect(args) as client:
            expected = cost.explain(request, client.prices(request.model))
    except KlingError as error:
        expected = cost.Estimate(None, one_line(error.message.rstrip(".")))
    for line in columns(list(request.summary().items()), ("", ""))[1:]:
        console.say(line)
    console.say("")
    console.say(f"It would {_DOING[decision.action]}: {decision.reason}.")
    console.say(f"Expected cost: {expected if decision.action == 'submit' else 'none'}.")
    console.note("Nothing was sent.")
    console.result(
        {
            "dry_run": True,
            "request": request.summary(),
            "action": decision.action.value,
            "reason": decision.reason,
            "expected_usd": expected.usd,
            "fingerprint": request.fingerprint,
            "sandbox": settings.is_sandbox(base_url),
        }
    )
    return outcome.DONE


# --- waiting ---------------------------------------------------------------------------------


def _finish(
    client: KlingClient,
    ledger: Ledger | None,
    generation: Generation,
    args: argparse.Namespace,
    console: Console,
    timeout: float,
) -> dict[str, Any]:
    """Waits if need be, saves the video, tells of both; returns the manifest."""
    base_url = client.endpoint.base_url
    entry = ledger.entry(base_url, generation.id) if ledger else None
    last: Progress | None = None
    if entry and entry.record.state == "completed" and (entry.saved_path or args.no_download):
        generation = from_record(entry)
    else:
        generation, last = _watch(client, generation, console, timeout)
        console.note(_completed(generation, last, client.is_sandbox))
    saved = None
    if not args.no_download:
        prompt = entry.prompt if entry else None
        saved = deliver(client, ledger, generation, args.out, prompt, console)
    return manifest(
        generation,
        base_url=base_url,
        model=entry.record.model if entry else None,
        saved=saved,
        elapsed=last.elapsed if last else entry.elapsed if entry else None,
        polls=last.polls if last else None,
    )


def _watch(
    client: KlingClient,
    generation: Generation,
    console: Console,
    timeout: float,
) -> tuple[Generation, Progress | None]:
    last: Progress | None = None
    with console.watching(client.clock) as show:

        def update(progress: Progress) -> None:
            nonlocal last
            last = progress
            show(progress)

        return client.wait(generation.id, timeout=timeout, on_update=update), last


def _completed(generation: Generation, last: Progress | None, sandbox: bool) -> str:
    from ..core import cost

    parts = ["Completed"]
    if last is not None and last.polls > 1:  # else it was over before anybody asked
        parts.append(f"after {clock_time(last.elapsed)}{' of sandbox time' if sandbox else ''}")
        parts.append(f"with {last.polls} polls")
    text = " ".join(parts)
    usd = cost.spent(generation.usage)
    if usd is not None:
        text += f", {money(usd)}{' of play money' if sandbox else ''}"
    expires = generation.video.expires_at if generation.video else None
    if expires and expires.timestamp() - time.time() < _SOON:
        text += f"; its link ends {expires:%Y-%m-%d %H:%M} UTC"
    return text


def wait_(args: argparse.Namespace, console: Console) -> int:
    ledger = access.readable_ledger(console)
    words = args.id or ["all"]
    base_url = settings.base_url()
    targets: dict[str, None] = {}
    for word in words:
        if word == "all":
            if ledger is None:
                raise UsageError("Without the ledger nobody knows what runs: give ids.")
            running = reversed(ledger.running(base_url))
            targets.update(dict.fromkeys(entry.generation_id or "" for entry in running))
        else:
            targets[access.find(word, ledger, base_url)[0]] = None
    several = len(words) > 1 or words == ["all"]
    if several and args.out is not None and len(targets) > 1:
        _check_folder(args.out)
    if not targets:
        console.say("Nothing is running.")
        console.result({"generations": []})
        return outcome.DONE
    check_out(args.out)
    with access.connect(args, ledger) as client, _way_back(args):
        if not several:
            made = _finish(
                client, ledger, _unknown(next(iter(targets))), args, console, args.timeout
            )
            console.result(made)
            return outcome.DONE
        return _wait_for_several(client, ledger, list(targets), args, console)


def _check_folder(out: str) -> None:
    if not (out.endswith("/") or Path(out).expanduser().is_dir()):
        raise UsageError(
            "For several videos --out takes a folder; one that is not there yet ends in /."
        )


def from_record(entry: Entry) -> Generation:
    """A finished generation as the ledger knows it, without asking the gateway."""
    return Generation(
        id=entry.generation_id or "",
        status=Status.COMPLETED,
        usage=Usage(**entry.usage) if entry.usage else None,
        model=entry.record.model,
    )


def _unknown(generation_id: str) -> Generation:
    return Generation(id=generation_id, status=Status.UNKNOWN)


def _wait_for_several(
    client: KlingClient,
    ledger: Ledger | None,
    targets: list[str],
    args: argparse.Namespace,
    console: Console,
) -> int:
    """One after another: they all run at the gateway, so the last one is the end of it anyway."""
    deadline = client.clock.now() + args.timeout
    made: list[dict[str, Any]] = []
    code = outcome.DONE
    for number, generation_id in enumerate(targets, 1):
        if len(targets) > 1:
            console.note(f"{number} of {len(targets)}: {generation_id}")
        left = max(0.0, deadline - client.clock.now())
        try:
            made.append(_finish(client, ledger, _unknown(generation_id), args, console, left))
        except KlingError as error:  # one that fails must not keep the others
            console.note(str(error))
            made.append(outcome.failure(error))
            code = code or outcome.exit_code(error)
        except StoppedWaiting:
            if number < len(targets):
                console.note("The others go on as well. All of them: kling wait all")
            raise
    console.result({"generations": made})
    return code


def download_(args: argparse.Namespace, console: Console) -> int:
    check_out(args.out)
    ledger = access.readable_ledger(console)
    generation_id, entry = access.find(args.id, ledger, settings.base_url())
    with access.connect(args, ledger) as client:
        known = entry is not None and entry.saved_path is not None
        generation = from_record(entry) if entry and known else client.get(generation_id)
        prompt = entry.prompt if entry else None
        saved = deliver(client, ledger, generation, args.out, prompt, console)
        console.result(
            manifest(
                generation,
                base_url=client.endpoint.base_url,
                model=entry.record.model if entry else None,
                saved=saved,
            )
        )
    return outcome.DONE
