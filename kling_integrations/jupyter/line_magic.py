"""``%kling SUBCOMMAND``: the shell's grammar and code, and here what a notebook shows better."""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import commands
from ..commands import access
from ..commands.console import columns, one_line
from ..commands.grammar import command as subcommand
from ..commands.grammar import flag, request_from
from ..core import settings
from ..core.errors import InvalidRequestError
from ..core.submission import Entry
from . import cell, errors, result
from .display import TEXT, GridView, View, choose_ui, out, publish
from .fill import look_up
from .grid import Cell, differences
from .job import Job
from .plan import Variant, picture
from .result import KlingVideo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .magics import KlingMagics


class NotebookConsole(commands.Console):
    """Everything to stdout, tables as tables, commands as they are typed in a cell."""

    def __init__(self, shell: Any, *, as_json: bool) -> None:
        super().__init__(sys.stdout, sys.stdout, as_json=as_json)
        self._rich = hasattr(shell, "kernel") and not as_json

    def note(self, text: str) -> None:
        if not self.as_json:
            super().note(errors.in_notebook(text))

    def say(self, text: str) -> None:
        if not self.as_json:
            super().say(errors.in_notebook(text))

    def table(self, rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
        if not self._rich:
            super().table(rows, headers)
            return
        head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in headers)
        body = "".join(
            "<tr>"
            + "".join(
                '<td style="text-align:left;overflow-wrap:anywhere">'
                f"{escape(one_line('' if cell is None else str(cell), 300))}</td>"
                for cell in row
            )
            + "</tr>"
            for row in rows
        )
        html = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        text = "\n".join(columns(rows, headers))
        publish(({"text/html": html, "text/plain": text}, {}))


def parser() -> commands.Parser:
    """The shell's grammar, and what only a notebook has."""
    root = commands.parser("%kling")
    assert isinstance(root, commands.Parser)
    choices = subcommands(root)
    choices["history"].add_argument("--grid", action="store_true", help="the videos, side by side")
    action = next(a for a in root._actions if isinstance(a, argparse._SubParsersAction))
    compare = subcommand(action, "compare", None, "videos side by side, playing in step")
    compare.add_argument("ids", metavar="ID", nargs="+", help="ids, or variables of %%%%kling")
    return root


