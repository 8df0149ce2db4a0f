"""``%%kling``: the flags of a line, the prompt of a body, and what comes of them."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import commands
from ..commands import access
from ..commands.grammar import dollars, flag, seconds
from ..core.errors import InvalidRequestError, KlingError
from .display import GridView, View, out
from .errors import in_notebook
from .fill import fill
from .grid import Cell
from .job import Job
from .plan import Cost, Variant, expected_cost, plan
from .result import KlingVideo

if TYPE_CHECKING:
    from .magics import KlingMagics


def run(magics: KlingMagics, text: str, body: str) -> Any:
    """Runs a cell. Raises what kept it from its videos; the variable holds the job then."""
    args = parse(magics, text)
    if args is None:
        return None
    variants, notes = plan(args, body, magics.shell.user_ns)
    for note in notes:
        sys.stderr.write(in_notebook(f"Note: {note}") + "\n")
    if args.dry_run:
        dry_run(magics, args, variants)
        return None
    check_cost(magics, args, variants)
    if len(variants) == 1:
        return one(magics, args, variants[0])
    return several(magics, args, variants, body.strip())


def parse(magics: KlingMagics, text: str) -> argparse.Namespace | None:
    """The flags of a cell, variables filled in; None when only help was asked for."""
    words = split(text)
    if "--raw" not in words:
        words = filled(magics, words)
    parser = cell_parser()
    try:
        args = parser.parse_args(words)
    except SystemExit:  # -h has printed its help
        return None
    if args.model_word and args.model:
        raise commands.UsageError(f"Two models: {args.model_word} and {args.model}.")
    args.model = args.model_word or args.model
    if args.model is None and not args.models and magics.default_model:
        args.model = magics.default_model
    if args.out and not args.out.isidentifier():
        raise commands.UsageError(f"-o {args.out}: that is no name of a variable.")
    if args.takes < 1:
        raise commands.UsageError(f"--takes {args.takes}: at least 1.")
    return args


def filled(magics: KlingMagics, words: Sequence[str]) -> list[str]:
    """Flag values as the prompt. The fields of a file name are filled once its id is known."""
    names = magics.shell.user_ns
    later = {key: "{" + key + "}" for key in ("slug", "id", "date", "take")}
    filled, flag = [], ""
    for word in words:
        of_file = flag in ("-f", "--file") or word.startswith(("--file=", "-f{"))
        filled.append(fill(word, {**later, **names} if of_file else names, f"{flag or word}"))
        flag = word if word.startswith("-") else ""
    return filled


def one(magics: KlingMagics, args: argparse.Namespace, variant: Variant) -> Any:
    jobs: list[Job] = []
    with magics.session.minding(jobs):
        job = _start(magics, args, variant)
        jobs.append(job)
        keep(magics, args, job)
        view = View(job, magics.session, background=args.bg, embed=args.embed, width=args.width)
        if not args.quiet:
            view.begin()
        if args.bg:
            if view.in_text and not args.quiet:
                out(f"In the background: {job!r}; wait for it with: %kling wait")
            return None if args.out and not args.quiet else job
        magics.session.wait(jobs, None if args.quiet else view.lines)
    video = job.result()
    keep(magics, args, video)
    return video if args.quiet else None


def several(
    magics: KlingMagics, args: argparse.Namespace, variants: Sequence[Variant], pattern: str = ""
) -> Any:
    if args.file and not args.file.endswith("/") and "{id}" not in args.file:
        raise commands.UsageError(
            f"-f {args.file} is one file for {len(variants)} videos: name a folder (ending in "
            "/), or have {id} in the name."
        )
    jobs: list[Job] = []
    with magics.session.minding(jobs):
        for variant in variants:
            jobs.append(_start(magics, args, variant))  # noqa: PERF401 (an interrupt needs them)
        keep(magics, args, jobs)
        # Prompts that only differ in what is varied share their pattern.
        varied = any("prompt" in variant.differs for variant in variants)
        prompts = {variant.request.prompt for variant in variants}
        shared = None if varied else pattern if len(prompts) > 1 else prompts.pop()
        cells = [
            Cell({k: v for k, v in variant.differs.items() if k != "prompt"}, job)
            for variant, job in zip(variants, jobs, strict=True)
        ]
        view = GridView(
            cells,
            magics.session,
            prompt=shared,
            embed=args.embed,
            width=args.width and 2 * args.width,
        )
        if not args.quiet:
            view.begin()
        if args.bg:
            return None if args.out and not args.quiet else jobs
        magics.session.wait(jobs, None if args.quiet else view.lines)
    made: list[KlingVideo | Job] = [job.video or job for job in jobs]
    keep(magics, args, made)
    bad = [job for job in jobs if job.error is not None]
    if bad:
        raise batch_error(bad, len(jobs))
    return made if args.quiet else None


def batch_error(bad: Sequence[Job], total: int) -> BaseException:
    """The first one's error, as the whole cell's: a headless run must not pass."""
    error = bad[0].error
    assert error is not None
    kind = type(error) if isinstance(error, KlingError) else KlingError
    first = str(error).splitlines()[0]
    return kind(
        f"{len(bad)} of {total} ended without a video; the others are there. {first}",
        hint="Run the cell again: what is there is reused, only the rest is asked for anew.",
    )


def _start(magics: KlingMagics, args: argparse.Namespace, variant: Variant) -> Job:
    return magics.session.start(
        variant.request,
        take=variant.take,
        new=args.new,
        file=args.file,
        timeout=args.timeout,
        legacy=flag(args, "legacy_endpoint"),
    )


def keep(magics: KlingMagics, args: argparse.Namespace, value: Any) -> None:
    """The variable holds the job already while it runs, so that nothing is out of reach."""
    names = {"_kling": value}
    if args.out:
        names[args.out] = value
    magics.shell.push(names)


# --- money -----------------------------------------------------------------------------------


def _cost(magics: KlingMagics, args: argparse.Namespace, variants: Sequence[Variant]) -> Cost:
    from ..core import settings

    base_url = settings.base_url()

    def is_there(variant: Variant) -> bool:
        if args.new:
            return False
        entry = magics.session.ledger.standing(variant.request, base_url, take=variant.take)
        return bool(entry and entry.record.state in ("submitted", "completed"))

    def prices(model: str) -> Any:
        try:
            with access.connect(args) as client:
                return client.prices(model)
        except KlingError:
            return None

    return expected_cost(variants, is_there=is_there, prices=prices)


def check_cost(magics: KlingMagics, args: argparse.Namespace, variants: Sequence[Variant]) -> None:
    limits = [limit for limit in (args.max_cost, magics.max_cost) if limit is not None]
    if not limits and len(variants) == 1:
        return
    cost = _cost(magics, args, variants)
    if cost.there == len(variants):
        return
    there = f" ({cost.there} of them are there already)" if cost.there else ""
    what = f"Expected cost: {cost} for {len(variants)} videos{there}."
    if limits and (cost.usd is None or cost.usd > min(limits) + 1e-9):
        raise InvalidRequestError(
            f"{what} The limit is ${min(limits):.2f}. Nothing was submitted.",
            hint="Raise the limit with --max-cost, or leave some out.",
        )
    if len(variants) == 1:
        return
    if not args.yes and (cost.usd is None or cost.usd > magics.confirm_above):
        raise commands.UsageError(
            f"{what} Nothing was submitted.",
            hint="To go ahead add --yes. Sums up to $"
            f"{magics.confirm_above:.2f} need none (%config KlingMagics.confirm_above).",
        )
    if not args.quiet:
        out(what)


def dry_run(magics: KlingMagics, args: argparse.Namespace, variants: Sequence[Variant]) -> None:
    for variant in variants:
        told = variant.request.summary()
        if variant.take > 1:
            told["take"] = variant.take
        out("\n".join(f"{key:<16}{value}" for key, value in told.items()) + "\n")
    cost = _cost(magics, args, variants)
    there = f", {cost.there} of them there already" if cost.there else ""
    plural = "videos" if len(variants) > 1 else "video"
    out(f"{len(variants)} {plural}{there}. Expected cost: {cost}. Nothing was sent.")


def split(text: str) -> list[str]:
    """The words of a line as a shell splits them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise commands.UsageError(
            f"The line cannot be read: {error}.",
            hint="Prose with quotes belongs into the lines below %%kling: the prompt.",
        ) from None


