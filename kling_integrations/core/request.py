"""VideoRequest: what to generate. Payload and fingerprint, made before anything is sent."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from . import catalog, encode_image, identity, values
from .catalog import Model
from .errors import InvalidRequestError
from .generation import without_query
from .identity import Picture
from .validation import (
    check_prompt,
    check_reachable,
    checked,
    is_missing_text,
    warn,
    without_warnings,
)

# Parameters (at any depth) whose strings are pictures: a path or an object becomes a data URI.
_IMAGE_NAMES = frozenset(
    {
        "image_url",
        "tail_image_url",
        "last_image_url",
        "static_mask",
        "image_list",
        "image_urls",
        "reference_image_urls",
        "frontal_image_url",
        "mask",
    }
)


_LONGEST_TAG = 60  # characters

RESERVED = frozenset(
    {
        "elapsed",
        "file",
        "ledger",
        "max_cost",
        "max_cost_usd",
        "new",
        "on_update",
        "out",
        "overwrite",
        "poll_interval",
        "schedule",
        "take",
        "timeout",
    }
)
"""Words of the verbs: as parameters of a request they would be sent, and paid for."""


_DEEPEST = 50  # levels; documented requests have three


class VideoRequest:
    """One video to generate, checked against the documentation when it is made.

    ``model`` is an id or an alias (``"v2.5-turbo-pro"``; an image makes it image-to-video).
    ``duration`` is in seconds, ``"5"`` and ``5`` are the same. ``image`` and ``tail_image`` (first
    and last frame) take a URL, path, bytes, PIL image, NumPy array or matplotlib figure; local
    ones travel as data URIs. ``audio`` is the gateway's ``generate_audio``. Any other parameter
    goes by the gateway's own name (``shot_type="intelligent"``); ``extra`` is sent unchecked.

    Raises InvalidRequestError, before anything is sent, for a value that the documentation
    excludes. An unknown model or parameter goes through with one KlingWarning.

    ``tag`` is a word of your own for the history. It is not sent, and does not make it another
    request.
    """

    __slots__ = ("_fingerprints", "_known", "_payload", "tag")

    def __init__(
        self,
        /,  # so that a parameter may have any name
        *,
        model: str = catalog.DEFAULT_MODEL,
        prompt: str | None = None,
        duration: int | str | None = None,
        aspect_ratio: str | None = None,
        negative_prompt: str | None = None,
        cfg_scale: float | None = None,
        image: Any = None,
        tail_image: Any = None,
        audio: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        tag: str | None = None,
        **parameters: Any,
    ) -> None:
        self.tag = _checked_tag(tag)
        named = {
            "prompt": prompt,
            "duration": duration,
            "aspect_ratio": aspect_ratio,
            "negative_prompt": negative_prompt,
            "cfg_scale": cfg_scale,
            "image_url": image,
            "generate_audio": audio,
            **parameters,
        }
        if reserved := sorted(RESERVED & parameters.keys()):
            raise InvalidRequestError(
                f"{reserved[0]} is no parameter of a video: it belongs to the call that submits."
            )
        given = {name: value for name, value in named.items() if value is not None}
        if not isinstance(model, str) or not model.strip() or is_missing_text(model):
            raise InvalidRequestError("The model is missing: name one, for example v2.5-turbo-pro.")
        inputs = [*given, "tail_image_url"] if tail_image is not None else [*given]
        try:
            self._known = catalog.find(model, inputs)
        except ValueError as error:
            raise InvalidRequestError(str(error)) from None
        if tail_image is not None:
            given[_tail_name(self._known)] = tail_image
        if self._known is None:
            warn(
                f"The model {model!r} is not in the catalogue; it is sent as it is."
                f"{catalog.did_you_mean(model)}"
            )
        elif self._known.output != "video":
            raise InvalidRequestError(
                f"{self._known.id} makes images, synchronously, at another address "
                "(/v1/images/generations): this package makes videos."
            )
        elif (
            given.get("generate_audio") is False and "generate_audio" not in self._known.parameters
        ):
            del given["generate_audio"]  # there is no audio to turn off
        own = _mapping(extra)
        pictures: dict[str, Picture] = {}
        model_id = self._known.id if self._known else None
        given = {n: _with_images(each, model_id, pictures, n) for n, each in given.items()}
        sent = model
        if self._known and model not in (self._known.id, *self._known.spellings):
            sent = self._known.id
        plain = {name: _plain(value) for name, value in given.items()}
        plain_own = _plain(own)
        self._payload = _payload(sent, self._known, plain, plain_own)
        before = self._payload
        if not (_same(plain, given) and _same(plain_own, own)):
            with suppress(InvalidRequestError), without_warnings():
                scalars = {name: values.scalar(value) for name, value in given.items()}
                before = _payload(sent, self._known, scalars, own)
        self._fingerprints = identity.fingerprints(self._payload, before, self._known, pictures)

    @property
    def model(self) -> str:
        """The id that is sent."""
        return str(self._payload["model"])

    @property
    def prompt(self) -> str | None:
        value = self._payload.get("prompt")
        return value if isinstance(value, str) else None

    @property
    def duration(self) -> int | None:
        """Seconds of video: as asked, else the documented default, else None."""
        value = self._payload.get("duration")
        if value is None and self._known and "duration" in self._known.parameters:
            value = self._known.parameters["duration"].default
        return value if isinstance(value, int) else None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over model, parameters, prompt and the images' content, in one normal form.

        Requests with the same fingerprint are the same payment; see ``core.identity``.
        """
        return self._fingerprints[0]

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """All under which a record of this request may stand, the newest form first.

        The last is that of version 0.1. Between them is one more where pictures or numbers were
        known by other bytes or digits before they were known by what is meant.
        """
        return self._fingerprints

    def payload(self) -> dict[str, Any]:
        """The JSON body of the POST."""
        return copy.deepcopy(self._payload)

    def summary(self) -> dict[str, Any]:
        """The payload fit for records and screens: pictures shrink to their hash and size."""
        return {name: shrunk(value) for name, value in self._payload.items()}

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """The pictures as they are sent, a data URI, base64 or a link, each with the name of the
        outermost parameter that it is in."""
        return [
            (name, picture)
            for name, value in self._payload.items()
            for picture in _pictures_in(value, name in _IMAGE_NAMES)
        ]

    def check_reachable(self, base_url: str) -> None:
        """Refuses links to this machine or a private network, unless the gateway is there, too.

        ``base_url`` is the gateway's. Raises InvalidRequestError.
        """
        for name, value in self._payload.items():
            for link in () if "prompt" in name else _texts_in(value):
                if _LINK.match(link):
                    check_reachable(name, link, base_url)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VideoRequest) and other.fingerprint == self.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.summary().items())
        return f"VideoRequest({inside})"


