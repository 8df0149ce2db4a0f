"""Commands on saved videos: frames, export."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import settings
from ..core.errors import InvalidRequestError
from ..core.generation import Saved
from ..core.manifest import manifest
from . import _context, _exit_codes
from ._save import check_out, deliver, out_argument
from .generate import ID_HELP, from_record
from ._arguments import command as subcommand
from .history import submitted_at

if TYPE_CHECKING:
    from ..core.submission import Entry
    from ._console import Console


def add(commands: Any) -> None:
    frames = subcommand(commands, "frames", frames_, "a picture out of a video")
    frames.add_argument("id", metavar="ID", help=f"{ID_HELP}; or a video file")
    which = frames.add_mutually_exclusive_group()
    which.add_argument("--last", action="store_true", help="the last picture (default)")
    which.add_argument("--at", metavar="S", type=float, help="the picture at so many seconds")
    frames.add_argument(
        "-o", "--out", metavar="IMG", required=True, help="PNG, JPEG or WebP, by its ending"
    )

    export = subcommand(
        commands,
        "export",
        export_,
        "the video, and beside it a JSON file that tells how it was made",
    )
    export.add_argument("id", metavar="ID", help=ID_HELP)
    out_argument(export)


def frames_(args: argparse.Namespace, console: Console) -> int:
    from ..core import media

    check_out(args.out)
    source = Path(args.id).expanduser()
    if not source.is_file():
        _, saved, _ = _local(args, None, console, answer=False)
        source = saved.path
    picture = media.last_frame(source) if args.at is None else media.frame(source, args.at)
    target = Path(args.out).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        picture.save(target)
    except (ValueError, KeyError):  # an ending that Pillow does not know
        raise InvalidRequestError(
            f"{target.name} is no image name: it ends in .png, .jpg or .webp."
        ) from None
    console.say(str(target))
    console.result({"path": str(target), "width": picture.width, "height": picture.height})
    return _exit_codes.DONE


def export_(args: argparse.Namespace, console: Console) -> int:
    check_out(args.out)
    made, saved, entry = _local(args, args.out, console, answer=True)
    sidecar = saved.path.with_suffix(".json")
    told = dict(made)
    if entry:
        told |= {
            "prompt": entry.prompt,
            "request": entry.request,
            "created_at": submitted_at(entry),
        }
    part = sidecar.with_name(f".{sidecar.name}.part")
    part.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, sidecar)
    console.say(str(sidecar))
    console.result(told | {"sidecar": str(sidecar)})
    return _exit_codes.DONE


def _local(
    args: argparse.Namespace, out: str | None, console: Console, *, answer: bool
) -> tuple[dict[str, Any], Saved, Entry | None]:
    """The manifest, the file (fetched where it is not here yet) and the record of ``args.id``."""
    ledger = _context.readable_ledger(console)
    base_url = settings.base_url()
    generation_id, entry = _context.find(args.id, ledger, base_url)
    with _context.connect(args, ledger) as client:
        known = entry is not None and entry.saved_path is not None
        generation = from_record(entry) if entry and known else client.get(generation_id)
        prompt = entry.prompt if entry else None
        saved = deliver(client, ledger, generation, out, prompt, console, answer=answer)
        model = entry.record.model if entry else None
        return manifest(generation, base_url=base_url, model=model, saved=saved), saved, entry
