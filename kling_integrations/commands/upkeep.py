"""Commands around it: recover, config, version, sandbox, demo."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import catalog, settings
from ..core.errors import InvalidRequestError, LedgerError, command
from ..core.storage.ledger import Ledger
from ..version import __version__
from . import access, outcome
from .console import money, one_line
from .grammar import UsageError
from .grammar import command as subcommand

if TYPE_CHECKING:
    from .console import Console

DEMO_PROMPT = "A cheerful white raccoon running through a sequoia forest"


def add(commands: Any) -> None:
    subcommand(
        commands,
        "recover",
        recover_,
        "look up submissions without a known outcome in the gateway's log, and attach them",
    )
    subcommand(commands, "config", config, "what the environment says: gateway, key, folders")
    subcommand(commands, "version", version, "print the version")

    sandbox = subcommand(
        commands,
        "sandbox",
        sandbox_,
        "the gateway on this machine: no key, no money, made-up videos; until Ctrl-C",
        more="Faults: --fault moment:kind[:times][:name=value,…], for example poll:503:3 or "
        "submit:drop-after;\n--fault help lists them.",
    )
    number = sandbox.add_argument
    number("--port", metavar="N", type=int, default=8765, help="default: 8765; 0 takes a free one")
    number("--speed", metavar="X", type=float, default=60.0, help="default: 60-fold")
    number("--fault", metavar="F", action="append", default=[], help="something that goes wrong")
    number("--fail", metavar="KIND", help="all generations end badly, for example moderation")
    number(
        "--seconds", metavar="S", type=float, help="each generation takes so many of its seconds"
    )
    number("--balance", metavar="USD", type=float, help="play money at the start")
    number("--seed", metavar="N", type=int, help="the same ids and durations each time")
    number("--logs-show-running", action="store_true", help="its log lists what still runs")

    demo = subcommand(
        commands, "demo", demo_, "the whole story in ten seconds, on a sandbox of its own, for free"
    )
    demo.add_argument("prompt", metavar="PROMPT", nargs="?", default=DEMO_PROMPT)
    demo.add_argument("-o", "--out", metavar="FOLDER", default=".", help="default: here")


# --- recover ---------------------------------------------------------------------------------


def recover_(args: argparse.Namespace, console: Console) -> int:
    ledger = Ledger()
    if not ledger.uncertain(settings.base_url()):
        console.say("Every submission from here has a known outcome.")
        console.result({"recovered": []})
        return outcome.DONE
    console.note("Looking through the gateway's log …")
    with access.connect(args, ledger) as client:
        results = client.recover()
    blocked = 0
    for result in results:
        console.say(f"“{one_line(result.entry.prompt, 60)}” ({result.entry.record.model})")
        if result.generation_id:
            console.say(f"  found: {result.generation_id}")
            console.say(f"  go on with: {command('wait', result.generation_id)}")
            continue
        console.say(f"  {result.reason}")
        if result.entry.record.state == "intent":
            blocked += 1
            console.say("  try again in some minutes, or pay for another one: --new")
    console.result(
        {
            "recovered": [
                {
                    "client_request_id": result.entry.record.client_request_id,
                    "generation_id": result.generation_id,
                    "reason": result.reason,
                    "prompt": result.entry.prompt,
                    "model": result.entry.record.model,
                }
                for result in results
            ]
        }
    )
    return outcome.UNCERTAIN if blocked else outcome.DONE


# --- config and version ----------------------------------------------------------------------


def config(args: argparse.Namespace, console: Console) -> int:
    base_url = settings.base_url()
    key = access.key_variable()
    said: dict[str, Any] = {
        "base_url": base_url,
        "sandbox": settings.is_sandbox(base_url),
        "key": f"from {key}" if key else None,
        **_folders(),
        "default_model": catalog.DEFAULT_MODEL,
        "version": __version__,
    }
    for name, value in said.items():
        shown = {True: "yes", False: "no", None: "none"}.get(value, value)
        console.say(f"{name.replace('_', ' '):<16}{shown}")
    console.note("Set by AIML_BASE_URL, AIML_API_KEY and KLING_HOME.")
    console.result(said)
    return outcome.DONE


def _folders() -> dict[str, str]:
    try:
        return {"home": str(settings.home()), "ledger": str(Ledger().path)}
    except LedgerError as error:  # what is wrong is what one wants to see here
        return {"home": error.message}


def version(args: argparse.Namespace, console: Console) -> int:
    console.say(f"kling-integrations {__version__}")
    console.result({"version": __version__})
    return outcome.DONE


# --- sandbox and demo ------------------------------------------------------------------------


def sandbox_(args: argparse.Namespace, console: Console) -> int:
    try:
        from ..sandbox import serve
        from ..sandbox.serve import fault_help
    except ImportError as error:
        raise _needs_sandbox(error) from None
    if "help" in args.fault:
        console.say(fault_help())
        return outcome.DONE
    options = {name: getattr(args, name) for name in ("fail", "seconds", "balance", "seed")}
    options = {name: value for name, value in options.items() if value is not None}
    try:
        serve(
            args.port,
            args.speed,
            faults=args.fault,
            logs_show_running=args.logs_show_running,
            out=console.err if console.as_json else console.out,
            **options,
        )
    except ValueError as error:
        raise UsageError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    except OSError as error:
        raise InvalidRequestError(
            f"Port {args.port} cannot be had: {error.strerror}.",
            hint="Take another one with --port, or a free one with --port 0.",
        ) from None
    return outcome.DONE


def _needs_sandbox(error: ImportError) -> InvalidRequestError:
    return InvalidRequestError(
        f"The sandbox needs a package that is not here: {error.name}.",
        hint="Install it with: pip install 'kling-integrations[sandbox]'",
    )


def demo_(args: argparse.Namespace, console: Console) -> int:
    try:
        from ..sandbox import Sandbox
    except ImportError as error:
        raise _needs_sandbox(error) from None
    from ..core import cost
    from ..core.http.client import KlingClient
    from ..core.request import VideoRequest
    from .delivering import check_out, deliver

    out = args.out
    try:
        check_out(out)
    except InvalidRequestError:
        out = tempfile.mkdtemp(prefix="kling-demo-")
    request = VideoRequest(prompt=args.prompt)
    with (
        tempfile.TemporaryDirectory(prefix="kling-demo-", ignore_cleanup_errors=True) as home,
        Sandbox(speed=30) as sandbox,
    ):
        ledger = Ledger(Path(home) / "ledger.sqlite3")
        console.note("A sandbox on this machine plays the gateway: no key, no money, and time runs")
        console.note("30-fold. This is what happens:\n")
        console.note(f"$ kling generate '{one_line(args.prompt, 60)}'")
        with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
            with console.submitting():
                generation = client.submit(request)
            console.note(f"Submitted: {generation.id}")
            console.note("Its id is written down: Ctrl-C, a crash or a reboot cannot lose it.")
            polls = 0
            with console.watching(client.clock) as show:

                def update(progress: Any) -> None:
                    nonlocal polls
                    polls = progress.polls
                    show(progress)

                done = client.wait(generation.id, on_update=update)
            late = sandbox.jobs[generation.id].lateness or 0.0
            console.note(
                f"Completed: noticed {late:.0f} s of its time after it was, with {polls} polls."
            )
            saved = deliver(client, ledger, done, out, args.prompt, console)
            console.note("\nThe same command once more:")
            again = client.submit(request)
            price = money(cost.spent(done.usage) or sandbox.jobs[done.id].usd)
            same = "The same generation is picked up" if again.id == done.id else again.id
            console.note(f"{same}: {sandbox.paid} paid in all ({price} of play money).")
    console.note(
        "\nNext: kling sandbox, to try everything else; or export AIML_API_KEY=… for real."
    )
    console.result(
        {
            "generation_id": done.id,
            "status": done.status.value,
            "model": request.model,
            "path": str(saved.path),
            "polls": polls,
            "paid": sandbox.paid,
            "sandbox": True,
        }
    )
    return outcome.DONE
