"""``kling sandbox`` and ``kling demo``: everything without a key or money."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import cost
from ..core.errors import InvalidRequestError, NextStep, Verb
from ..core.storage.ledger import Ledger
from ..core.waiting import DEFAULT_TIMEOUT
from ._arguments import UsageError, add_command
from ._exit_codes import DONE
from ._finish import watch
from ._save import save_video
from ._target import check_output
from ._text import money, one_line

if TYPE_CHECKING:
    from ..core.generation import Generation, Saved
    from ..core.http.client import KlingClient
    from ..core.request import VideoRequest
    from ..sandbox import Sandbox
    from ._console import Console

_DEMO_PROMPT = "A cheerful white raccoon running through a sequoia forest"
_DEMO_SPEED = 30


def add(commands: Any) -> None:
    """Adds both commands to the grammar."""
    sandbox = add_command(
        commands,
        "sandbox",
        _run_sandbox,
        "the gateway on this machine: no key, no money, made-up videos; until Ctrl-C",
        epilog="Faults: --fault moment:kind[:times][:name=value,…], for example poll:503:3 or "
        "submit:drop-after;\n--fault help lists them.",
    )
    add_argument = sandbox.add_argument
    add_argument(
        "--port", metavar="N", type=_port, default=8765, help="default: %(default)s; 0: a free one"
    )
    add_argument("--speed", metavar="X", type=_figure, default=60.0, help="default: 60-fold")
    add_argument("--fault", metavar="F", action="append", default=[], help="what goes wrong")
    add_argument("--fail", metavar="KIND", help="all generations fail, for example moderation")
    add_argument(
        "--seconds", metavar="S", type=_figure, help="sandbox time that a generation takes"
    )
    add_argument("--balance", metavar="USD", type=_figure, help="play money at the start")
    add_argument("--seed", metavar="N", type=int, help="the same ids and durations each time")
    add_argument("--logs-show-running", action="store_true", help="the log lists what still runs")

    demo = add_command(
        commands,
        "demo",
        _run_demo,
        "the whole story in ten seconds, on a sandbox of its own, for free",
    )
    demo.add_argument("prompt", metavar="PROMPT", nargs="?", default=_DEMO_PROMPT)
    demo.add_argument("-o", "--out", metavar="FOLDER", default=".", help="default: here")


def _port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no port: it takes 0 to 65535")
    return int(text)


def _figure(text: str) -> float:
    value = float(text)
    if not value >= 0:  # which is not the same as value < 0: nan is neither
        raise ValueError
    return value


def _run_sandbox(args: argparse.Namespace, console: Console) -> int:
    from ..sandbox import serve
    from ..sandbox.serve import fault_help

    if "help" in args.fault:
        console.say(fault_help())
        return DONE
    options = {name: getattr(args, name) for name in ("fail", "seconds", "balance", "seed")}
    options = {name: value for name, value in options.items() if value is not None}
    with starting_sandbox(args.port):
        serve(
            args.port,
            args.speed,
            faults=args.fault,
            logs_show_running=args.logs_show_running,
            out=console.err if console.as_json else console.out,
            **options,
        )
    return DONE


@contextmanager
def starting_sandbox(port: int) -> Iterator[None]:
    """Says what is wrong with the flags of a sandbox, or with its port."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    except OSError as error:
        raise InvalidRequestError(
            f"Port {port} is not available: {error.strerror}.",
            hint="Take another one with --port, or a free one with --port 0.",
        ) from None


# --- demo ------------------------------------------------------------------------------------


def _run_demo(args: argparse.Namespace, console: Console) -> int:
    from ..core.http.client import KlingClient
    from ..core.request import VideoRequest
    from ..sandbox import Sandbox

    request = VideoRequest(prompt=args.prompt)
    console.note(
        "A sandbox on this machine plays the gateway: no key, no money, and time runs "
        f"{_DEMO_SPEED}-fold.\nThis is what happens:\n"
    )
    console.note(f"$ {console.command('generate')} '{one_line(args.prompt, 60)}'")
    with (
        tempfile.TemporaryDirectory(prefix="kling-demo-", ignore_cleanup_errors=True) as home,
        Sandbox(speed=_DEMO_SPEED) as sandbox,
    ):
        ledger = Ledger(Path(home) / "ledger.sqlite3")  # not the user's
        with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
            result = _demonstrate(request, args.out, sandbox, client, ledger, console)
    console.note(f"\nNext, still without a key or money: {console.command('sandbox')}")
    console.note(f"For real: {console.hint(NextStep(Verb.SET_KEY))}")
    console.result(result)
    return DONE


def _demonstrate(
    request: VideoRequest,
    output: str,
    sandbox: Sandbox,
    client: KlingClient,
    ledger: Ledger,
    console: Console,
) -> dict[str, Any]:
    """One request twice: the first is paid and watched, the second is picked up."""
    with console.submitting():
        generation = client.submit(request)
    console.note(f"Submitted: {generation.id}")
    console.note("Its id is written down: Ctrl-C, a crash or a reboot cannot lose it.")
    done, last = watch(client, generation.id, console, DEFAULT_TIMEOUT)
    polls = last.polls if last else 0
    late = sandbox.jobs[done.id].lateness or 0.0
    console.note(f"Completed: noticed {late:.0f} s of its time after it was, with {polls} polls.")
    saved = _save(client, ledger, done, output, request.prompt, console)
    if sandbox.video_note:
        console.note(sandbox.video_note)
    console.note("\nThe same command once more:")
    again = client.submit(request)
    price = money(cost.spent(done.usage) or sandbox.jobs[done.id].usd)
    same = "The same generation is picked up" if again.id == done.id else again.id
    console.note(f"{same}: {sandbox.paid} paid in all ({price} of play money).")
    return {
        "generation_id": done.id,
        "status": done.status.value,
        "model": request.model,
        "path": str(saved.path),
        "polls": polls,
        "paid": sandbox.paid,
        "sandbox": True,
    }


def _save(
    client: KlingClient,
    ledger: Ledger,
    generation: Generation,
    output: str,
    prompt: str | None,
    console: Console,
) -> Saved:
    """In the folder that was asked for, else in a temporary one: the demo always succeeds."""
    folder = os.path.join(output, "")  # with a slash at its end, it may not exist yet
    try:
        check_output(folder)
    except InvalidRequestError:
        folder = os.path.join(tempfile.mkdtemp(prefix="kling-demo-"), "")
    return save_video(client, ledger, generation, console, output=folder, prompt=prompt)
