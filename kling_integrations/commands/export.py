"""``kling frames`` and ``kling export``: what can be made of a saved video."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import settings
from ..core.errors import InvalidRequestError
from ..core.manifest import manifest
from ._arguments import ID_HELP, add_command, output_argument
from ._exit_codes import DONE
from ._save import check_output, local_video
from ._text import iso_time

if TYPE_CHECKING:
    from ._console import Console


def add(commands: Any) -> None:
    """Adds both commands to the grammar."""
    frames = add_command(commands, "frames", _run_frames, "a picture out of a video")
    frames.add_argument("id", metavar="ID", help=f"{ID_HELP}; or a video file")
    which = frames.add_mutually_exclusive_group()
    which.add_argument("--last", action="store_true", help="the last picture (default)")
    which.add_argument("--at", metavar="S", type=float, help="the picture at so many seconds")
    frames.add_argument(
        "-o", "--out", metavar="IMG", required=True, help="PNG, JPEG or WebP, by its ending"
    )

    export = add_command(
        commands,
        "export",
        _run_export,
        "the video, and beside it a JSON file that describes how it was made",
    )
    export.add_argument("id", metavar="ID", help=ID_HELP)
    output_argument(export)


def _run_frames(args: argparse.Namespace, console: Console) -> int:
    from ..core import media

    check_output(args.out)
    source = Path(args.id).expanduser()
    if not source.is_file():
        _, saved, _ = local_video(args.id, console, answer=False)
        source = saved.path
    picture = media.last_frame(source) if args.at is None else media.frame(source, args.at)
    target = Path(args.out).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        picture.save(target)
    except (ValueError, KeyError):  # an ending that Pillow does not know
        raise InvalidRequestError(
            f"{target.name} does not name an image: it ends in .png, .jpg or .webp."
        ) from None
    console.say(str(target))
    console.result({"path": str(target), "width": picture.width, "height": picture.height})
    return DONE


def _run_export(args: argparse.Namespace, console: Console) -> int:
    check_output(args.out)
    generation, saved, entry = local_video(args.id, console, output=args.out, answer=True)
    model = entry.record.model if entry else None
    story = manifest(generation, base_url=settings.base_url(), model=model, saved=saved)
    if entry:
        story |= {
            "prompt": entry.prompt,
            "request": entry.request,
            "created_at": iso_time(entry.since),
        }
    sidecar = saved.path.with_suffix(".json")
    part = sidecar.with_name(f".{sidecar.name}.part")
    part.write_text(json.dumps(story, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, sidecar)
    console.say(str(sidecar))
    console.result(story | {"sidecar": str(sidecar)})
    return DONE
