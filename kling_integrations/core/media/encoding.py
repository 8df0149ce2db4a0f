"""Pictures that are objects: encoded as PNG, and what they are known by.

The bytes of a PNG are what this zlib, this Pillow and this processor make of a picture; a request
is known by the picture itself: mode, size, pixels and colour profile. A frame of a video is known
by the video and the frame's moment, for no two versions of FFmpeg give it the same pixels.
Pillow, NumPy and matplotlib are imported only when the caller hands over something of theirs.
"""

from __future__ import annotations

import base64
import hashlib
import io
import pickle
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequestError, NextStep, Verb

if TYPE_CHECKING:
    from PIL.Image import Image

_MARK = "kling_integrations"  # in the ``info`` of a frame of a video
_MOST_DRAWINGS = 12  # of one figure, until it has come to rest
_PROTOCOL = 5


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture's PNG, as it is sent.

    ``identity`` is what it is known by, None for its bytes. ``earlier`` is what earlier
    releases sent for it and knew it by, None for the same.
    """

    data: bytes
    identity: str | None = None
    earlier: bytes | None = None


def encoded(value: Any) -> Encoded | None:
    """A PIL image, a figure, an object with a PNG for notebooks or an array; None for any other.

    Raises InvalidRequestError for an array that is no picture, and what the object raises.
    """
    if any(kind.__module__.partition(".")[0] == "PIL" for kind in type(value).__mro__):
        return _from_image(value)
    if callable(getattr(value, "savefig", None)):
        return _from_figure(value)
    if callable(getattr(value, "_repr_png_", None)):
        shown = value._repr_png_()
        shown = shown[0] if isinstance(shown, tuple) else shown  # with metadata
        data = base64.b64decode(shown) if isinstance(shown, str) else shown
        return None if data is None else Encoded(data, _identity_of_png(data))
    if hasattr(value, "__array__"):
        return _from_image(_from_array(value))
    return None


def as_frame(image: Image, identity: str, earlier: Image) -> Image:
    """The image, marked as the frame of a video that it is for as long as its pixels are these.

    ``earlier`` is the frame as earlier releases converted it.
    """
    image.info[_MARK] = {
        "identity": identity,
        "pixels": _identity(image),
        "earlier": None if earlier.tobytes() == image.tobytes() else earlier,
    }
    return image


def _from_image(image: Image) -> Encoded:
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = image.convert("RGB")  # CMYK, YCbCr, floats: what PNG or the gateway cannot hold
    data, pixels = _png(image), _identity(image)
    mark = image.info.get(_MARK)
    if mark is None or mark["pixels"] != pixels:
        return Encoded(data, pixels)
    earlier = mark["earlier"]
    return Encoded(data, mark["identity"], None if earlier is None else _png(earlier))


def _png(image: Image) -> bytes:
    picture = io.BytesIO()
    image.save(picture, "PNG")
    return picture.getvalue()


def _identity(image: Image) -> str:
    """Of what a PNG keeps of the image: nothing that depends on how it is compressed."""
    kept = image.convert("RGBA") if image.mode == "P" else image  # in any order of the colours
    see_through = image.info.get("transparency") if image.mode in ("1", "L", "RGB") else None
    profile = hashlib.sha256(image.info.get("icc_profile") or b"").hexdigest()
    digest = hashlib.sha256(f"{image.mode} {image.size} {see_through} {profile}\n".encode())
    digest.update(kept.tobytes())
    return f"picture sha256:{digest.hexdigest()}"


def _identity_of_png(data: bytes) -> str | None:
    """None where it cannot be opened: then it is known by its bytes."""
    with suppress(Exception):  # Pillow is not there, or whatever it raises about a picture
        from PIL import Image

        return _identity(Image.open(io.BytesIO(data)))
    return None


def _from_figure(figure: Any) -> Encoded:
    """The figure as it looks when drawing it once more changes nothing.

    Each drawing of a figure with a layout moves its axes, and the next one begins from there: most
    come to rest after a few, some go to and fro for ever between the same looks. Of those one is
    taken by a rule, so that it does not matter how often the figure was drawn before. All this is
    done to a copy: the caller's figure stays as it is.
    """
    figure = _copied(figure)
    looks: list[tuple[Any, str, bytes]] = []
    for data in _drawings(figure):
        identity = _identity_of_png(data) or hashlib.sha256(data).hexdigest()
        again = (_places(figure), identity)
        seen = [look[:2] for look in looks]
        if again in seen:
            looks_again = looks[seen.index(again) :]
            _, identity, chosen = min(looks_again, key=lambda look: look[1])
            return Encoded(chosen, identity, looks[0][2])
        looks.append((*again, data))
    return Encoded(looks[-1][2], looks[-1][1], looks[0][2])


def _drawings(figure: Any) -> Iterator[bytes]:
    for _ in range(_MOST_DRAWINGS):
        picture = io.BytesIO()
        # Without the version in it, as earlier releases did.
        figure.savefig(picture, format="png", metadata={"Software": None})
        yield picture.getvalue()


def _places(figure: Any) -> list[tuple[float, ...]]:
    """Where its axes are, to a hundredth of a pixel: what a drawing can move."""
    axes = getattr(getattr(figure, "figure", figure), "axes", ())
    return [tuple(round(x, 5) for x in each.get_position(original=True).bounds) for each in axes]


class _Copier(pickle.Pickler):
    """Copies a figure. Functions (of a formatter, say) are kept, and pyplot does not learn of it:
    it would show the copy."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, _PROTOCOL)
        self.kept: list[Any] = []

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, FunctionType):
            return None
        self.kept.append(obj)
        return len(self.kept) - 1

    def reducer_override(self, obj: Any) -> Any:
        if not hasattr(type(obj), "savefig"):
            return NotImplemented
        reduced = list(obj.__reduce_ex__(_PROTOCOL))
        if isinstance(reduced[2], dict):
            reduced[2] = {k: v for k, v in reduced[2].items() if k != "_restore_to_pylab"}
        return tuple(reduced)


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(file)
        self._kept = kept

    def persistent_load(self, pid: int) -> Any:
        return self._kept[pid]


def _copied(figure: Any) -> Any:
    """A copy of the figure, or the figure where it cannot be copied."""
    file = io.BytesIO()
    copier = _Copier(file)
    try:
        copier.dump(figure)
        return _Reader(io.BytesIO(file.getvalue()), copier.kept).load()
    except Exception:  # noqa: BLE001 (what a figure holds may be anything)
        return figure


def _from_array(value: Any) -> Image:
    import numpy as np

    pil = pillow()
    pixels = np.asarray(value)
    shape = "×".join(map(str, pixels.shape))
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)  # channels first, as tensors have them
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if (
        not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4)))
        or not pixels.size
    ):
        raise InvalidRequestError(
            f"an array of {shape} is no picture: height × width, with 3 or 4 channels or none."
        )
    if pixels.dtype.kind == "f":
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise InvalidRequestError("an array of floats must lie between 0 and 1.")
        pixels = (pixels * 255 + 0.5).astype(np.uint8)
    elif pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    elif pixels.dtype != np.uint8:
        raise InvalidRequestError(
            f"an array of {pixels.dtype} is no picture: uint8, or floats from 0 to 1."
        )
    image: Image = pil.fromarray(np.ascontiguousarray(pixels))
    return image


def pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise missing_package("Pillow") from None
    return Image


def missing_package(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"This needs {what}.", next_steps=[NextStep(Verb.INSTALL, detail="jupyter")]
    )
