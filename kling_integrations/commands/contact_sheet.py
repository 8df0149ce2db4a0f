"""``kling contact-sheet``: one picture of a batch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidRequestError
from ._arguments import add_command, count, overwrite_argument
from ._exit_codes import DONE
from ._target import refused

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
    from ..core.batch.sheet import tiles
    from ..core.media.contact_sheet import contact_sheet, jpeg
    from ..core.storage import safe_files, tables

    source = Path(args.results).expanduser()
    target = Path(args.out).expanduser() if args.out else source.with_suffix(".jpg")
    if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise InvalidRequestError(f"A contact sheet is a .jpg or a .png, not {target.name!r}.")
    if safe_files.is_foreign(target) and not args.overwrite:
        raise refused(target)
    rows = tables.read(source).records
    sheet = contact_sheet(tiles(rows), columns=args.columns)
    if target.suffix.lower() == ".png":
        with safe_files.whole_file(target) as file:
            sheet.save(file, "PNG")
    else:
        safe_files.write(target, jpeg(sheet))
    console.note(f"{len(rows)} rows, {sheet.width}×{sheet.height}:")
    console.say(str(target))
    console.result({"path": str(target), "rows": len(rows)})
    return DONE