def _checked_tag(tag: object) -> str | None:
    if tag is None:
        return None
    text = tag.strip() if isinstance(tag, str) else ""
    if not text or not text.isprintable() or len(text) > _LONGEST_TAG:
        raise InvalidRequestError(
            f"A tag is a word or a few, at most {_LONGEST_TAG} characters in one line; not "
            f"{str(tag)[:_LONGEST_TAG]!r}."
        )
    return text


def _pictures_in(value: Any, is_picture: bool) -> list[str]:
    if isinstance(value, str):
        return [value] if is_picture else []
    if isinstance(value, dict):
        pairs = [(inner, is_picture or key in _IMAGE_NAMES) for key, inner in value.items()]
    else:
        pairs = [(inner, is_picture) for inner in value] if isinstance(value, list) else []
    return [found for inner, within in pairs for found in _pictures_in(inner, within)]


def _texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for inner in inside for text in _texts_in(inner)]


def _frozen(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload as JSON has it, with nothing in it that the caller could change later."""
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False)
        text.encode()
        frozen: dict[str, Any] = json.loads(text)
    except UnicodeError:
        raise InvalidRequestError(
            "The request holds text that is not Unicode (a lone surrogate)."
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The request cannot be written as JSON: {error}.") from None
    if _depth(frozen) > _DEEPEST:
        raise InvalidRequestError(f"The request is nested more than {_DEEPEST} levels deep.")
    return frozen


def _depth(value: Any) -> int:
    """Levels of lists and objects in a JSON value."""
    depth, level = 0, [value]
    while level:
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        depth, level = depth + 1, inner
    return depth


def _tail_name(model: Model | None) -> str:
    """The last frame is ``last_image_url`` on o1 and ``tail_image_url`` everywhere else."""
    if model and "last_image_url" in model.parameters:
        return "last_image_url"
    return "tail_image_url"


def shrunk(value: Any) -> Any:
    """A value fit for records and screens: pictures as hash and size, links without a query."""
    if isinstance(value, str):
        text = value.strip()
        if text[:5].lower() == "data:" or (len(text) > _LONGEST_NAME and not _PROSE.search(text)):
            digest = hashlib.sha256(value.encode()).hexdigest()[:16]
            kind = text.partition(";")[0][:40] if text[:5].lower() == "data:" else "base64"
            return f"{kind} sha256:{digest} ({len(value)} characters)"
        if _LINK.match(text):
            return without_query(text)
        return value
    if isinstance(value, Mapping):
        return {key: shrunk(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shrunk(inner) for inner in value]
    return value


# Text of this length that holds nothing but the alphabet of base64 is data, not words.
_LONGEST_NAME = 512
_PROSE = re.compile(r"[^A-Za-z0-9+/=_\s-]|[A-Za-z] [a-z]")
_LINK = re.compile(r"https?://", re.IGNORECASE)


def _with_images(value: Any, model_id: str | None, pictures: dict[str, Picture], name: str) -> Any:
    """Pictures in a parameter become what the gateway takes, wherever they sit in it.

    Those that are known by something else than that are put into ``pictures`` by what is sent.
    """
    if isinstance(value, Mapping):
        # A struct of a table has every field in every row; one that holds nothing is none.
        holds = {key: inner for key, inner in value.items() if not _is_hole(key, inner)}
        return {key: _with_images(inner, model_id, pictures, key) for key, inner in holds.items()}
    items = values.listed(value)
    if items is not None and (name not in _IMAGE_NAMES or getattr(value, "ndim", 1) == 1):
        return [_with_images(each, model_id, pictures, name) for each in items]
    if name not in _IMAGE_NAMES:
        return value
    picture = encode_image(value, name=name, model_id=model_id)
    if picture.identity is not None:
        pictures[picture.url] = picture
    return picture.url


def _is_hole(name: object, value: Any) -> bool:
    return name in _IMAGE_NAMES and values.is_missing(value)


def _payload(
    sent: str, known: Model | None, given: dict[str, Any], own: dict[str, Any]
) -> dict[str, Any]:
    """Model, parameters held against the documentation, and what goes unchecked."""
    if known:
        given = checked(known, given)
    elif "prompt" in given:
        check_prompt(given["prompt"])
    return _frozen({"model": sent, **given, **own})


def _mapping(extra: Any) -> dict[str, Any]:
    if values.is_missing(extra) or (isinstance(extra, str | list | tuple) and not extra):
        return {}
    found = values.mapping(extra)
    if found is None:
        raise InvalidRequestError(
            f"extra is an object, names with their values; not {repr(extra)[:_LONGEST_TAG]}."
        )
    return found


def _same(plain: dict[str, Any], given: dict[str, Any]) -> bool:
    try:
        return plain == given
    except Exception:  # noqa: BLE001 (arrays have no one answer, and raise what they like)
        return False


def _plain(value: Any) -> Any:
    try:
        return values.plain(value)
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidRequestError(f"The request cannot be written as JSON: {error}.") from None
