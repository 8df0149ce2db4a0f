"""Files wherever ``ObjectStoragePath`` reaches: the worker's disk, S3, GCS, Azure and others.

A video is downloaded onto the worker first. Its target is either untouched or whole: locally the
core's download ensures that; an object appears under its name once its upload is complete; and
where a store is a file system behind a wire (SFTP, HDFS), the upload is renamed. What can be known
of a target before anything is paid is looked at then, by ``check_target``.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.spec import AbstractFileSystem

from ..core.errors import DownloadError, InvalidRequestError, KlingError, NextStep, Verb
from ..core.storage.file_names import check_file, check_folder, default_file_name, target_of
from ..core.storage.object_files import EXTRAS, is_address

if TYPE_CHECKING:
    from ..core.generation import Generation, Saved
    from ..core.http.client import KlingClient


def given_path(value: Any) -> str | None:
    """The text of a path or address; None where nothing is given, or a template made nothing."""
    text = "" if value is None else str(value)
    return text if text.strip() else None


def check_target(path: Any, argument: str = "output_path") -> None:
    """What can be known of a target before anything is paid: nothing is written by looking.

    Raises InvalidRequestError for a text that is no place for a file (``None``, ``s3//…``, a link),
    a relative path, a folder that cannot be written, a scheme without its driver and a bucket that
    does not exist; KlingError for a store that is out of reach at this moment.
    """
    text = given_path(path)
    if text is None:
        return
    try:
        target = opened(text)
        local = local_path(target)
        if local is not None:
            (check_folder if text.endswith("/") else check_file)(local.expanduser())
        elif is_address(text):
            _check_bucket(text, target)
    except KlingError as error:
        error.message = f"{argument}: {error.message} Nothing was submitted."
        raise


def absolute(address: str) -> str:
    """The address, or the path of a local file, which is the same place on every worker.

    Raises InvalidRequestError for a relative path, and for a text that is no place for a file.
    """
    text = target_of(address, any_scheme=True)
    if not _SCHEME.match(text) and not Path(text).expanduser().is_absolute():
        raise InvalidRequestError(
            f"{address!r} is a relative path: it would mean another place on each worker. Give the "
            f"whole path ({Path(text).absolute()} here), or an address (s3://…, file:///…).",
            next_steps=[NextStep(Verb.SET_OUTPUT)],
        )
    return text


def opened(address: str) -> Any:
    """A path or address as ObjectStoragePath, its driver there.

    Raises InvalidRequestError for what cannot be one on any worker.
    """
    text = absolute(address)
    try:
        # By the address as it was given: of "file:///x" the scheme is the driver's matter.
        target = ObjectStoragePath(address if "://" in address else text)
        target.fs  # noqa: B018 (that is where the driver is looked for)
    except Exception as error:
        raise InvalidRequestError(
            f"{address!r} cannot be opened ({in_words(error)}).",
            next_steps=[NextStep(Verb.SET_OUTPUT)],
        ) from error
    return target


def _check_bucket(address: str, target: Any) -> None:
    """Credentials that may only write are none that can look: then writing has to tell."""
    bucket = target.path.lstrip("/").partition("/")[0]
    try:
        target.fs.info(bucket)
    except FileNotFoundError:
        raise InvalidRequestError(
            f"{address!r}: there is no bucket {bucket!r}.", next_steps=[NextStep(Verb.SET_OUTPUT)]
        ) from None
    except Exception as error:
        if not isinstance(error, NotImplementedError) and not _is_denied(error):
            raise KlingError(f"{address!r} cannot be reached ({in_words(error)}).") from error


def _is_denied(error: BaseException) -> bool:
    return isinstance(error, PermissionError) or bool(_DENIED.search(str(error)))


_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DENIED = re.compile(r"\b403\b|forbidden|denied|authoriz|permission", re.IGNORECASE)


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
        name = default_file_name(prompt, generation.id)
        target = opened(f"{output_path}{name}")
    with tempfile.TemporaryDirectory(prefix="kling-") as folder:
        saved = client.save(generation, Path(folder) / "video.mp4")
        try:
            _upload(saved, target)
        except Exception as error:
            why = f"{target} cannot be written ({in_words(error)})"
            raise _not_saved(why, generation) from error
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
        return opened(output_path)
    except KlingError as error:
        raise _not_saved(error.message.removesuffix("."), generation) from error


def _upload(saved: Saved, target: Any) -> None:
    upload(saved.path, saved.size, target)


def upload(file: Path, size: int, target: Any) -> None:
    """Puts a local file of ``size`` bytes at an ObjectStoragePath in a store, whole or not at all.

    Raises what the driver raises, and OSError where something else than the file arrived.
    """
    if not is_address(f"{target.protocol}://") and _renames(target.fs):
        _upload_and_rename(file, size, target)
        return
    # Names, never patterns. An object needs no temporary name, no folder, and no right but to put.
    target.fs.put_file(str(file), target.path)
    _look(target.fs, target.path, size)


def _renames(filesystem: Any) -> bool:
    """Whether it has a rename of its own, as file systems have and object stores do not."""
    return type(filesystem).mv is not AbstractFileSystem.mv


def _upload_and_rename(file: Path, size: int, target: Any) -> None:
    # As text: a parent of UPath may read signs of the name as its own.
    folder, _, name = target.path.rpartition("/")
    part = f"{folder}/.{name}.{size}.part"
    with contextlib.suppress(Exception):  # where it is refused, writing reports why
        target.fs.makedirs(folder, exist_ok=True)
    try:
        with file.open("rb") as source, target.fs.open(part, "wb") as sink:
            shutil.copyfileobj(source, sink, 2**20)
        _look(target.fs, part, size)
        target.fs.mv(part, target.path)
    except BaseException:
        with contextlib.suppress(Exception):
            target.fs.rm_file(part)
        raise


def _look(filesystem: Any, path: str, size: int) -> None:
    """What is said to be there is looked at, where the credentials allow a look."""
    try:
        filesystem.invalidate_cache()
        arrived = filesystem.info(path)["size"]
    except FileNotFoundError:
        raise
    except Exception as error:
        if _is_denied(error):
            return
        raise
    if arrived is not None and arrived != size:
        raise OSError(f"{arrived} of {size} bytes arrived")


def _not_saved(reason: str, generation: Generation) -> DownloadError:
    return DownloadError(
        f"The video was not saved: {reason}.",
        generation_id=generation.id,
        hint="The video is paid for and kept.",
        next_steps=[NextStep(Verb.DOWNLOAD, generation.id), NextStep(Verb.SET_OUTPUT)],
    )


_PROVIDERS = {"s3": "amazon", "gcs": "google", "azure": "microsoft-azure"}


def in_words(error: BaseException) -> str:
    """What a driver raised, in one line; a driver that is missing by the provider that has it."""
    found = re.search(r"No filesystem registered for scheme (\w+)", str(error))
    if found and found[1] in EXTRAS:
        provider = _PROVIDERS[EXTRAS[found[1]]]
        return f"{found[0]}: apache-airflow-providers-{provider} brings it"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
