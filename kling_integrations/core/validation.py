"""Parameters held against the documentation: types, bounds, choices, and what goes together."""

from __future__ import annotations

import ast
import ipaddress
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from . import catalog, values
from .catalog import Model, Parameter
from .errors import InvalidRequestError, KlingWarning

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)

# What stands for a missing value in the texts that tables, databases and templates write (pandas,
# NumPy, R, SQL, PostgreSQL and MySQL exports, JavaScript, Go), whatever their case.
_MISSING = re.compile(
    r"[<(\[{]?(nan|none|null|nil|na|nat|n/a)[>)\]}]?|-nan|undefined|\\n|#na|-?1\.#(ind|qnan)",
    re.IGNORECASE,
)
# The errors of spreadsheets: #REF!, #NAME?, #DIV/0!, #N/A, #N/A N/A, and LibreOffice's Err:502.
_SHEET_ERROR = re.compile(
    r"#(ref|value|num|null|name|div/0|spill|calc|error|field|blocked|connect|unknown|busy|external"
    r"|python|n/a( n/a)?|getting_data)[!?]?|err:\d{3}",
    re.IGNORECASE,
)
_BRACES = re.compile(
    r"\$?\{\{.{0,200}?\}\}|\{%.{0,200}?%\}|\$?\{[^{}]{0,200}\}", re.DOTALL
)  # bounded: a text of nothing but braces is read in no time
_FORMATTED = re.compile(r"(.+?)\s*(?:![rsa])?(?::(%.*|[^:]*))?", re.DOTALL)
# Reserved for this machine and for networks at home and in companies (RFC 6761, 6762, 8375, ICANN).
_PRIVATE_DOMAINS = (".localhost", ".local", ".internal", ".home.arpa", ".lan", ".localdomain")
_WHOLE = re.compile(r"[+-]?\d{1,19}(\.0*)?")
_TRUE = (True, "true", "yes", "on", "1", "1.0")
_FALSE = (False, "false", "no", "off", "0", "0.0")
_FORMAT = re.compile(r"(.?[<>=^])?[+-]?z?#?0?\d*[,_]?(\.\d+)?[a-zA-Z%]?|%.*")


def warn(message: str) -> None:
    """One KlingWarning, at the line that made the request."""
    if not _quiet.get():
        warnings.warn(message, KlingWarning, stacklevel=5)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Makes a request anew whose warnings were said; in any thread, unlike filters of warnings."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def check_prompt(value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidRequestError(f"The prompt must be text, not {type(value).__name__}.")
    if not value.strip():
        raise InvalidRequestError("The prompt is blank: say what the video should show.")
    if is_missing_text(value):
        warn(f"The prompt is {value.strip()!r}, which is mostly what is left of a missing value.")


def is_missing_text(text: str) -> bool:
    """Whether a whole text is what is left of a missing value or of a broken formula.

    That is ``nan``, ``None``, ``<NA>``, ``\\N``, ``#REF!`` and the like: no video is meant by it.
    """
    text = text.strip()
    return any(kind.fullmatch(text) for kind in (_MISSING, _SHEET_ERROR))


def placeholders(text: str, names: Collection[str] = ()) -> list[str]:
    """The placeholders in a text that nothing has filled, as they are written in it.

    ``{product}``, ``{animal.upper()!r:>9}``, ``{0}``, ``{}``, ``${name}``, and Jinja's
    ``{{ animal | upper }}`` and ``{% if … %}``. Braces around anything that is no expression with
    a name in it (prose, JSON) are text, unless it is one of ``names`` (columns of a table, say).
    """
    found = (each[0] for each in _BRACES.finditer(text))
    return [written for written in found if _is_placeholder(written, names)]


def _is_placeholder(written: str, names: Collection[str]) -> bool:
    inside = written.strip("${}").strip()
    if written.startswith("{%") or not inside or inside.isdecimal() or inside in names:
        return True
    formatted = _FORMATTED.fullmatch(inside)
    if formatted and (formatted[2] is None or _FORMAT.fullmatch(formatted[2])):
        inside = formatted[1]
    if "\\" in inside:
        return False
    try:
        expression = ast.parse(inside, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    if isinstance(expression, ast.Tuple | ast.Set | ast.Dict):
        return False
    return any(isinstance(node, ast.Name) for node in ast.walk(expression))


def check_reachable(name: str, link: str, base_url: str) -> None:
    """Refuses a link that a gateway out there cannot open, as it leads to a machine in here.

    A gateway on this machine or in a private network may well open it. Raises
    InvalidRequestError, naming ``name``.
    """
    if _is_private(link) and not _is_private(base_url):
        raise InvalidRequestError(
            f"{name} is a link to {urlsplit(link).hostname}, which the gateway cannot reach from "
            "outside of this network: give the file instead."
        )


def _is_private(link: str) -> bool:
    """Whether a link leads to this machine or a private network, by the name of its host."""
    try:
        host = (urlsplit(link).hostname or "").rstrip(".").lower()
    except ValueError:
        return False
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_DOMAINS)


def checked(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters, coerced and checked; an undocumented one passes with a warning."""
    if "prompt" in given:
        check_prompt(given["prompt"])
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
        warn(f"{model.id} does not document {', '.join(unknown)}; sent as given.{close}")
    return {
        name: _value(model.parameters[name], value) if name in model.parameters else value
        for name, value in given.items()
    }


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
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = ""
    shown = text if 0 < len(text) < 80 else type(value).__name__
    return InvalidRequestError(f"{parameter.name} {shown} is not possible: it takes {says}.")


def typed(parameter: Parameter, value: Any) -> Any:
    """``value`` in the parameter's type, and as it is where it cannot be that."""
    try:
        return _value(parameter, value)
    except InvalidRequestError:
        return value


def _integer(parameter: Parameter, value: Any) -> Any:
    # The documents' samples send durations as "5"; the schema says integer, so that goes out.
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = int(value.strip().partition(".")[0])
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
    try:
        finite = isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        finite = False
    if isinstance(value, bool) or not finite:
        raise _excluded(parameter, value)
    return _bounded(parameter, value)


def _bounded(parameter: Parameter, value: Any) -> Any:
    low, high = parameter.minimum, parameter.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise _excluded(parameter, value)
    return value


def _boolean(parameter: Parameter, value: Any) -> bool:
    # Rendered templates and CSVs are text; a column with a hole in it holds 1.0 for True.
    word = value.strip().lower() if isinstance(value, str) else value
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise _excluded(parameter, value)


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
    value = values.mapping(value)
    if value is None:
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
