"""``kling generate`` and ``kling extend``: make a video, or pick up the one that is paid for."""

from __future__ import annotations

import argparse
import sys
import unicodedata
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from ..core import catalog, cost, identity, settings
from ..core.errors import (
    InvalidRequestError,
    KlingError,
    KlingWarning,
    NextStep,
    StoppedWaiting,
    Verb,
)
from ..core.generation import Generation, Saved, Status
from ..core.manifest import manifest
from ..core.progress import ago
from ..core.storage.ledger import Ledger
from ..core.storage.owner import colleague, is_own
from ..core.storage.saved_files import saved_file
from ..core.submission import Action, State
from ._arguments import (
    ID_HELP,
    UsageError,
    add_command,
    dollars,
    generation_arguments,
    output_argument,
    request_from,
    timeout_argument,
)
from ._context import connect, find, user_ledger
from ._exit_codes import DONE, RUNNING
from ._finish import finish
from ._hints import command_line
from ._save import local_video
from ._target import check_output, naming_output, request_name, reserved
from ._text import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.http.client import KlingClient
    from ..core.request import VideoRequest
    from ..core.storage.target_lock import TargetLock
    from ..core.submission import Decision, Entry
    from ._console import Console

T = TypeVar("T")

_MOST_EARLIER = 200  # generations among which the one that was extended is looked for

_FRAME = "data:image/png"  # how a frame travels

_OUTCOME = {
    Action.SUBMIT: "be submitted",
    Action.ATTACH: "be picked up",
    Action.REUSE: "be picked up",
    Action.REFUSE: "be refused",
}


def add(commands: Any) -> None:
    """Adds both commands to the grammar."""
    generate = add_command(
        commands,
        "generate",
        _run_generate,
        "make a video from a prompt, or pick up the one that is already there",
        aliases=["gen"],
        epilog="The same request again picks up what is running or finished, and costs nothing; "
        "--new pays\nfor another video. The path of the video goes to stdout, all else to "
        "stderr.",
        stray="Put the prompt in quotes.",
    )
    generate.add_argument("prompt", metavar="PROMPT", nargs="?", help="- reads it from stdin")
    generation_arguments(generate)
    _run_arguments(generate.add_argument_group("how"))

    extend = add_command(
        commands,
        "extend",
        _run_extend,
        "go on where a video ends: its last frame becomes the first of a new one",
        stray="Put the prompt in quotes.",
    )
    extend.add_argument("id", metavar="ID", help=ID_HELP)
    extend.add_argument("prompt", metavar="PROMPT", help="what happens next")
    generation_arguments(extend)
    _run_arguments(extend.add_argument_group("how"))


def _run_arguments(parser: argparse._ActionsContainer) -> None:
    output_argument(parser)
    timeout_argument(parser)
    add = parser.add_argument
    add("--detach", action="store_true", help="return after the submit, with the id")
    add("--no-download", action="store_true", help="wait, but leave the video at the gateway")
    add("--new", action="store_true", help="pay for another video of the same request")
    add("--max-cost", metavar="USD", type=dollars, help="refuse what is expected to cost more")
    add("--dry-run", action="store_true", help="show what would be sent and cost; send nothing")


def _run_generate(args: argparse.Namespace, console: Console) -> int:
    prompt = _from_stdin() if args.prompt == "-" else args.prompt
    return _generate(args, console, *_noting(lambda: request_from(args, prompt)))


def _from_stdin() -> str:
    """The prompt that is piped in; raises UsageError where there is none to read."""
    if sys.stdin is None:
        raise UsageError("The prompt - is read from stdin, which is closed.")
    try:
        text = sys.stdin.read()
    except UnicodeError:
        raise UsageError("The prompt on stdin is no UTF-8 text.") from None
    except OSError as error:
        raise UsageError(f"The prompt cannot be read from stdin: {error.strerror}.") from None
    if "\0" in text:  # UTF-16 without its mark is UTF-8, with a NUL after each letter
        raise UsageError("The prompt on stdin is no UTF-8 text.")
    # Some editors and shells put a mark before it, also as another encoding reads that.
    return text.removeprefix("\ufeff").removeprefix("\u00ef\u00bb\u00bf").strip()


def check_extension(args: argparse.Namespace) -> None:
    """Raises UsageError for a first frame beside the video that gives it."""
    if args.image is not None:
        raise UsageError("The first frame is where the video ends: leave out --image.")


