"""Where a video goes: names that are readable, harmless and unique."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ..errors import DownloadError, InvalidRequestError, NextStep, Verb
from . import safe_files
from .object_files import EXTRAS, is_address

_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+(?=:)", re.IGNORECASE)  # one letter is a Windows drive
_STORES = "|".join([*EXTRAS, "https?"])
_CUT_SHORT = re.compile(rf"({_STORES})(:/|//)", re.IGNORECASE)  # s3:/b/x, s3//b/x
# What is left of a missing value once it is text. A folder or a user may well be called "nan".
_MISSING = frozenset({"", "none", "nan", "nat", "null", "undefined", "<na>", "n/a"})
_MISSING_PARTS = frozenset({"None", "NaT", "<NA>", "undefined"})
_LONGEST_NAME = 255  # bytes of one part of a path
SEPARATORS = tuple(filter(None, ("/", os.sep, os.altsep)))  # a target that ends in one is a folder


def target_of(target: str | os.PathLike[str], *, any_scheme: bool = False) -> str:
    """Where a user wants something written: a local path, or an address in object storage.

    The one decision about what a target is. ``file:///data/x`` is ``/data/x``; a slash at the end,
    which means a folder, stays; nothing else is changed. ``object_files.is_address`` tells the
    two apart. Raises InvalidRequestError for what is neither: a link, an unknown scheme, an address
    that lost a slash (``s3//b/x``, and ``s3:/b/x`` as pathlib makes it), and what is left of a
    missing value (``None``, ``nan``, blank text). ``any_scheme`` is for callers with drivers of
    their own: only links are refused then.
    """
    text = _text_of(target)
    if text.strip().lower() in _MISSING or _MISSING_PARTS & {*re.split(r"[/\\]", text)}:
        raise _no_target(text, "it is what is left of a value that is missing")
    if text.strip() == "-":
        raise _no_target(text, "a file is not written to stdout")
    if is_address(text):
        if text.partition("://")[2][:1] in ("", "/"):
            raise _no_target(text, "it names no bucket")
        return text
    scheme = _SCHEME.match(text)
    if scheme and scheme[0].lower() == "file" and text[5:6] == "/":
        return _path_of(text)
    drivers = any_scheme and scheme and text.startswith("://", scheme.end())
    if drivers and scheme and scheme[0].lower() not in ("http", "https", "file"):
        return text
    if "://" in text:
        known = ", ".join(f"{each}://" for each in ("s3", "gs", "abfs", "file"))
        raise _no_target(text, f"files are written to paths and to {known}")
    if _CUT_SHORT.match(text):
        raise _no_target(text, "an address has :// after its scheme, and is given as text")
    return text


def local_target(target: str | os.PathLike[str]) -> str:
    """``target_of`` where only a disk will do: raises InvalidRequestError for an address, too."""
    text = target_of(target)
    if is_address(text):
        raise _no_target(
            text, "from here files are written to a disk; save them first and copy them there"
        )
    return text


def check_folder(folder: Path) -> None:
    """Raises InvalidRequestError where no file can be made in ``folder``, or it cannot be made.

    It is not made: the nearest one that is there has to be a folder that can be written.
    """
    _check_name(folder)
    nearest = folder.absolute()
    while not nearest.exists() and not nearest.is_symlink():
        nearest = nearest.parent  # it will be made when there is something to put into it
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise _no_target(str(folder), f"{nearest} is not a folder that can be written")


def check_file(file: Path) -> None:
    """``check_folder`` for the folder of a file; what is there already must be a file, too."""
    _check_name(file)
    check_folder(file.parent)
    safe_files.check_target(file)


def _check_name(path: Path) -> None:
    try:
        str(path).encode()  # bytes that are no UTF-8 cannot be written down
        if "\0" in str(path):
            raise ValueError("it holds a NUL character")
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
            raise ValueError("a name in it is too long")
    except UnicodeError:
        raise _no_target(ascii(str(path)), "it is no Unicode text") from None
    except ValueError as trouble:
        raise _no_target(str(path), str(trouble)) from None


def _text_of(target: object) -> str:
    if isinstance(target, str):
        return target
    # Paths in object stores are no files of the system; their text is the address.
    if isinstance(target, os.PathLike) or hasattr(target, "protocol"):
        return str(target)
    raise InvalidRequestError(
        f"A target is a path, not a {type(target).__name__}.",
        next_steps=[NextStep(Verb.SET_OUTPUT)],
    )


def _path_of(address: str) -> str:
    """The path of ``file:///data/x`` or ``file:/data/x``, taken literally as fsspec does."""
    host, slash, path = address[5:].removeprefix("//").partition("/")
    if not address.startswith("//", 5):
        host, path = "", address[6:]
    if host not in ("", "localhost") or not slash or not path:
        raise _no_target(address, "an address of a file has three slashes: file:///data/x")
    return path if re.match(r"[A-Za-z]:", path) else f"/{path}"


def _no_target(text: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{text[:200]!r} is no place for a file: {why}.",
        next_steps=[NextStep(Verb.SET_OUTPUT)],
    )


def resolve_target(
    target: str | os.PathLike[str] | None,
    *,
    file_name: str | None,
    generation_id: str,
    prompt: str | None = None,
) -> Path:
    """The file to save to, its folder made. ``target`` is a file or a folder.

    A folder is what exists as one or ends in a slash; None is the current one. In a folder, the
    server's ``file_name`` is made safe and distinguished from the same name of another generation
    by a short tag of ``generation_id``, so that the same generation always has the same name;
    without a ``file_name`` the ``prompt`` names the file. Raises DownloadError when the folder
    cannot be made, and for a target that is not on a disk (see ``local_target``).
    """
    try:
        named = local_target(target) if target is not None else "."
    except InvalidRequestError as refused:
        raise DownloadError(
            refused.message,
            generation_id=generation_id,
            hint="The video is kept.",
            next_steps=[NextStep(Verb.DOWNLOAD, generation_id)],
        ) from None
    folder = named.endswith(SEPARATORS)
    try:
        path = Path(named).expanduser()
        if folder or os.path.isdir(path):
            path = path / _file_name(file_name, generation_id, prompt)
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RuntimeError) as trouble:  # a NUL in the name, an unknown user
        raise DownloadError(
            f"The folder of {named!r} cannot be made: "
            f"{getattr(trouble, 'strerror', None) or trouble}.",
            generation_id=generation_id,
            hint="The video is kept.",
            next_steps=[NextStep(Verb.DOWNLOAD, generation_id)],
        ) from None
    return path


