"""Variables in prompts."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_integrations.commands import UsageError
from kling_integrations.jupyter.templating import Template, fields_of, fill, look_up

NAMES = {
    "animal": "cat",
    "x": 0.123456,
    "n": 3,
    "many": ["first", "second"],
    "table": {"key": "value", "deep": [1, 2]},
    "thing": SimpleNamespace(size=7, inner=SimpleNamespace(name="deep")),
    "größe": "tall",
    "frame": object(),
    "day": date(2020, 1, 2),
    "nothing": None,
    "blank": float("nan"),
    "text_of_nothing": "nan",
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
            '{"json": {"a": [1, 2]}} {} {0} {a b} {red, green}',
            '{"json": {"a": [1, 2]}} {} {0} {a b} {red, green}',
        ),
        ("$animal costs $5, 100%", "$animal costs $5, 100%"),
        ("def f(): return {1: 2}", "def f(): return {1: 2}"),
        ("🦝 {animal} עברית", "🦝 cat עברית"),
        ("{animal.upper()} {animal!r} { animal } {animal=}", "CAT 'cat' cat animal='cat'"),
        ("{many[n - 2]} {', '.join(many)} {n + 1}", "second first, second 4"),
        ("{x:{n}.1f}|{table['key']!r:>9}|{ {'}': n}['}'] }", "0.1|  'value'|3"),
        ("{[each for each in many][0]} {max(many)} {len(many)}", "first second 2"),
        ("{day:%d %B}", "02 January"),
        ('{"a": {"b": "{animal}"}} {{{animal}}}', '{"a": {"b": "cat"}} {cat}'),
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
        ("{day}", "a date"),
        ("{animal, n}", "a tuple"),
        ("{animal upper}", "{animal upper} in the prompt names the variable animal"),
        ("{animal.upper(}", "animal"),
        ("A {animal", "not closed"),
        ("A {{animal}", "single brace"),
        ("{{ animal }}", "Jinja"),
        ("{{animal|upper}}", "Jinja"),
        ("{% if animal %}a{% endif %}", "Jinja"),
        ("{await animal}", "{await animal}"),
        ("{type}", "no variable type"),
        ("A {nothing}", "{nothing} in the prompt is 'None'"),
        ("A {nothing!s}", "{nothing!s}"),
        ("A {blank} wave", "{blank}"),
        ("A {text_of_nothing}", "{text_of_nothing}"),
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
def test_without_variables_nothing_is_evaluated(text):
    try:
        fill("{" + text + "}", {})
    except UsageError as error:
        assert "no variable" in str(error) or "Jinja" in str(error)


def test_names_are_looked_up_for_flags():
    assert look_up("thing.inner", NAMES) == (True, NAMES["thing"].inner)
    assert look_up("many[1]", NAMES) == (True, "second")
    assert look_up("picture.png", NAMES) == (False, None)
    assert look_up("https://example.com/a.png", NAMES) == (False, None)
    assert fields_of("{a} {{b}} {c.d} { e } {f:{g}} {h[i]} {[j for j in k]}") == {*"acefghik"}


def test_a_name_in_brackets_that_is_key_and_variable_is_not_guessed():
    names = {"row": {"name": "Ada", "Bob": "Bob"}, "name": "Bob", "there": {"name": "Ada"}}
    assert fill("{there[name]} {row['name']}", names) == "Ada Ada"
    with pytest.raises(UsageError, match="can be the key"):
        fill("{row[name]}", names)


def test_a_look_up_calls_nothing_and_leaves_files_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = []
    names = {"act": lambda: called.append(1), "fox": SimpleNamespace(), "i": 1, "many": [1, 2]}
    assert look_up("act()", names) == (False, None)
    assert look_up("many[i]", names) == (True, 2)
    with pytest.raises(UsageError):
        look_up("fox.png", names)
    (tmp_path / "fox.png").touch()
    assert look_up("fox.png", names) == (False, None)
    assert not called


def test_a_field_is_evaluated_once_and_varied_ones_each_time():
    template = Template("{next(count)} {light:{width}}")
    names = {"count": iter(range(9)), "width": 5}
    texts = [template.fill({**names, "light": light}, ["light"]) for light in ("dawn", "noon")]
    assert texts == ["0 dawn ", "0 noon "]
    assert next(names["count"]) == 1


def test_fields_of_variables_are_filled_beside_columns():
    names = {"style": "ink", "product": "a global"}
    text = "{product} in {style}, {{style}} {size:.1f} {place name}"
    filled = Template(text).fill_beside(["product", "size", "place name"], names)
    assert filled == "{product} in ink, {{style}} {size:.1f} {place name}"
