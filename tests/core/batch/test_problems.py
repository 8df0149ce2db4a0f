"""How bad rows are named: all of them, in lines that one can read."""

import pytest

from kling_integrations import InvalidRequestError
from kling_integrations.core.batch.frames import table_of
from kling_integrations.core.batch.rows import Problem, check, listed
from kling_integrations.core.errors import Verb
from kling_integrations.core.storage.tables import from_records, parse

URL = "http://127.0.0.1:1"


def problems(text, name="p.csv"):
    return list(map(str, check(parse(text.encode(), name), URL).problems))


def test_a_row_is_named_with_its_line_where_that_is_another_number():
    text = 'prompt,duration\n"two\nlines",5\n\n,5\nfox,7\n'
    first, second = problems(text)
    assert first.startswith("row 2, prompt: ")
    assert first.endswith("(line 5)")
    assert second.startswith("row 3, duration: ")
    assert second.endswith("(line 6)")
    assert problems('{"prompt": "a"}\n{"prompt": ""}\n', "p.jsonl")[0].endswith("needs a prompt")
    assert problems('\n{"prompt": "a"}\n{"prompt": ""}\n', "p.jsonl")[0].endswith("(line 3)")


def test_a_row_of_a_dataframe_is_named_with_its_index_too():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"prompt": ["a fox", "", "a hen"]}, index=["B7", "C9", "D1"])
    [problem] = check(table_of(frame), URL).problems
    assert str(problem).startswith("row 2, prompt: ")
    assert str(problem).endswith("(index 'C9')")
    [problem] = check(table_of(frame.reset_index(drop=True)), URL).problems
    assert str(problem).endswith("(index 1)")


def test_thousands_with_the_same_trouble_are_one_line():
    alike = [Problem(row, "duration", "7 is not possible") for row in range(1, 5001)]
    lines = listed([*alike, Problem(7000, "prompt", "it is empty")], 20)
    assert lines == [
        "rows 1, 2, 3 and 4,997 more, duration: 7 is not possible",
        "row 7000, prompt: it is empty",
    ]
    different = [Problem(row, "", f"reason {row}") for row in range(50)]
    assert listed(different, 20)[20:] == ["… and 30 more"]


def test_a_table_without_prompts_is_one_sentence_that_names_its_columns():
    with pytest.raises(InvalidRequestError, match="no column 'prompt'.*'a fox'") as caught:
        check(parse(b"a fox\na hen\nan owl\n"), URL)
    assert [step.verb for step in caught.value.next_steps] == [Verb.NAME_PROMPTS]
    assert len(check(parse(b"prompt,b\n,1\n,2\n"), URL).problems) == 2


def test_a_column_that_was_perhaps_meant_as_a_parameter_is_noted():
    rows = [{"prompt": "a", "Durations": 10, "aspect ratio ": "16:9", "sku": 1, "price": 2}]
    [note] = check(from_records(rows), URL).notes
    assert "'Durations'" in note
    assert "duration" in note


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('prompt\n"a fox\na hen\n', "line 2"),
        ('prompt,duration\n"He said "hi" again",5\n', "line 2"),
        ("PK\x03\x04 a workbook", "save the sheet as CSV"),
    ],
)
def test_what_would_be_misread_is_refused(text, words):
    with pytest.raises(InvalidRequestError, match=words):
        parse(text.encode(), "p.csv")
