"""``kling contact-sheet``: one picture of a batch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._arguments import add_command, count, overwrite_argument
from ._exit_codes import DONE
from ._target import path_of

if TYPE_CHECKING:
    from ._console import Console


def add(commands: Any) -> None:
    """Adds the command to the grammar."""
    parser = add_command(
        commands, "contact-sheet", _run, "one picture of the videos of a batch, a tile for each row"
    )
    parser.add_argument("results", metavar="RESULTS", help="the results of a batch")
    parser.add_argument("-o", "--out", metavar="FILE", help="a .jpg or .png (default: RESULTS.jpg)")
    parser.add_argument("--columns", metavar="N", type=count, help="pictures in a line")
    overwrite_argument(parser)


def _run(args: argparse.Namespace, console: Console) -> int:
    from ..core.batch import sheet
    from ..core.storage import tables

    target = path_of(args.out) if args.out else Path(args.results).expanduser().with_suffix(".jpg")
    rows = tables.at(args.results).records
    made = sheet.make(rows, target, columns=args.columns, overwrite=args.overwrite)
    console.note(f"{len(rows)} rows, {made.width}×{made.height}:")
    console.say(str(target))
    console.result({"path": str(target), "rows": len(rows)})
    return DONE
