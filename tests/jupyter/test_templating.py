"""Variables in prompts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_integrations.commands import UsageError
from kling_integrations.jupyter.templating import fields_of, fill, look_up

NAMES = {
    "animal": "cat",
    "x": 0.123456,
    "n": 3,
    "many": ["first", "second"],
    "table": {"key": "value", "deep": [1, 2]},
    "thing": SimpleNamespace(size=7, inner=SimpleNamespace(name="deep")),
    "größe": "tall",
    "frame": object(),
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("A {animal} on a roof", "A cat on a roof"),
        ("{thing.size} {thing.inner.name}", "7 deep"),
        ("{many[0]} {many[-1]} {table[key]} {table['key']} {table[deep][1]}", None),
        ("{x:.2f} {n:03d}", "0.12 003"),
        ("{größe}", "tall"),
        ("{{animal}} and {{}}", "{animal} and {}"),
        (
            '{"json": {"a": [1, 2]}} {} { x } {0} {a b}',
            '{"json": {"a": [1, 2]}} {} { x } {0} {a b}',
        ),
        ("$animal costs $5, 100%", "$animal costs $5, 100%"),
        ("def f(): return {1: 2}", "def f(): return {1: 2}"),
        ("🦝 {animal} עברית", "🦝 cat עברית"),
    ],
)
def test_fields_are_filled_and_other_braces_stay(text, filled):
    assert fill(text, NAMES) == (filled or "first second value value 2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A {animl}", "Did you mean animal?"),
        ("{thing.nothing}", "nothing"),
        ("{many[9]}", "IndexError"),
        ("{animal:.2f}", "{animal:.2f}"),
        ("{frame}", "only text and numbers"),
        ("{many}", "a list"),
    ],
)
def test_what_cannot_be_filled_in_is_an_error_with_a_reason(text, says):
    with pytest.raises(UsageError, match=".*") as caught:
        fill(text, NAMES)
    assert says in str(caught.value)


def test_numpy_and_pandas_values_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert fill("{a} {b:.1f}", {"a": numpy.int64(5), "b": numpy.float32(0.25)}) == "5 0.2"


@given(st.text(alphabet=st.characters(exclude_characters="{}")))
def test_text_without_braces_stays_as_it_is(text):
    assert fill(text, {}) == text


@given(st.text(max_size=40))
def test_nothing_is_ever_evaluated(text):
    try:
        fill("{" + text + "}", {})
    except UsageError as error:
        assert "no variable" in str(error)


def test_names_are_looked_up_for_flags():
    assert look_up("thing.inner", NAMES) == (True, NAMES["thing"].inner)
    assert look_up("many[1]", NAMES) == (True, "second")
    assert look_up("picture.png", NAMES) == (False, None)
    assert look_up("https://example.com/a.png", NAMES) == (False, None)
    assert fields_of("{a} {{b}} {c.d} { e }") == {"a", "c"}
