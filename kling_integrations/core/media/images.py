"""Pictures in: what the gateway takes as an image.

An image travels as a URL that the gateway can open, or as a data URI; there is no upload. Nothing
is read from disk but what the caller named as an image.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from .. import catalog
from ..errors import InvalidRequestError, KlingError
from ..identity import Picture
from ..storage import object_files
from ..validation import is_missing_text
from .encoding import Encoded, encoded

_MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a model takes: MIME types (none: any), bytes, pixels per side, long : short side."""

    types: tuple[str, ...] = ()
    max_bytes: int = 50 * _MEGABYTE
    min_side: int = 0
    max_ratio: float | None = None


# No page states a limit for most models, but a request beyond this has never been seen to work.
GENERAL = ImageLimits()
# The pages of the v3 turbo image-to-video models.
TURBO = ImageLimits(types=("image/jpeg", "image/png"), min_side=300, max_ratio=2.5)


@cache
def limits_for(model_id: str) -> ImageLimits | None:
    """The documented limits of a model's images; None where the documentation names none."""
    known = catalog.candidates(model_id)
    if known and all(
        model.family == "v3" and "turbo" in (model.tier or "") and "image_url" in model.parameters
        for model in known
    ):
        return TURBO
    return None


def encode(value: Any, *, name: str, model_id: str | None) -> Picture:
    """``value`` for the gateway, held against the documented limits of the model, if any.

    Takes what ``image_url`` takes, and raises as it does.
    """
    picture = _picture(value, name)
    if model_id is not None:
        check_image(picture.url, name=name, limits=limits_for(model_id))
    return picture


def image_url(value: Any, *, name: str = "image") -> str:
    """``value`` as the gateway takes it: URL, data URI or base64.

    Takes an http(s) URL, a data URI or base64 text (sent as they are), the path of a file, the
    address of one in object storage (``s3://``, ``gs://``, ``abfs://``), bytes, a binary file,
    a PIL image, a matplotlib figure, an array (height × width [× channels], uint8 or floats from 0
    to 1), an object with ``last_frame()`` (an earlier result: the video goes on where that one
    ended) or with a PNG for notebooks. Raises InvalidRequestError, naming ``name``.
    """
    return _picture(value, name).url


def _picture(value: Any, name: str) -> Picture:
    if isinstance(value, str):
        if is_missing_text(value):
            raise InvalidRequestError(
                f"{name} is the text {value.strip()!r}, which is what is left of a missing value: "
                "give a picture, or leave it out."
            )
        return Picture(_from_text(value.strip(), name))
    if isinstance(value, bytes | bytearray | memoryview):
        return Picture(_data_uri(bytes(value), name))
    if isinstance(value, os.PathLike) and not is_remote_path(value):
        return Picture(_from_file(Path(value), name))
    try:
        data = _from_object(value)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"{name}: {error.message}", hint=error.hint, next_steps=error.next_steps
        ) from None
    except KlingError:
        raise
    except Exception as error:  # noqa: BLE001 - foreign objects fail in their own ways
        why = str(error) or type(error).__name__
        raise InvalidRequestError(
            f"{name}: no image comes out of this {type(value).__name__} ({why[:200]})."
        ) from None
    if isinstance(data, Encoded):
        earlier = _data_uri(data.earlier, name) if data.earlier else None
        return Picture(_data_uri(data.data, name), data.identity, earlier)
    if isinstance(data, bytes):
        return Picture(_data_uri(data, name))
    if data is not None:
        return _picture(data, name)
    raise InvalidRequestError(
        f"{name} cannot be a {type(value).__name__}: give a path, URL, bytes, PIL image, array "
        "or figure."
    )


def check_image(
    data: str | bytes, *, name: str = "image", limits: ImageLimits | None = None
) -> None:
    """Hold an image (bytes, data URI or base64) against ``limits``; URLs are left to the gateway.

    Size, type and pixels are read from the header. What cannot be read passes: the gateway may
    know more. Raises InvalidRequestError in a sentence that says what is allowed.
    """
    limits = limits or GENERAL
    if isinstance(data, str):
        if re.match(r"https?://", data, re.IGNORECASE):
            return
        declared, data = decoded(data, name)
    else:
        declared = None
    if len(data) > limits.max_bytes:
        raise _too_large(name, len(data), limits)
    kind = image_type(data) or declared
    if limits.types and kind and kind not in limits.types:
        allowed = " or ".join(one.removeprefix("image/").upper() for one in limits.types)
        raise InvalidRequestError(f"{name} is {kind}; this model takes {allowed}.")
    size = image_size(data)
    if size is None:
        return
    width, height = size
    if min(size) < limits.min_side:
        raise InvalidRequestError(
            f"{name} has {width} × {height} pixels; this model takes at least "
            f"{limits.min_side} on each side."
        )
    if limits.max_ratio and max(size) > limits.max_ratio * min(size):
        raise InvalidRequestError(
            f"{name} has {width} × {height} pixels; this model takes ratios from "
            f"1:{limits.max_ratio:g} to {limits.max_ratio:g}:1."
        )


def image_type(data: bytes) -> str | None:
    """The MIME type by the first bytes; None when it is no image that the gateway could know."""
    for mark, kind in _MARKS:
        if data.startswith(mark):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _DIB_HEADERS:
        return "image/bmp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return None


