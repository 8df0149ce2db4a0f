"""VideoRequest: what to generate. Validation, payload and fingerprint, before anything is sent."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from . import catalog
from .catalog import Model, Parameter
from .errors import InvalidRequestError, KlingWarning

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


class VideoRequest:
    """One video to generate, checked against the documentation when it is made.

    ``model`` is an id or an alias (``"v2.5-turbo-pro"``; an image makes it image-to-video).
    ``duration`` is in seconds, ``"5"`` and ``5`` are the same. ``image`` and ``tail_image`` (first
    and last frame) take a URL, path, bytes, PIL image, NumPy array or matplotlib figure; local
    ones travel as data URIs. ``audio`` is the gateway's ``generate_audio``. Any other parameter
    goes by the gateway's own name (``shot_type="intelligent"``); ``extra`` is sent unchecked.

    Raises InvalidRequestError, before anything is sent, for a value that the documentation
    excludes. An unknown model or parameter goes through with one KlingWarning.
    """

    __slots__ = ("_fingerprint", "_known", "_payload")

    def __init__(
        self,
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
        **parameters: Any,
    ) -> None:
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
        given = {name: value for name, value in named.items() if value is not None}
        if not isinstance(model, str) or not model.strip():
            raise InvalidRequestError("The model is missing: name one, for example v2.5-turbo-pro.")
        inputs = [*given, "tail_image_url"] if tail_image is not None else [*given]
        try:
            self._known = catalog.find(model, inputs)
        except ValueError as error:
            raise InvalidRequestError(str(error)) from None
        if tail_image is not None:
            given[_tail_name(self._known)] = tail_image
        if self._known is None:
            _warn(
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
        given = {name: _with_images(name, value) for name, value in given.items()}
        if self._known:
            given = _checked(self._known, given)
        elif "prompt" in given:
            _check_prompt(given["prompt"])
        exact = self._known is None or model in (self._known.id, *self._known.spellings)
        self._payload: dict[str, Any] = {
            "model": model if exact or self._known is None else self._known.id,
            **given,
            **(extra or {}),
        }
        try:
            canonical = json.dumps(self._payload, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(f"The request cannot be written as JSON: {error}.") from None
        self._fingerprint = hashlib.sha256(canonical.encode()).hexdigest()

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
        """SHA-256 over model, parameters, prompt and the images' content: the same paid thing."""
        return self._fingerprint

    def payload(self) -> dict[str, Any]:
        """The JSON body of the POST."""
        return dict(self._payload)

    def summary(self) -> dict[str, Any]:
        """The payload fit for records and screens: pictures shrink to their hash and size."""
        return {name: shrunk(value) for name, value in self._payload.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VideoRequest) and other._fingerprint == self._fingerprint

    def __hash__(self) -> int:
        return hash(self._fingerprint)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.summary().items())
        return f"VideoRequest({inside})"


def _warn(message: str) -> None:
    warnings.warn(message, KlingWarning, stacklevel=4)


def _tail_name(model: Model | None) -> str:
    """The last frame is ``last_image_url`` on o1 and ``tail_image_url`` everywhere else."""
    if model and "last_image_url" in model.parameters:
        return "last_image_url"
    return "tail_image_url"


