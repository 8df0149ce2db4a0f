"""``%kling SUBCOMMAND``: the shell's grammar and code, and here what a notebook shows better."""

from __future__ import annotations

import argparse
import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..commands import (
    UsageError,
    add_command,
    check_extension,
    connect,
    extended_before,
    find,
    flag,
    matching,
    parser,
    print_status,
    request_from,
    starting_sandbox,
)
from ..commands import (
    run as run_command,
)
from ..core import media, settings
from ..core.generation import Saved
from ..core.request import VideoRequest
from ..core.storage.saved_files import saved_file
from ..core.submission import Entry, State
from .cell_magic import NEW_PAYS, filled, run_one, split
from .console import NotebookConsole
from .cost_limits import check_cost, dry_run
from .display.grid import Cell, side_by_side
from .display.grid_view import GridView
from .display.live import JobView
from .errors import noting
from .frontend import TEXT, choose_ui, print_notes, publish
from .job import Job
from .options import Options, notebook, options
from .session import current
from .stored import saved_video, start_sandbox, video_of, video_of_record
from .table import within_cell
from .templating import look_up
from .variants import Variant, check_prompt, picture, raise_first
from .video import KlingVideo


def line_parser() -> argparse.ArgumentParser:
    """The shell's grammar, and what only a notebook has."""
    root = parser("%kling")
    subcommands(root)["history"].add_argument(
        "--grid", action="store_true", help="the videos, side by side"
    )
    subcommands(root)["batch"].add_argument(
        "--yes", action="store_true", help="go ahead, whatever it is expected to cost"
    )
    compare = add_command(
        _subparsers(root), "compare", None, "videos side by side, playing in step"
    )
    compare.add_argument("ids", metavar="ID", nargs="+", help="ids, or variables of %%%%kling")
    subcommands(root)["sandbox"].set_defaults(port=0)
    for command in dict.fromkeys(subcommands(root).values()):
        if "--raw" not in command._option_string_actions:  # a batch has it
            command.add_argument("--raw", action="store_true", help="fill in no {variables}")
    return root


