"""``kling generate`` and ``kling extend``: make a video, or pick up the one that is paid for."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ..core import catalog, cost, settings
from ..core.errors import KlingError, NextStep, StoppedWaiting, Verb
from ..core.generation import Generation, Status
from ..core.manifest import manifest
from ..core.storage.ledger import Ledger
from ..core.submission import Action
from ._arguments import (
    ID_HELP,
    add_command,
    dollars,
    generation_arguments,
    output_argument,
    request_from,
    timeout_argument,
)
from ._context import connect
from ._exit_codes import DONE, RUNNING
from ._finish import finish
from ._save import check_output, local_video, naming_output
from ._text import ago, one_line

if TYPE_CHECKING:
    from ..core.request import VideoRequest
    from ..core.submission import Decision
    from ._console import Console

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
    prompt = sys.stdin.read().strip() if args.prompt == "-" else args.prompt
    return _generate(args, console, request_from(args, prompt))


def _run_extend(args: argparse.Namespace, console: Console) -> int:
    from ..core import media

    _, saved, entry = local_video(args.id, console, answer=False)
    known = catalog.candidates(entry.record.model)[:1] if entry else ()
    if args.model is None and known:
        args.model = known[0].alias
    request = request_from(args, args.prompt, image=media.last_frame(saved.path))
    return _generate(args, console, request)


def _generate(args: argparse.Namespace, console: Console, request: VideoRequest) -> int:
    if args.dry_run:
        return _dry_run(args, console, request)
    check_output(args.out)
    ledger = Ledger()
    with connect(ledger) as client, naming_output(args.out):
        base_url = client.endpoint.base_url
        console.note(_headline(request, client.is_sandbox))
        decision = ledger.preview(request, base_url, new=args.new)
        if args.max_cost is not None and decision.pays:
            expected = cost.check_cost(request, client.prices(request.model), args.max_cost)
            console.note(f"Expected cost: {expected}")
        with console.submitting():
            generation = client.submit(request, new=args.new)
        try:
            console.note(_submitted(generation, decision, console))
            if args.detach and not generation.is_terminal:
                way_back = NextStep(Verb.WAIT, generation.id, output=args.out)
                console.note(f"It runs at the gateway. {console.hint(way_back)}")
                console.say(generation.id)
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
            )
        except KeyboardInterrupt as interrupt:
            if isinstance(interrupt, StoppedWaiting):
                raise
            raise StoppedWaiting(generation.id) from None
        console.result(made)
    return DONE


def _headline(request: VideoRequest, sandbox: bool) -> str:
    parts = [request.model]
    if request.duration:
        parts.append(f"{request.duration} s")
    if request.prompt:
        parts.append(f"“{one_line(request.prompt, 60)}”")
    if sandbox:
        parts.append("SANDBOX: nothing is paid, the video is a test picture")
    return " · ".join(parts)


def _submitted(generation: Generation, before: Decision, console: Console) -> str:
    """The outcome of the submit: a POST, or the generation that was paid for already.

    ``before`` was decided ahead of the submit; another process may have submitted in between.
    """
    if generation.raw:  # a reply of the gateway: what comes from the ledger has none
        return f"Submitted: {generation.id}"
    since = f"{ago(before.entry.age)} ago" if before.picks_up and before.entry else "just now"
    finished = " and is finished" if generation.status is Status.COMPLETED else ""
    return (
        f"Generation {generation.id} was submitted {since}{finished}: picked up, nothing is paid "
        f"again. {console.hint(NextStep(Verb.SUBMIT_NEW))}"
    )


def _dry_run(args: argparse.Namespace, console: Console, request: VideoRequest) -> int:
    base_url = settings.base_url()
    decision = Ledger().preview(request, base_url, new=args.new)
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
