"""Files wherever ``ObjectStoragePath`` reaches: the worker's disk, S3, GCS, Azure and others.

A video is downloaded onto the worker first. Its target is either untouched or whole: locally the
core's download ensures that; in a store the video goes up under a temporary name, is compared in
size and then renamed.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from ..core.errors import DownloadError, NextStep, Verb
from ..core.storage.file_names import default_file_name

if TYPE_CHECKING:
    from ..core.generation import Generation, Saved
    from ..core.http.client import KlingClient


def save_video(
    client: KlingClient, generation: Generation, output_path: str, prompt: str | None = None
) -> tuple[str, Saved]:
    """Saves the video; returns where (a path for local files, else a URI) and what.

    ``output_path``: a path, or a URI that ObjectStoragePath reads (``file://``, ``s3://conn@…``,
    ``gs://``, ``abfs://``); one that ends in a slash is a folder. Raises DownloadError.
    """
    target = _target(output_path, generation)
    is_folder = output_path.endswith("/")
    local = local_path(target)
    if local is not None:
        saved = client.save(generation, f"{local}/" if is_folder else local, prompt=prompt)
        return str(saved.path), saved
    if is_folder:
        target = target / default_file_name(prompt, generation.id)
    with tempfile.TemporaryDirectory(prefix="kling-") as folder:
        saved = client.save(generation, Path(folder) / "video.mp4")
        try:
            _upload(saved, target)
        except Exception as error:
            raise _not_saved(f"{target} cannot be written ({_text(error)})", generation) from error
    return str(target), saved


def local_path(target: Any) -> Path | None:
    """The path of a ``file://`` target, or of a plain one; None for a store."""
    return Path(target.path) if target.protocol in ("file", "local", "") else None


def file_uri(path: str) -> str:
    """The address of a saved file, as an asset names it."""
    return path if "://" in path else Path(path).absolute().as_uri()


def open_file(address: str) -> Any:
    """A file in any store, to be read; seeks. Raises what its driver raises."""
    return ObjectStoragePath(address).open("rb")  # type: ignore[no-untyped-call]


def read_file(address: str) -> bytes:
    """The bytes of a file in any store. Raises what its driver raises."""
    with open_file(address) as stream:
        data: bytes = stream.read()
    return data


def _target(output_path: str, generation: Generation) -> Any:
    try:
        return ObjectStoragePath(output_path)
    except Exception as error:
        raise _not_saved(f"{output_path!r} is no path ({_text(error)})", generation) from error


def _upload(saved: Saved, target: Any) -> None:
    part = target.parent / f".{target.name}.{saved.sha256[:8]}.part"
    # Stores without folders accept this and do nothing; where it is refused, writing reports why.
    with contextlib.suppress(Exception):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with saved.path.open("rb") as source, part.open("wb") as sink:
            shutil.copyfileobj(source, sink, 2**20)
        arrived = target.fs.info(part.path)["size"]
        if arrived != saved.size:
            raise OSError(f"{arrived} of {saved.size} bytes arrived")
        target.fs.mv(part.path, target.path)
    except BaseException:
        with contextlib.suppress(Exception):
            target.fs.rm(part.path)
        raise


def _not_saved(reason: str, generation: Generation) -> DownloadError:
    return DownloadError(
        f"The video was not saved: {reason}.",
        generation_id=generation.id,
        hint="The video is paid for and kept.",
        next_steps=[NextStep(Verb.DOWNLOAD, generation.id), NextStep(Verb.SET_OUTPUT)],
    )


def _text(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