# The sizes that the second header of a BMP can have: two letters alone could begin any text.
_DIB_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_MARKS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"),
    **dict.fromkeys((b"mif1", b"msf1"), "image/heif"),
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
}


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels from the header (PNG, JPEG, WebP, GIF, BMP), else None."""
    kind = image_type(data)
    if kind == "image/png" and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if kind == "image/gif" and len(data) >= 10:
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if kind == "image/bmp" and len(data) >= 26:
        height = int.from_bytes(data[22:26], "little", signed=True)  # negative: top row first
        return int.from_bytes(data[18:22], "little"), abs(height)
    if kind == "image/webp" and len(data) >= 30:
        return _webp_size(data)
    if kind == "image/jpeg":
        return _jpeg_size(data)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """RFC 9649: lossy, lossless and extended files keep the size in three ways."""
    form = data[12:16]
    if form == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") for at in (26, 28))
        return width & 0x3FFF, height & 0x3FFF
    if form == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return width + 1, height + 1
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """ITU T.81, annex B: segments up to a start of frame, which holds height and width."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[i : i + 2], "big") for i in (at + 5, at + 7))
            return (width, height) if height else None
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these stand alone
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _from_text(text: str, name: str) -> str:
    scheme = re.match(r"([a-z][a-z0-9+.-]+):", text, re.IGNORECASE)
    known = scheme[1].lower() if scheme else ""
    if known in ("http", "https"):
        try:
            reachable = bool(urlsplit(text).hostname)
        except ValueError:
            reachable = False
        if not reachable:
            raise InvalidRequestError(f"{name} is not a URL that can be opened.")
        return text
    if known == "data":
        return text
    if known == "file":
        return _from_file(Path(url2pathname(urlsplit(text).path)), name)
    if object_files.is_address(text):
        return _from_store(text, name)
    if scheme and "://" in text:
        raise InvalidRequestError(
            f"{name} is at {known}://, which the gateway cannot open: give an https URL, a "
            "file, or an object of S3, Google Cloud Storage or Azure."
        )
    if not text:
        raise InvalidRequestError(f"{name} is empty: give a path, a URL or base64.")
    if plain := _plain_base64(text):
        return plain
    return _from_file(Path(text), name)


def _plain_base64(text: str) -> str | None:
    """``text`` without line breaks if it is the base64 of an image: no file has such a name."""
    if len(text) < 64:
        return None
    plain = re.sub(r"\s+", "", text)
    try:
        return plain if image_type(base64.b64decode(plain, validate=True)) else None
    except (binascii.Error, ValueError):
        return None


def _from_file(path: Path, name: str) -> str:
    try:
        path = path.expanduser()
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise InvalidRequestError(f"{name}: {path} is a folder, not an image.")
        if not stat.S_ISREG(about.st_mode):
            raise InvalidRequestError(f"{name}: {path} is not a regular file.")
        if about.st_size > GENERAL.max_bytes:
            raise _too_large(name, about.st_size, GENERAL)
        data = path.read_bytes()
    except FileNotFoundError:
        raise InvalidRequestError(f"{name}: no such file: {shortened(path)}") from None
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, an unknown user
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidRequestError(
            f"{name}: {shortened(path)} cannot be read as a file ({why})."
        ) from None
    return _data_uri(data, name, str(path))


def _from_store(address: str, name: str) -> str:
    try:
        data = object_files.read(address, most=GENERAL.max_bytes)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{name}: {error.message}") from None
    return _data_uri(data, name, address)


def shortened(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:80]}… ({len(text):,} characters)"


def _data_uri(data: bytes, name: str, what: str = "it") -> str:
    if not data:
        raise InvalidRequestError(f"{name}: {what} is empty.")
    kind = image_type(data)
    if kind is None:
        raise InvalidRequestError(f"{name}: {what} is not an image (PNG, JPEG, WebP and the like).")
    if len(data) > GENERAL.max_bytes:
        raise _too_large(name, len(data), GENERAL)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _too_large(name: str, size: int, limits: ImageLimits) -> InvalidRequestError:
    return InvalidRequestError(
        f"{name} has {size / _MEGABYTE:.1f} MB; at most {limits.max_bytes / _MEGABYTE:g} MB can be "
        "sent."
    )


def decoded(text: str, name: str) -> tuple[str | None, bytes]:
    """MIME type and content of a data URI or of base64."""
    declared, body = None, text
    if text[:5].lower() == "data:":
        head, _, body = text[5:].partition(",")
        declared = head.partition(";")[0].strip().lower().replace("/jpg", "/jpeg") or None
        if not head.lower().endswith(";base64"):
            return declared, body.encode()
        body = unquote(body)
    plain = re.sub(r"\s+", "", body).translate(_URL_SAFE).rstrip("=")
    try:
        return declared, base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestError(f"{name} is not valid base64.") from None


_URL_SAFE = str.maketrans("-_", "+/")


def is_remote_path(value: Any) -> bool:
    """Path objects of object stores are os.PathLike too, and only read by their own methods.

    Those of universal_pathlib before 0.3, which Airflow 3.0 has, are even a ``pathlib.Path``.
    """
    if isinstance(value, Path):
        return getattr(value, "protocol", "") not in ("", "file", "local")
    return hasattr(value, "read_bytes")


def _from_object(value: Any) -> Any:
    """A picture that was encoded, bytes of one, something else that is one, or None.

    Raises what the object raises.
    """
    if callable(getattr(value, "last_frame", None)):
        return value.last_frame()
    if (picture := encoded(value)) is not None:
        return picture
    for method in ("read_bytes", "read"):
        if callable(getattr(value, method, None)):
            data = getattr(value, method)()
            if not isinstance(data, bytes):
                raise InvalidRequestError("a file must be opened in binary mode.")
            return data
    return None
