"""``kling frames`` and ``kling export``: what can be made of a saved video."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import settings
from ..core.errors import InvalidRequestError
from ..core.manifest import manifest
from ..core.storage import safe_files
from ._arguments import ID_HELP, add_command, output_argument, overwrite_argument
from ._exit_codes import DONE
from ._save import local_video
from ._target import check_output, path_of, refused
from ._text import iso_time

if TYPE_CHECKING:
    from PIL.Image import Image

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
    overwrite_argument(frames)

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
    target = path_of(args.out)
    data = _encoded(picture, target.name)
    if not _holds(target, data):
        if safe_files.is_foreign(target) and not args.overwrite:
            raise refused(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        safe_files.write(target, data)
    console.say(str(target))
    console.result({"path": str(target), "width": picture.width, "height": picture.height})
    return DONE


def _encoded(picture: Image, name: str) -> bytes:
    """The picture as a file of the kind that the name's ending says."""
    from PIL import Image

    kind = Image.registered_extensions().get(Path(name).suffix.lower(), "")
    buffer = io.BytesIO()
    try:
        picture.save(buffer, kind)
    except (ValueError, KeyError, OSError):  # an ending that Pillow does not know or cannot write
        raise InvalidRequestError(
            f"{name} does not name an image: it ends in .png, .jpg or .webp."
        ) from None
    return buffer.getvalue()


def _holds(target: Path, data: bytes) -> bool:
    """Whether the file is there already, as it would be written."""
    return target.is_file() and not target.is_symlink() and target.read_bytes() == data


def _run_export(args: argparse.Namespace, console: Console) -> int:
    check_output(args.out)
    generation, saved, entry = local_video(
        args.id, console, output=args.out, answer=True, overwrite=args.overwrite
    )
    model = entry.record.model if entry else None
    story = manifest(generation, base_url=settings.base_url(), model=model, saved=saved)
    if entry:
        story |= {
            "prompt": entry.prompt,
            "request": entry.request,
            "created_at": iso_time(entry.since),
        }
    sidecar = saved.path.with_name(f"{saved.path.name}.json")
    if safe_files.is_foreign(sidecar) and not args.overwrite and not _is_sidecar(sidecar):
        raise refused(sidecar)
    text = json.dumps(story, indent=2, ensure_ascii=False) + "\n"
    safe_files.write(sidecar, text.encode())
    console.say(str(sidecar))
    console.result(story | {"sidecar": str(sidecar)})
    return DONE


def _is_sidecar(file: Path) -> bool:
    """Whether an earlier export wrote this file."""
    try:
        story = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(story, dict) and {"generation_id", "status", "sha256"} <= story.keys()