def _run_extend(args: argparse.Namespace, console: Console) -> int:
    check_extension(args)
    found = _extended_before(args, console) if args.id == "last" else None
    if found is not None:
        return _generate(args, console, *found)
    _, saved, entry = local_video(args.id, console, answer=False)
    return _generate(args, console, *_noting(lambda: _continuation(args, saved.path, entry)))


def _continuation(args: argparse.Namespace, video: Path, entry: Entry | None) -> VideoRequest:
    """The request that goes on where a video ends, as it was made where the line does not say.

    That is what ``KlingVideo.extend`` asks for, too: the same extension is one payment.
    """
    from ..core import media

    known = catalog.candidates(entry.record.model)[:1] if entry and args.model is None else ()
    chosen = argparse.Namespace(**{**vars(args), "model": known[0].alias if known else args.model})
    for name in ("duration", "cfg_scale"):
        if entry is not None and getattr(args, name) is None:
            setattr(chosen, name, entry.request.get(name))
    return request_from(chosen, args.prompt, image=media.last_frame(video))


def _extended_before(
    args: argparse.Namespace, console: Console
) -> tuple[VideoRequest, list[str]] | None:
    """The request of the last generation with its notes, where this very command made it."""
    found = extended_before(
        args.prompt,
        console,
        user_ledger(),
        lambda entry, saved: _noting(lambda: _continuation(args, saved.path, entry)),
    )
    return found and found[1]


def extended_before(
    prompt: str | None,
    console: Console,
    ledger: Ledger,
    request_of: Callable[[Entry, Saved], tuple[VideoRequest, T]],
) -> tuple[Entry, tuple[VideoRequest, T]] | None:
    """What an ``extend last`` went on from, where the last generation is what it made.

    ``extend last`` repeated is one payment, like any other command that is repeated: what it made
    is not what it goes on from. ``request_of`` makes the request that goes on from a video, with
    whatever the caller wants to keep beside it. None where the last generation is something else.
    """
    base_url = settings.base_url()
    _, last = find("last", ledger, base_url)
    if last is None or _words(last.prompt) != _words(prompt):
        return None
    account = identity.account(base_url)
    earlier = [
        entry
        for entry in ledger.history(_MOST_EARLIER)
        if identity.account(entry.base_url) == account
        and entry.generation_id not in (None, last.generation_id)
        and is_own(entry)
    ]
    gone = False
    for entry in earlier:
        saved = saved_file(entry)
        if saved is None:
            gone = gone or entry.state is State.COMPLETED
            continue
        try:
            made = request_of(entry, saved)
        except InvalidRequestError:  # its file cannot be read
            continue
        if last.record.fingerprint in made[0].fingerprints:
            further = command_line(console.program, "extend", last.generation_id or "") + " '…'"
            console.note(f"The last generation is what this command made. To extend it: {further}")
            return entry, made
    if gone and str(last.request.get("image_url", "")).startswith(_FRAME):
        raise UsageError(
            "The last generation may be what this command made: the video that it would have gone "
            "on from is not here any more. Nothing was submitted: give the id of the one to extend."
        )
    return None


def _words(text: str | None) -> list[str]:
    """Text in a form that is compared before anything costlier is."""
    return unicodedata.normalize("NFC", text or "").split()