def cell_parser() -> commands.Parser:
    """The grammar of ``%%kling``: the flags of ``kling generate``, and what only a cell has."""
    parser = commands.Parser(
        prog="%%kling",
        usage="%(prog)s [MODEL] [flags]\nA prompt, in as many lines as it takes",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        stray="The prompt belongs into the lines below; text with blanks needs quotes.",
    )
    parser.add_argument(
        "model_word", metavar="MODEL", nargs="?", help="id or alias: v2.5-turbo/pro, v2.6-pro, o1"
    )
    commands.generation_arguments(parser)
    add = parser.add_argument_group("result").add_argument
    add("-o", "--out", metavar="VAR", help="variable for the result (always also in _kling)")
    add("-f", "--file", metavar="PATH", help="MP4 or folder/; may use {slug} {id} {date} {take}")
    add("-q", "--quiet", action="store_true", help="show nothing, return the result")
    add("--embed", choices=["auto", "always", "never"], help="the video's bytes in the notebook")
    add("--width", metavar="PX", type=int, help="width of the player")
    add = parser.add_argument_group("running").add_argument
    add("--bg", action="store_true", help="go on at once; VAR holds the job")
    add("--timeout", metavar="T", type=seconds, help="stop waiting after 90, 15m or 1h")
    add(
        "--legacy-endpoint",
        action="store_true",
        help="take the gateway's older URL, which has the vendor's name in it",
    )
    add("--new", action="store_true", help="pay for another video of the same request")
    add("--raw", action="store_true", help="fill in no {variables}")
    add("--dry-run", action="store_true", help="show what would be sent and cost; send nothing")
    add("--max-cost", metavar="USD", type=dollars, help="refuse what is expected to cost more")
    add = parser.add_argument_group("several at once").add_argument
    add("--models", metavar="A,B", help="one video per model")
    add(
        "--sweep",
        metavar="KEY=A,B",
        action="append",
        default=[],
        help="one per value: of a parameter, or of a {KEY} in the prompt; repeatable",
    )
    add("--takes", metavar="N", type=int, default=1, help="N different videos of each")
    add("--yes", action="store_true", help="go ahead above the sum that asks")
    return parser


_DESCRIPTION = """\
Makes a video from the prompt in the cell's body, and shows it.

Running the cell again never pays again: it goes on with what is running and reuses what is
finished (--new makes another one). Interrupting stops the waiting, not the generation."""

_EXAMPLES = """\
{name}, {name.attr}, {name[0]} and {x:.2f} in the body and in flag values are notebook variables;
{{ and }} are braces.

examples:
  %%kling v2.5-turbo/pro -d 5 -a 16:9 -o clip
  A {animal} surfing a wave at dusk, slow dolly-in

  %%kling --image clip -o next            (goes on where clip ends; also arrays, figures, paths)
  The wave breaks

  %%kling --models v2.5-turbo-pro,v2.6-pro --sweep duration=5,10 --takes 2 --yes
  A paper boat in the rain

%kling lists what else there is: jobs, wait, show, history, compare, cost, …"""