def subcommands(root: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of all subcommands, by name."""
    return dict(_subparsers(root).choices)


def _subparsers(root: argparse.ArgumentParser) -> Any:
    return next(a for a in root._actions if isinstance(a, argparse._SubParsersAction))


def run(line: str, names: Mapping[str, Any]) -> Any:
    """Runs one line; ``names`` are those that its code sees. What it returns is what an assignment
    gets."""
    words = split(line)
    if "--raw" not in words:
        words = filled(words, names)
    try:
        args = line_parser().parse_args(words)
    except SystemExit:  # -h has printed its help
        return None
    for name in ("id", "ids"):
        if getattr(args, name, None):
            setattr(args, name, _ids_of(getattr(args, name), names))
    args.names = names
    if args.command in _REQUESTS:
        _complete(args)
    console = NotebookConsole(as_json=flag(args, "json"))
    plain = console.as_json or flag(args, "version")
    own = None if plain else _OWN.get(args.command or "")
    if own:
        value = own(args, console)
        return value if _is_assigned() else None
    run_command(args, console)
    return None


def _complete(args: argparse.Namespace) -> None:
    """The pictures that the flags name, as objects, and the model of the options."""
    if args.prompt == "-":
        raise UsageError("The prompt - is read from stdin, which a notebook does not have.")
    check_prompt(args.prompt, raw=args.raw)
    for name in ("image", "tail_image"):
        setattr(args, name, picture(getattr(args, name), args.names))
    if args.command != "extend":
        args.model = args.model or options().default_model or None


def _ids_of(words: Any, names: Mapping[str, Any]) -> Any:
    """Words with ids for the variables that hold a result or a job."""
    if isinstance(words, list):
        return [_ids_of(word, names) for word in words]
    found, value = look_up(words, names)
    known = value.id if found and isinstance(value, Job | KlingVideo) else None
    return known or words


def _is_assigned() -> bool:
    """Whether the value is used: a bare line must not show the same video twice."""
    shell = notebook().shell
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    lines = str(parent.get("content", {}).get("code", "")).strip().splitlines()
    return not (lines and lines[-1].lstrip().startswith("%kling"))


# --- generating ------------------------------------------------------------------------------


def _generate(args: argparse.Namespace, console: NotebookConsole) -> Any:
    if args.no_download:
        return _run_as_shell(args, console)
    request, notes = noting(lambda: request_from(args, args.prompt))
    return _run_as_cell(args, Variant(request), notes)


def _extend(args: argparse.Namespace, console: NotebookConsole) -> Any:
    if args.no_download:
        return _run_as_shell(args, console)

    def request_of(video: KlingVideo) -> tuple[VideoRequest, list[str]]:
        return noting(lambda: _continuation(args, video))

    def request_from_record(entry: Entry, saved: Saved) -> tuple[VideoRequest, list[str]]:
        return request_of(video_of_record(entry, saved))

    found = None
    if args.id == "last":
        found = extended_before(args.prompt, console, current().ledger, request_from_record)
    request, notes = found[1] if found else request_of(video_of(args.id))
    return _run_as_cell(args, Variant(request), notes)


def _continuation(args: argparse.Namespace, video: KlingVideo) -> VideoRequest:
    """The request that goes on where a video ends; flags come before what that was made with."""
    check_extension(args)
    defaults = video.continuation(args.prompt)
    given = {name: value for name, value in vars(args).items() if value is not None}
    chosen = argparse.Namespace(**{**vars(args), **defaults, **given})
    return request_from(chosen, args.prompt)


def _run_as_shell(args: argparse.Namespace, console: NotebookConsole) -> None:
    """What leaves its video at the gateway: there is nothing to show then."""
    args.max_cost = within_cell(args.max_cost)
    run_command(args, console)


def _run_as_cell(args: argparse.Namespace, variant: Variant, notes: list[str]) -> Any:
    cell_only = {
        "file": args.out,
        "out": None,
        "bg": args.detach,
        "quiet": False,
        "embed": None,
        "width": None,
        "yes": True,
    }
    args = argparse.Namespace(**{**vars(args), **cell_only})
    if args.dry_run:
        print_notes(notes)
        dry_run(args, [variant])
        return None
    check_cost(args, [variant])
    if args.new:
        print_notes([NEW_PAYS])
    return run_one(args, variant, notes) or notebook().variables.get("_kling")


# --- looking and waiting -----------------------------------------------------------------------


def _wait(args: argparse.Namespace, console: NotebookConsole) -> Any:
    if args.no_download:
        run_command(args, console)
        return None
    session = current()
    with session.interruptible() as jobs:
        for word in args.id or ["all"]:
            if word == "all":
                _resume_all(args, jobs)
            else:
                generation_id, _ = find(word, session.ledger, settings.base_url())
                session.resume(
                    generation_id,
                    file=args.out,
                    overwrite=args.overwrite,
                    timeout=args.timeout,
                    jobs=jobs,
                )
        if not jobs:
            console.say("Nothing is running.")
            return None
        view: JobView | GridView = (
            JobView(jobs[0])
            if len(jobs) == 1
            else GridView([Cell({}, job) for job in jobs], prompt=None)
        )
        view.begin()
        session.wait(jobs, view.show_news)
    if len(jobs) == 1:
        return jobs[0].result()
    raise_first(jobs)
    return [job.result() for job in jobs]


def _resume_all(args: argparse.Namespace, jobs: list[Job]) -> None:
    """Adds the jobs of this kernel, and what else the ledger knows to be running."""
    session = current()
    entries = session.ledger.running(settings.base_url())  # first: a job adds to it meanwhile
    running = session.watcher.jobs
    jobs += running
    known = {job.id for job in running}
    # A job whose POST is under way has no id yet, and may have one in the ledger by now.
    requests = {
        (name, job.take) for job in running if job.request for name in job.request.fingerprints
    }
    for entry in reversed(entries):
        if (
            entry.generation_id
            and entry.generation_id not in known
            and (entry.record.fingerprint, entry.take) not in requests
        ):
            session.resume(
                entry.generation_id,
                file=args.out,
                overwrite=args.overwrite,
                timeout=args.timeout,
                jobs=jobs,
            )


def _show(args: argparse.Namespace, console: NotebookConsole) -> Any:
    ledger = current().ledger
    generation_id, entry = find(args.id, ledger, settings.base_url())
    if saved_file(entry) is None and not _is_finished(generation_id, entry):
        run_command(args, console)
        return None
    video = video_of(generation_id)
    if choose_ui().kind == TEXT:
        run_command(args, console)
    else:
        video.show()
    return video


def _is_finished(generation_id: str, entry: Entry | None) -> bool:
    """Whether the gateway has a video; asked once."""
    if entry is not None and entry.state is State.FAILED:
        return False
    with connect(current().ledger) as client:
        return client.get(generation_id).video is not None


def _history(args: argparse.Namespace, console: NotebookConsole) -> Any:
    if not args.grid:
        run_command(args, console)
        return None
    entries = matching(
        current().ledger,
        args.limit,
        search=args.search,
        model=args.model,
        tag=args.tag,
        day=args.day,
    )
    videos = [video for video in map(saved_video, entries) if video is not None]
    if not videos:
        console.say("None of these has its file here.")
        return None
    return _compared(videos)


def _compare(args: argparse.Namespace, console: NotebookConsole) -> Any:
    return _compared([video_of(word) for word in args.ids])


def _compared(videos: Sequence[KlingVideo]) -> Sequence[KlingVideo]:
    publish(side_by_side(videos))
    return videos


def _frames(args: argparse.Namespace, console: NotebookConsole) -> Any:
    """``-o img`` is a variable here; with an ending it is a file, as in a shell."""
    if args.out and not re.fullmatch(r"[^\W\d]\w*", args.out):
        run_command(args, console)
        return None
    source = Path(args.id).expanduser()
    path = source if source.is_file() else video_of(args.id).path
    image = media.last_frame(path) if args.at is None else media.frame(path, args.at)
    notebook().shell.push({args.out: image})
    jpeg = base64.b64encode(media.thumbnail(image, options().width)[0]).decode()
    text = f"{args.out}: {image.width}×{image.height}"
    publish(({"image/jpeg": jpeg, "text/plain": text}, {}))
    return image


# --- around it ---------------------------------------------------------------------------------


def _sandbox(args: argparse.Namespace, console: NotebookConsole) -> Any:
    """In this kernel, and in use at once: a shell's waits for Ctrl-C."""
    if "help" in args.fault:
        run_command(args, console)
        return None
    parser = subcommands(line_parser())["sandbox"]
    given = {
        name: getattr(args, name)
        for name in ("fail", "seconds", "balance", "seed", "port", "speed", "logs_show_running")
        if getattr(args, name) != parser.get_default(name)
    }
    if settings.is_sandbox(settings.base_url()):
        if given or args.fault:
            raise UsageError(
                f"A sandbox is in use already, and stays as it is: {settings.base_url()}",
                hint="For another one restart the kernel.",
            )
        console.say(f"A sandbox is in use already: {settings.base_url()}")
        return None
    with starting_sandbox(args.port):
        sandbox = start_sandbox(**{"speed": args.speed, **given}, faults=args.fault)
    notebook().shell.push({"_kling_sandbox": sandbox})
    console.say(
        f"SANDBOX in use: no key, no money, made-up videos, {args.speed:g}-fold speed. "
        "It ends with this kernel."
    )
    return None


def _batch(args: argparse.Namespace, console: NotebookConsole) -> Any:
    from .table import run_line

    return run_line(args, console)


def _contact_sheet(args: argparse.Namespace, console: NotebookConsole) -> Any:
    from .table import run_contact_sheet

    return run_contact_sheet(args, console)


def _config(args: argparse.Namespace, console: NotebookConsole) -> Any:
    run_command(args, console)
    rows = [
        (option.name, repr(getattr(options(), option.name)), option.metadata["help"])
        for option in sorted(fields(Options), key=lambda option: option.name)
    ]
    console.say("Set with %config KlingMagics.NAME = VALUE:")
    console.table(rows, ("NAME", "VALUE", "WHAT"))
    return None


def _status(args: argparse.Namespace, console: NotebookConsole) -> Any:
    """What bare ``%kling`` prints: how things stand, and the way in."""
    running = [job.id for job in current().watcher.jobs if job.id]
    print_status(
        console,
        ways_in=[
            ("%%kling -d 5 -o clip", "and a prompt below it: a video, and clip holds it"),
            ("%%kling?", "its flags"),
            ("%kling models", "what there is"),
            ("%kling history --grid", "what was made"),
            ("%kling -h", "everything else"),
        ],
        without_key=[
            ("%kling sandbox", "try everything without a key or money"),
            (
                f"%env {settings.KEY_VARIABLES[0]}=…",
                "for real (better: set before Jupyter starts)",
            ),
        ],
        facts=[("videos", str(notebook().folder / options().output_dir))],
        running=running,
    )
    return None


_REQUESTS = ("generate", "gen", "extend", "cost")  # what makes a request of its flags

_OWN: dict[str, Callable[[argparse.Namespace, NotebookConsole], Any]] = {
    "": _status,
    "generate": _generate,
    "gen": _generate,
    "extend": _extend,
    "batch": _batch,
    "contact-sheet": _contact_sheet,
    "wait": _wait,
    "show": _show,
    "history": _history,
    "compare": _compare,
    "frames": _frames,
    "sandbox": _sandbox,
    "config": _config,
}
