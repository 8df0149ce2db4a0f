"""Landing a video: onto the worker first, then wherever ``ObjectStoragePath`` reaches.

The target is either untouched or whole. Locally the core's download sees to that; in a store
the video goes up under a temporary name, is compared in size and then renamed.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from ..core.errors import DownloadError, command
from ..core.generation import Generation
from ..core.storage.file_names import default_file_name, resolve_target

if TYPE_CHECKING:
    from ..core.generation import Saved

Save = Callable[[Generation, Path], "Saved"]


def land(
    save: Save, generation: Generation, output_path: str, prompt: str | None = None
) -> tuple[str, Saved]:
    """Saves the video; returns where (a path for local files, else a URI) and what.

    ``output_path``: a path, or a URI that ObjectStoragePath reads (``file://``, ``s3://conn@…``,
    ``gs://``, ``abfs://``); one that ends in a slash is a folder. Raises DownloadError.
    """
    target = _target(output_path, generation)
    local = local_path(target)
    if local is not None:
        said = generation.video.file_name if generation.video else None
        folder = f"{local}/" if str(output_path).endswith("/") else local
        path = resolve_target(folder, file_name=said, generation_id=generation.id, prompt=prompt)
        saved = save(generation, path)
        return str(saved.path), saved
    if str(output_path).endswith("/"):
        target = target / default_file_name(prompt, generation.id)
    with tempfile.TemporaryDirectory(prefix="kling-") as folder_name:
        saved = save(generation, Path(folder_name) / "video.mp4")
        try:
            _upload(saved, target)
        except DownloadError:
            raise
        except Exception as error:
            raise _failed(f"{target} cannot be written ({_words(error)})", generation) from error
    return str(target), saved


def local_path(target: Any) -> Path | None:
    """The path of a ``file://`` target, or of a plain one; None for a store."""
    return Path(target.path) if target.protocol in ("file", "local", "") else None


def uri(path: str) -> str:
    """The address of a landed file, as an asset names it."""
    return path if "://" in path else Path(path).absolute().as_uri()


def read(address: str) -> bytes:
    """The bytes of a file in any store."""
    with ObjectStoragePath(address).open("rb") as stream:  # type: ignore[no-untyped-call]
        data: bytes = stream.read()
    return data


def _target(output_path: str, generation: Generation) -> Any:
    try:
        return ObjectStoragePath(output_path)
    except Exception as error:
        raise _failed(f"{output_path!r} is no path ({_words(error)})", generation) from error


def _upload(saved: Saved, target: Any) -> None:
    parts = target.parent / f".{target.name}.{saved.sha256[:8]}.part"
    # Stores without folders accept this and do nothing; some refuse it, and then writing tells.
    with contextlib.suppress(Exception):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with saved.path.open("rb") as source, parts.open("wb") as sink:
            shutil.copyfileobj(source, sink, 2**20)
        arrived = target.fs.info(parts.path)["size"]
        if arrived != saved.size:
            raise OSError(f"{arrived} of {saved.size} bytes arrived")
        target.fs.mv(parts.path, target.path)
    except BaseException:
        with contextlib.suppress(Exception):
            target.fs.rm(parts.path)
        raise


def _failed(reason: str, generation: Generation) -> DownloadError:
    return DownloadError(
        f"The video was not saved: {reason}.",
        generation_id=generation.id,
        hint=f"It is paid for and kept: {command('download', generation.id)}",
    )


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