def shrunk(value: Any) -> Any:
    """A value fit for records and screens: data URIs as hash and size, links without a query."""
    if isinstance(value, str) and value.startswith("data:"):
        digest = hashlib.sha256(value.encode()).hexdigest()[:16]
        return f"{value.partition(';')[0]} sha256:{digest} ({len(value)} characters)"
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        from .generation import without_query

        return without_query(value)
    if isinstance(value, Mapping):
        return {key: shrunk(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shrunk(inner) for inner in value]
    return value


def _with_images(name: str, value: Any) -> Any:
    """Pictures in a parameter become what the gateway takes, wherever they sit in it."""
    if isinstance(value, Mapping):
        return {key: _with_images(key, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_images(name, inner) for inner in value]
    if name in _IMAGE_NAMES:
        from . import media

        return media.image_url(value, name=name)
    return value


def _check_prompt(value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidRequestError(f"The prompt must be text, not {type(value).__name__}.")
    if not value.strip():
        raise InvalidRequestError("The prompt is blank: say what the video should show.")


def _checked(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters, coerced and checked; an undocumented one passes with a warning."""
    if "prompt" in given:
        _check_prompt(given["prompt"])
    missing = [name for name, p in model.parameters.items() if p.required and name not in given]
    if missing:
        what = {"image_url": "an image", "prompt": "a prompt", "video_url": "a video_url"}
        needs = " and ".join(what.get(name, name) for name in missing)
        raise InvalidRequestError(f"{model.id} needs {needs}.")
    if "multi_prompt" in model.parameters:
        if not {"prompt", "multi_prompt"} & set(given):
            raise InvalidRequestError(f"{model.id} needs a prompt or a multi_prompt.")
        items = model.parameters["multi_prompt"].items
        if {"prompt", "multi_prompt"} <= set(given) and items and items.type == "object":
            raise InvalidRequestError(f"{model.id} takes prompt or multi_prompt, not both.")
    if (
        (model.tier or "").startswith("omni")
        and "tail_image_url" in given
        and given.get("generate_audio") is not False
    ):
        raise InvalidRequestError(
            f"{model.id} makes no audio when a tail image is given, and audio is on by default: "
            "turn the audio off."
        )
    unknown = [name for name in given if model.parameters and name not in model.parameters]
    if unknown:
        close = catalog.did_you_mean(unknown[0], model.parameters)
        _warn(f"{model.id} does not document {', '.join(unknown)}; sent as given.{close}")
    _check_images(model, given)
    return {
        name: _value(model.parameters[name], value) if name in model.parameters else value
        for name, value in given.items()
    }


def _check_images(model: Model, given: Mapping[str, Any]) -> None:
    pictures = {name: value for name, value in given.items() if name in _IMAGE_NAMES}
    if not pictures:
        return
    from . import media

    limits = media.limits_for(model.id)
    for name, value in pictures.items():
        for url in value if isinstance(value, list) else [value]:
            if isinstance(url, str):
                media.check_image(url, name=name, limits=limits)


def _value(parameter: Parameter, value: Any) -> Any:
    """``value`` in the parameter's type and bounds; raises InvalidRequestError otherwise."""
    coerce = _COERCE.get(parameter.type)
    coerced = coerce(parameter, value) if coerce else value
    if parameter.enum and coerced not in parameter.enum:
        raise _excluded(parameter, value)
    longest = parameter.max_length
    if longest is not None and isinstance(coerced, str) and len(coerced) > longest:
        raise InvalidRequestError(
            f"{parameter.name} has {len(coerced):,} characters; at most {longest:,} are allowed."
        )
    return coerced


def _excluded(parameter: Parameter, value: Any) -> InvalidRequestError:
    if parameter.enum:
        allowed = [str(choice) for choice in parameter.enum]
        if len(allowed) > 16:
            hint = catalog.did_you_mean(str(value), allowed)
            says = f"one of {len(allowed)} documented values.{hint}".removesuffix(".")
        elif len(allowed) == 1:
            says = allowed[0]
        else:
            says = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
    elif parameter.minimum is not None:
        says = f"a {parameter.type} from {parameter.minimum:g} to {parameter.maximum:g}"
    else:
        article = "an" if parameter.type[0] in "aio" else "a"
        says = f"{article} {parameter.type}"
    shown = repr(value) if len(repr(value)) < 80 else type(value).__name__
    return InvalidRequestError(f"{parameter.name} {shown} is not possible: it takes {says}.")


def _integer(parameter: Parameter, value: Any) -> Any:
    # The documents' samples send durations as "5"; the schema says integer, so that goes out.
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _excluded(parameter, value)
    return _bounded(parameter, value)


def _number(parameter: Parameter, value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise _excluded(parameter, value) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _excluded(parameter, value)
    return _bounded(parameter, value)


def _bounded(parameter: Parameter, value: Any) -> Any:
    low, high = parameter.minimum, parameter.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise _excluded(parameter, value)
    return value


def _boolean(parameter: Parameter, value: Any) -> bool:
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.strip().lower() in words:  # rendered templates are text
        return words[value.strip().lower()]
    if not isinstance(value, bool):
        raise _excluded(parameter, value)
    return value


def _string(parameter: Parameter, value: Any) -> str:
    if not isinstance(value, str):
        raise _excluded(parameter, value)
    return value


def _array(parameter: Parameter, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _excluded(parameter, value)
    low, high = parameter.min_items or 0, parameter.max_items or math.inf
    if not low <= len(value) <= high:
        most = f" to {high}" if high < math.inf else " or more"
        raise InvalidRequestError(
            f"{parameter.name} has {len(value)} items; {low}{most} are allowed."
        )
    inner = parameter.items
    return [_value(inner, item) for item in value] if inner else list(value)


def _object(parameter: Parameter, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _excluded(parameter, value)
    properties = parameter.properties or {}
    missing = [name for name, p in properties.items() if p.required and name not in value]
    if missing:
        raise InvalidRequestError(f"{parameter.name} needs {', '.join(missing)}.")
    return {
        name: _value(properties[name], inner) if name in properties else inner
        for name, inner in value.items()
    }


_COERCE: dict[str, Callable[[Parameter, Any], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "string": _string,
    "array": _array,
    "object": _object,
}