def _file_name(server_says: str | None, generation_id: str, prompt: str | None) -> str:
    fallback = default_file_name(prompt, generation_id)
    if not server_says or not server_says.strip():
        return fallback
    stem, suffix = os.path.splitext(safe_file_name(server_says, fallback))
    if suffix.lower() not in _SUFFIXES:
        suffix = ".mp4"  # whatever a server calls it, a video must not become a page or a script
    stem = stem.encode()[:200].decode(errors="ignore")  # names end at 255 bytes, not characters
    tag = tag_of(generation_id)
    return f"{stem}{suffix}" if stem.endswith(f"_{tag}") else f"{stem}_{tag}{suffix}"


def tag_of(generation_id: str) -> str:
    """What makes a file's name that of one generation: 64 bits of the id's SHA-256.

    Of 32 bits, among 65,000 videos of one prompt two would have the same name, two times in five.
    """
    return hashlib.sha256(generation_id.encode()).hexdigest()[:16]


def safe_file_name(name: str, fallback: str = "video.mp4") -> str:
    """Any text as one harmless file name: no folders, no leading dot or dash."""
    name = re.split(r"[/\\]", name.replace("\0", ""))[-1]
    name = re.sub(r"[^\w.()+ -]+", "_", name).strip(" .-_")
    stem, dot, suffix = name.rpartition(".")
    name = f"{stem[:100]}{dot}{suffix[:10]}" if dot else name[:100]
    reserved = {"con", "prn", "aux", "nul"}
    return fallback if not name or name.split(".")[0].lower() in reserved else name


def default_file_name(prompt: str | None, generation_id: str) -> str:
    """``a-white-raccoon-running_a248abc5d1e2f304.mp4``: readable, and unique by the id's hash."""
    slug = "-".join(re.findall(r"\w+", (prompt or "video").lower()))[:40].strip("-")
    return safe_file_name(f"{slug or 'video'}_{tag_of(generation_id)}.mp4")