def subcommands(root: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in root._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def run(text: str, magics: KlingMagics) -> Any:
    """Runs one line. What it returns is what an assignment gets."""
    words = cell.split(text)
    if "--raw" not in words:
        words = cell.filled(magics, words)
    try:
        args = parser().parse_args(words)
    except SystemExit:  # -h has printed its help
        return None
    for name in ("id", "ids"):
        if getattr(args, name, None):
            setattr(args, name, _named(getattr(args, name), magics.shell.user_ns))
    console = NotebookConsole(magics.shell, as_json=flag(args, "json"))
    plain = console.as_json or flag(args, "version")
    own = None if plain else _OWN.get(args.command or "")
    if own:
        value = own(args, magics, console)
        return value if _assigned(magics.shell) else None
    commands.run(args, console)
    return None


def _named(words: Any, names: Mapping[str, Any]) -> Any:
    """Ids for variables that hold a result or a job."""
    if isinstance(words, list):
        return [_named(word, names) for word in words]
    found, value = look_up(words, names)
    known = getattr(value, "id", None) if found and isinstance(value, Job | KlingVideo) else None
    return known or words


def _assigned(shell: Any) -> bool:
    """Whether somebody takes the value: a bare line must not show the same video twice."""
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    lines = str(parent.get("content", {}).get("code", "")).strip().splitlines()
    return not (lines and lines[-1].lstrip().startswith("%kling"))


# --- generating ------------------------------------------------------------------------------


def _generate(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    names = magics.shell.user_ns
    if args.model is None and magics.default_model:
        args.model = magics.default_model
    request = request_from(
        args,
        args.prompt,
        image=picture(args.image, names),
        tail_image=picture(args.tail_image, names),
    )
    return _cell_run(args, magics, Variant(request))


def _extend(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    video = _video(args, args.id, magics)
    asked = video.continuation(args.prompt)
    if args.model is None:
        args.model = asked.get("model")
    if args.duration is None:
        args.duration = asked.get("duration")
    request = request_from(args, args.prompt, image=asked["image"])
    return _cell_run(args, magics, Variant(request))


def _cell_run(args: argparse.Namespace, magics: KlingMagics, variant: Variant) -> Any:
    as_cell = {
        "file": args.out,
        "out": None,
        "bg": args.detach,
        "quiet": False,
        "embed": None,
        "width": None,
        "yes": True,
    }
    asked = argparse.Namespace(**{**vars(args), **as_cell})
    if args.dry_run:
        cell.dry_run(magics, asked, [variant])
        return None
    cell.check_cost(magics, asked, [variant])
    made = cell.one(magics, asked, variant)
    return made or magics.shell.user_ns.get("_kling")


# --- looking and waiting -----------------------------------------------------------------------


def _wait(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    session = magics.session
    base_url = settings.base_url()
    words = args.id or ["all"]
    jobs: list[Job] = []
    if "all" in words:
        jobs += [job for job in session.watcher.jobs if not job.done()]
        # A job whose POST is under way has no id yet, and may have one in the ledger by now.
        requests = {(job.request.fingerprint, job.take) for job in jobs if job.request}
        entries = reversed(session.ledger.running(base_url))
        known = {job.id for job in jobs}
        jobs += [
            session.resume(entry.generation_id, file=args.out, timeout=args.timeout)
            for entry in entries
            if entry.generation_id
            and entry.generation_id not in known
            and (entry.record.fingerprint, entry.take) not in requests
        ]
    for word in words:
        if word != "all":
            generation_id, _ = access.find(word, session.ledger, base_url)
            jobs.append(session.resume(generation_id, file=args.out, timeout=args.timeout))
    if not jobs:
        console.say("Nothing is running.")
        return None
    if len(jobs) == 1:
        view: View | GridView = View(jobs[0], session)
    else:
        view = GridView([Cell({}, job) for job in jobs], session, prompt=None)
    view.begin()
    session.wait(jobs, view.lines)
    bad = [job for job in jobs if job.error is not None]
    if len(jobs) == 1:
        return jobs[0].result()
    if bad:
        raise cell.batch_error(bad, len(jobs))
    return [job.result() for job in jobs]


def _show(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    generation_id, entry = access.find(args.id, magics.session.ledger, settings.base_url())
    if entry is None or entry.saved_path is None:
        with access.connect(args, magics.session.ledger) as client:
            if (entry and entry.record.state == "failed") or not client.get(generation_id).video:
                commands.run(args, console)
                return None
    video = _video(args, generation_id, magics)
    if choose_ui(magics.ui, magics.shell)[0] == TEXT:
        commands.run(args, console)
    else:
        video.show()
    return video


def _video(args: argparse.Namespace, word: str, magics: KlingMagics) -> KlingVideo:
    """The finished video that an id means, fetched where it is not here yet."""
    generation_id, entry = access.find(word, magics.session.ledger, settings.base_url())
    if entry and entry.saved_path:
        return from_entry(entry)
    job = magics.session.resume(generation_id)
    magics.session.wait([job])
    return job.result()


def from_entry(entry: Entry) -> KlingVideo:
    """The video of a record whose file is there."""
    path = entry.saved_path
    assert path is not None
    assert entry.generation_id is not None
    request = dict(entry.request)
    seen = result.look(path)
    return KlingVideo(
        id=entry.generation_id,
        path=path,
        model=str(request.pop("model", entry.record.model)),
        prompt=request.pop("prompt", None),
        params=request,
        usage=entry.usage,
        created=entry.submitted_at or entry.record.created_at,
        elapsed=entry.elapsed,
        sha256=entry.sha256,
        size=entry.size,
        duration=seen.duration,
        width=seen.width,
        height=seen.height,
        poster=seen.poster,
        sandbox=settings.is_sandbox(entry.base_url),
    )


def _history(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    if not args.grid:
        commands.run(args, console)
        return None
    entries = magics.session.ledger.history(args.limit, args.search, args.model)
    videos = [from_entry(entry) for entry in entries if entry.saved_path]
    if not videos:
        console.say("None of these has its file here.")
        return None
    return _side_by_side(videos)


def _compare(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    return _side_by_side([_video(args, word, magics) for word in args.ids])


def _side_by_side(videos: Sequence[KlingVideo]) -> Sequence[KlingVideo]:
    from .grid import grid, total_line

    shared, differing = differences(videos)
    cells = [Cell(d, video=video) for d, video in zip(differing, videos, strict=True)]
    publish(grid(cells, prompt=shared, total=total_line(cells)))
    return videos


def _frames(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    """``-o img`` is a variable here; with an ending it is a file, as in a shell."""
    if args.out and not re.fullmatch(r"[^\W\d]\w*", args.out):
        commands.run(args, console)
        return None
    source = Path(args.id).expanduser()
    path = source if source.is_file() else _video(args, args.id, magics).path
    from ..core import media

    image = media.last_frame(path) if args.at is None else media.frame(path, args.at)
    magics.shell.push({args.out: image})
    small = image.copy()
    small.thumbnail((magics.width, magics.width))
    data = io.BytesIO()
    small.convert("RGB").save(data, "JPEG", quality=80)
    picture = {"image/jpeg": base64.b64encode(data.getvalue()).decode()}
    publish((picture | {"text/plain": f"{args.out}: {image.width}×{image.height}"}, {}))
    return image


# --- around it ---------------------------------------------------------------------------------


def _sandbox(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    """In this kernel, and in use at once: a shell's waits for Ctrl-C."""
    if settings.is_sandbox(settings.base_url()):
        console.say(f"A sandbox is in use already: {settings.base_url()}")
        return None
    try:
        from ..sandbox import Sandbox
    except ImportError as error:
        raise InvalidRequestError(
            f"The sandbox needs a package that is not here: {error.name}.",
            hint="Install it with: pip install 'kling-integrations[sandbox]'",
        ) from None
    options = {
        name: getattr(args, name)
        for name in ("fail", "seconds", "balance", "seed")
        if getattr(args, name, None) is not None
    }
    sandbox = Sandbox(speed=args.speed, port=0, faults=args.fault, **options)
    sandbox.start()
    os.environ["AIML_BASE_URL"] = sandbox.base_url
    magics.shell.push({"_kling_sandbox": sandbox})
    console.say(
        f"SANDBOX in use: no key, no money, made-up videos, {args.speed:g}-fold speed. "
        "It ends with this kernel."
    )
    return None


def _config(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    commands.run(args, console)
    rows = [
        (name, repr(getattr(magics, name)), trait.help)
        for name, trait in sorted(magics.traits(config=True).items())
    ]
    out("Set with %config KlingMagics.NAME = VALUE:")
    console.table(rows, ("NAME", "VALUE", "WHAT"))
    return None


def _status(args: argparse.Namespace, magics: KlingMagics, console: NotebookConsole) -> Any:
    """What bare ``%kling`` says: where things stand, and the way in."""
    from ..version import __version__

    base_url = settings.base_url()
    sandbox = settings.is_sandbox(base_url)
    key = access.key_variable()
    session = magics.session
    running = {entry.generation_id for entry in session.ledger.running(base_url)}
    running |= {job.id for job in session.watcher.jobs if not job.done()}
    unclear = [e for e in session.ledger.uncertain(base_url) if e.record.state == "intent"]
    console.say(f"kling-integrations {__version__}")
    console.say(f"  gateway  {base_url}{'  (SANDBOX: nothing is real)' if sandbox else ''}")
    console.say(f"  key      {f'from {key}' if key else 'none needed' if sandbox else 'none'}")
    console.say(f"  videos   {magics.folder / magics.output_dir}")
    if running:
        console.say(f"  running  {len(running)}: %kling jobs, %kling wait")
    if unclear:
        console.say(f"  unclear  {len(unclear)} without a known outcome: %kling recover")
    console.say("")
    ways = [
        ("%%kling -d 5 -o clip", "and a prompt below it: a video, and clip holds it"),
        ("%%kling?", "its flags"),
        ("%kling models", "what there is"),
        ("%kling history --grid", "what was made"),
        ("%kling -h", "everything else"),
    ]
    if not key and not sandbox:
        ways.insert(0, ("%kling sandbox", "try everything without a key or money"))
        name = settings.KEY_VARIABLES[0]
        ways.insert(1, (f"%env {name}=…", "for real (better: set before Jupyter starts)"))
    for way, what in ways:
        console.say(f"  {way:<24}{what}")
    return None


_OWN: dict[str, Callable[[argparse.Namespace, KlingMagics, NotebookConsole], Any]] = {
    "": _status,
    "generate": _generate,
    "gen": _generate,
    "extend": _extend,
    "wait": _wait,
    "show": _show,
    "history": _history,
    "compare": _compare,
    "frames": _frames,
    "sandbox": _sandbox,
    "config": _config,
}
