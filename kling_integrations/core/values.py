"""Values by what they mean, whatever library, engine or file they came out of. No I/O.

The same number is a ``float`` here, a NumPy scalar, an Arrow scalar or a ``Decimal`` there, and a
32-bit column of 0.7 holds 0.699999988079071. All of them are sent, and known, as 0.7.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

_SINGLE_DIGITS = 6  # decimals of so many digits are told apart by 32-bit floats (C's FLT_DIG)
_LONGEST_NUMBER = 400  # digits before the point; a float ends at 309


def is_missing(value: Any) -> bool:
    """Whether a value is the mark of a missing one: None, NaN of any type, NA, NaT, masked."""
    if hasattr(value, "as_py"):
        value = value.as_py()
    if value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, float):
        return value != value
    if getattr(value, "ndim", None) == 0 and getattr(value, "dtype", None) is not None:
        return bool(value != value)  # NaN and NaT of NumPy
    return False


def number(value: float) -> float:
    """The decimal number that a float stands for.

    A 32-bit float is the shortest decimal that it is nearest to (0.7, not 0.699999988079071), and
    what differs from a decimal of up to six digits by less than 32 bits can tell is that decimal
    (0.3, not 0.30000000000000004, which is 0.1 + 0.2). Negative zero is zero.
    """
    if not math.isfinite(value) or value.is_integer():
        return value + 0.0
    try:
        single = _single(value)
    except OverflowError:
        return value
    longest = 9 if single == value else _SINGLE_DIGITS if 1e-6 < abs(value) < 1000 else 0
    for digits in range(_SINGLE_DIGITS, longest + 1):
        short = float(f"{value:.{digits}g}")
        if _single(short) == single:
            return short
    return value


def _single(value: float) -> float:
    """``value`` as 32 bits hold it. Raises OverflowError for what is too large for them."""
    nearest: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return nearest


def scalar(value: Any) -> Any:
    """One value of another library (NumPy, Arrow, a tensor of no dimension) as Python's own.

    Numbers keep what they hold; ``plain`` makes the decimal of it. Anything else is as it is.
    """
    if hasattr(value, "as_py"):
        return value.as_py()
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    kind = str(getattr(value, "dtype", ""))
    if kind.startswith("datetime64"):  # in nanoseconds it would become a number
        value = value.astype("datetime64[us]")
    # The only type that is too coarse for ``number``; its text is its shortest decimal.
    return float(str(value)) if kind == "float16" else value.item()


def plain(value: Any) -> Any:
    """A value as JSON has it, by what it means.

    Numbers of every type become ``int`` or ``float``, arrays and tuples lists; what is missing in
    a mapping or a list is left out, at every depth. What JSON does not know stays as it is. Raises
    RecursionError for what contains itself.
    """
    value = scalar(value)
    if isinstance(value, float):
        return number(float(value))
    if isinstance(value, Decimal | Fraction):
        return _rational(value)
    if isinstance(value, Mapping):
        return {plain(name): plain(inner) for name, inner in value.items() if not is_missing(inner)}
    if (items := listed(value)) is not None:
        return [plain(inner) for inner in items if not is_missing(inner)]
    return value


def _rational(value: Decimal | Fraction) -> Any:
    if isinstance(value, Decimal) and not value.is_finite():
        return float("nan") if value.is_nan() else float(value)
    if isinstance(value, Decimal) and value.adjusted() > _LONGEST_NUMBER:
        return float(value)  # too large for any whole number that is sent
    if value == (whole := int(value)):
        return whole
    try:
        return number(float(value))
    except OverflowError:
        return value


def listed(value: Any) -> list[Any] | None:
    """The items of a list, a tuple or a one-dimensional array of any library, else None."""
    if isinstance(value, list | tuple):
        return list(value)
    if (
        isinstance(value, str | bytes | bytearray | memoryview | Mapping)
        or getattr(value, "ndim", 1) == 0
    ):
        return None
    if any(hasattr(value, name) for name in ("tolist", "to_list", "to_pylist")):
        return list(value)
    return None


def mapping(value: Any) -> dict[Any, Any] | None:
    """A mapping, or a list of pairs of name and value (a map of Arrow), as a dict; else None."""
    if isinstance(value, Mapping):
        return dict(value)
    items = listed(value)
    if items and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)
        for pair in items
    ):
        return dict(items)
    return None