def _noting(make: Callable[[], VideoRequest]) -> tuple[VideoRequest, list[str]]:
    """The request, and what it was warned of: shown later, as one message with a refusal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        request = make()
    return request, [str(each.message) for each in caught if each.category is KlingWarning]


def _generate(
    args: argparse.Namespace, console: Console, request: VideoRequest, notes: list[str]
) -> int:
    if args.dry_run:
        _show(notes, console)
        return _dry_run(args, console, request)
    check_output(args.out)
    ledger = user_ledger()
    with connect(ledger) as client, naming_output(args.out):
        base_url = client.endpoint.base_url
        console.note(_headline(request, client.is_sandbox))
        decision = ledger.preview(request, base_url, new=args.new)
        with _reserved(args, ledger, request, decision, base_url) as target:
            if args.max_cost is not None and decision.pays:
                expected = cost.check_cost(request, client.prices(request.model), args.max_cost)
                console.note(f"Expected cost: {expected}")
            try:
                with console.submitting():
                    generation = client.submit(request, new=args.new)
            except InvalidRequestError as error:
                error.hint = " ".join(filter(None, (error.hint, *notes)))
                raise
            except BaseException:
                _show(notes, console)
                raise
            try:
                if target is not None:
                    target.add(generation.id)
                _show(notes, console)
                return _after_submit(args, console, client, ledger, request, generation, decision)
            except KeyboardInterrupt as interrupt:
                if isinstance(interrupt, StoppedWaiting):
                    raise
                raise StoppedWaiting(generation.id) from None


def _reserved(
    args: argparse.Namespace,
    ledger: Ledger,
    request: VideoRequest,
    decision: Decision,
    base_url: str,
) -> AbstractContextManager[TargetLock | None]:
    """The file of --out, for this request alone; a paid repetition shares it with nothing."""
    known = decision.entry.generation_id if decision.picks_up and decision.entry else None
    names = [] if args.new else [request_name(base_url, request.fingerprint)]
    return reserved(
        ledger,
        None if args.no_download else args.out,
        *names,
        *([known] if known else []),
        generation_id=known,
        overwrite=args.overwrite,
    )


def _after_submit(
    args: argparse.Namespace,
    console: Console,
    client: KlingClient,
    ledger: Ledger,
    request: VideoRequest,
    generation: Generation,
    before: Decision,
) -> int:
    """From the id on: to the end of the generation, or with --detach back at once."""
    console.note(_submitted(generation, before, ledger, console))
    if args.detach and not generation.is_terminal:
        way_back = NextStep(Verb.WAIT, generation.id, output=args.out)
        console.note(f"It runs at the gateway. {console.hint(way_back)}")
        console.say(generation.id)
        base_url = client.endpoint.base_url
        console.result(manifest(generation, base_url=base_url, model=request.model))
        return RUNNING
    made = finish(
        client,
        ledger,
        generation.id,
        console,
        timeout=args.timeout,
        download=not args.no_download,
        output=args.out,
        overwrite=args.overwrite,
    )
    console.result(made)
    return DONE


def _show(notes: list[str], console: Console) -> None:
    for note in notes:
        console.note(f"Note: {note}")


def _headline(request: VideoRequest, sandbox: bool) -> str:
    parts = [request.model]
    if request.duration:
        parts.append(f"{request.duration} s")
    if request.prompt:
        parts.append(f"“{one_line(request.prompt, 60)}”")
    if sandbox:
        parts.append("SANDBOX: nothing is paid, the video is a test picture")
    return " · ".join(parts)


def _submitted(generation: Generation, before: Decision, ledger: Ledger, console: Console) -> str:
    """The outcome of the submit: a POST, or the generation that was paid for already.

    ``before`` was decided ahead of the submit; another process may have submitted in between.
    """
    if generation.raw:  # a reply of the gateway: what comes from the ledger has none
        return f"Submitted: {generation.id}"
    earlier = before.entry if before.picks_up else None
    since = f"{ago(earlier.age)} ago" if earlier else "just now"
    by = colleague(earlier or ledger.entry(settings.base_url(), generation.id))
    who = f" by {by}" if by else ""
    finished = " and is finished" if generation.status is Status.COMPLETED else ""
    return (
        f"Generation {generation.id} was submitted{who} {since}{finished}: picked up, nothing is "
        f"paid again. {console.hint(NextStep(Verb.SUBMIT_NEW))}"
    )


def _dry_run(args: argparse.Namespace, console: Console, request: VideoRequest) -> int:
    base_url = settings.base_url()
    request.check_reachable(base_url)
    decision = user_ledger().preview(request, base_url, new=args.new)
    expected = _estimate(request)
    console.facts(request.summary().items())
    console.say("")
    console.say(f"It would {_OUTCOME[decision.action]}: {decision.reason}.")
    console.say(f"Expected cost: {expected if decision.pays else 'none'}.")
    if decision.action is Action.REFUSE:
        for verb in (Verb.RECOVER, Verb.SUBMIT_NEW):
            console.note(console.hint(NextStep(verb)))
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
    return DONE


def _estimate(request: VideoRequest) -> cost.Estimate:
    """The expected cost; unknown, with the reason, without a key or a gateway."""
    try:
        with connect() as client:
            return cost.explain(request, client.prices(request.model))
    except KlingError as error:
        return cost.Estimate(None, one_line(error.message.rstrip(".")))
