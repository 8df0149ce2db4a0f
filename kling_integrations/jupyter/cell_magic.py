"""``%%kling``: the flags of its line, the prompt of its body, and what comes of them."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..commands import (
    Parser,
    UsageError,
    dollars,
    generation_arguments,
    seconds,
)
from .cost_limits import check_cost, dry_run
from .display.live import JobView
from .frontend import print_line, print_notes
from .options import options
from .session import current
from .templating import fill
from .variants import Variant, plan, run_batch

NEW_PAYS = "--new is set: each run of this cell pays for another video."


def run(line: str, body: str, names: Mapping[str, Any]) -> Any:
    """Runs a cell; ``names`` are those that its code sees.

    Raises the error that a generation ended with; the variable holds its job.
    """
    args = parse(line, names)
    if args is None:
        return None
    variants, notes = plan(args, body, names)
    if args.dry_run:
        print_notes(notes)
        dry_run(args, variants)
        return None
    check_cost(args, variants)
    if args.new:
        print_notes([NEW_PAYS])
    if len(variants) == 1:
        return run_one(args, variants[0], notes)
    return run_batch(args, variants, body.strip(), notes)


def parse(line: str, names: Mapping[str, Any]) -> argparse.Namespace | None:
    """The flags of a cell, variables filled in; None when only help was asked for."""
    words = split(line)
    if "--raw" not in words:
        words = filled(words, names)
    parser = cell_parser()
    try:
        args = parser.parse_args(words)
    except SystemExit:  # -h has printed its help
        return None
    if args.model_word and args.model:
        raise UsageError(f"Two models: {args.model_word} and {args.model}.")
    args.model = args.model_word or args.model
    if args.model is None and not args.models:
        args.model = options().default_model or None
    if args.out and not args.out.isidentifier():
        raise UsageError(f"-o {args.out}: that is no name of a variable.")
    if args.takes < 1:
        raise UsageError(f"--takes {args.takes}: at least 1.")
    return args


def filled(words: Sequence[str], names: Mapping[str, Any]) -> list[str]:
    """Flag values as the prompt. The fields of a file name are filled once its id is known."""
    later = {key: "{" + key + "}" for key in ("slug", "id", "date", "take")}
    of_columns = words[:1] == ["batch"]  # those of its prompt may be columns: see table
    values, flag = [], ""
    for word in words:
        of_file = flag in ("-f", "--file") or word.startswith(("--file=", "-f{"))
        if of_columns and (flag == "--prompt" or word.startswith("--prompt=")):
            values.append(word)
        else:
            values.append(fill(word, {**later, **names} if of_file else names, f"{flag or word}"))
        flag = word if word.startswith("-") else ""
    return values


def run_one(args: argparse.Namespace, variant: Variant, notes: Sequence[str] = ()) -> Any:
    """Starts one generation, shows it and waits for it (not with ``--bg``).

    ``notes`` are shown once it is submitted, and are part of the error where it is refused. The
    variable holds the job while it runs, so that nothing is out of reach.
    """
    session = current()
    with session.interruptible() as jobs:
        job = session.start(
            variant.request,
            take=variant.take,
            new=args.new,
            file=args.file,
            overwrite=args.overwrite,
            timeout=args.timeout,
            jobs=jobs,
            is_within_limit=True,
        )
        session.notebook.assign(args.out, job)
        view = JobView(job, background=args.bg, embed=args.embed, width=args.width)
        if not args.quiet:
            view.begin()
        if args.bg:
            print_notes(notes)
            if view.in_text and not args.quiet:
                print_line(f"In the background: {job!r}; wait for it with: %kling wait")
            return None if args.out and not args.quiet else job
        session.wait(jobs, None if args.quiet else view.show_news, notes)
    video = job.result()
    session.notebook.assign(args.out, video)
    return video if args.quiet else None


def split(text: str) -> list[str]:
    """The words of a line as a shell splits them; on Windows a backslash is part of a path."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    if os.name == "nt":
        lexer.escape = ""
    try:
        return list(lexer)
    except ValueError as error:
        raise UsageError(
            f"The line cannot be read: {error}.",
            hint="Prose with quotes belongs into the lines below %%kling: the prompt.",
        ) from None


def cell_parser() -> Parser:
    """The grammar of ``%%kling``: the flags of ``kling generate``, and what only a cell has."""
    parser = Parser(
        prog="%%kling",
        usage="%(prog)s [MODEL] [flags]\nA prompt, in as many lines as it takes",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        stray="The prompt belongs into the lines below; text with blanks needs quotes.",
    )
    parser.add_argument(
        "model_word", metavar="MODEL", nargs="?", help="id or alias: v2.5-turbo/pro, v2.6-pro, o1"
    )
    generation_arguments(parser)
    add = parser.add_argument_group("result").add_argument
    add("-o", "--out", metavar="VAR", help="variable for the result (always also in _kling)")
    add("-f", "--file", metavar="PATH", help="MP4 or folder/; may use {slug} {id} {date} {take}")
    add("--overwrite", action="store_true", help="let -f replace a file that was not made here")
    add("-q", "--quiet", action="store_true", help="show nothing, return the result")
    add("--embed", choices=["auto", "always", "never"], help="the video's bytes in the notebook")
    add("--width", metavar="PX", type=int, help="width of the player")
    add = parser.add_argument_group("running").add_argument
    add("--bg", action="store_true", help="go on at once; VAR holds the job")
    add("--timeout", metavar="T", type=seconds, help="stop waiting after 90, 15m or 1h")
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
What is in braces and names a variable is filled in as in an f-string, in the body and in flag
values: {name}, {name.upper()}, {name[0]}, {x:.2f}. In a function its own variables come first; -o
sets one of the notebook. {{ and }} are braces; --raw takes all braces as they are.

examples:
  %%kling v2.5-turbo/pro -d 5 -a 16:9 -o clip
  A {animal} surfing a wave at dusk, slow dolly-in

  %%kling --image clip -o next            (goes on where clip ends; also arrays, figures, paths)
  The wave breaks

  %%kling --models v2.5-turbo-pro,v2.6-pro --sweep duration=5,10 --takes 2 --yes
  A paper boat in the rain

%kling lists what else there is: jobs, wait, show, history, compare, cost, …"""
