"""Values by what they mean, whatever library wrote them."""

import datetime
import json
import math
import struct
from array import array
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_integrations.core import values

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")


def single(value):
    """What a 32-bit column holds of it."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


@given(st.integers(-999_999, 999_999), st.integers(0, 6))
def test_a_decimal_of_six_digits_comes_back_out_of_32_bits(digits, places):
    meant = float(Decimal(digits).scaleb(-places))
    assert values.number(single(meant)) == meant
    assert values.number(meant) == meant


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_32_bit_float_is_the_decimal_that_numpy_shows_for_it(value):
    meant = values.number(value)
    assert meant == value if value.is_integer() else float(str(np.float32(value)))
    assert single(meant) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_stays_near_itself_and_what_is_meant_means_itself(value):
    meant = values.number(value)
    assert math.isclose(meant, value, rel_tol=1e-6, abs_tol=1e-45)
    assert values.number(meant) == meant


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (0.1 + 0.2, 0.3),
        (0.6999999881, 0.7),  # a 32-bit 0.7, as pandas writes it into JSON
        (0.123456789, 0.123456789),
        (1_700_000_000.5, 1_700_000_000.5),
        (-0.0, 0.0),
        (np.float32(0.7), 0.7),
        (np.float16(0.7), 0.7),
        (np.float64(0.7), 0.7),
        (np.int8(5), 5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.array(0.7, "float32"), 0.7),
        (Decimal("0.70"), 0.7),
        (Decimal("5.00"), 5),
        (Decimal(2**70), 2**70),
        (Fraction(7, 10), 0.7),
        (Fraction(10, 2), 5),
        (pyarrow.scalar(0.7, pyarrow.float32()), 0.7),
        (pyarrow.scalar(Decimal("5.0")), 5),
        (np.array([0.1, 0.7], "float32"), [0.1, 0.7]),
        (array("f", [0.1]), [0.1]),
        (pandas.Series([1, None], dtype="Int64"), [1]),
        (polars.Series([0.7], dtype=polars.Float32), [0.7]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ((1, (2, None)), [1, [2]]),
    ],
)
def test_a_value_of_any_library_is_what_json_has_for_it(value, meant):
    found = values.plain(value)
    assert found == meant
    assert type(found) is type(meant)
    assert json.loads(json.dumps(found)) == meant
    assert str(found) == str(meant)  # -0.0 == 0.0


MISSING = [
    None,
    math.nan,
    np.float32("nan"),
    np.datetime64("NaT"),
    Decimal("NaN"),
    Decimal("sNaN"),
    pandas.NA,
    pandas.NaT,
    np.ma.masked,
    pyarrow.scalar(None, pyarrow.int8()),
]


@pytest.mark.parametrize("nothing", MISSING, ids=repr)
def test_what_is_missing_is_left_out_at_every_depth(nothing):
    assert values.is_missing(nothing)
    given = {"a": nothing, "b": {"c": nothing, "d": [nothing, 1, {"e": nothing}]}, "f": 0}
    assert values.plain(given) == {"b": {"d": [1, {}]}, "f": 0}


@pytest.mark.parametrize("something", [0, "", "nan", [], {}, False, np.zeros(3), Decimal(0)])
def test_what_says_nothing_much_is_not_missing(something):
    assert not values.is_missing(something)


def test_a_moment_in_nanoseconds_is_a_moment_and_no_number():
    assert values.scalar(np.datetime64("2026-01-02T03:04", "ns")) == datetime.datetime(
        2026, 1, 2, 3, 4
    )


def test_a_map_of_arrow_is_a_dictionary_and_other_lists_are_none():
    pairs = pyarrow.array([[("a", 1), ("b", 2)]], pyarrow.map_(pyarrow.string(), pyarrow.int8()))
    assert values.mapping(pairs.to_pylist()[0]) == {"a": 1, "b": 2}
    assert values.mapping({"a": 1}) == {"a": 1}
    for other in ("text", [1], [], [("a",)], [(1, 2)], 7, None):
        assert values.mapping(other) is None


@pytest.mark.parametrize("large", [Decimal("1e999"), Decimal("-Infinity"), 10**400])
def test_a_number_that_no_float_holds_takes_no_time(large):
    values.plain(large)
