"""What a cell means, whatever wrote the table: keys, and texts that columns are filled into."""

import datetime
import enum
import uuid
from decimal import Decimal

import pytest

from kling_integrations import InvalidRequestError
from kling_integrations.core.batch.cells import BadCellError, Template, former_keys, normal_key
from kling_integrations.core.batch.frames import table_of
from kling_integrations.core.batch.rows import check
from kling_integrations.core.storage import tables

URL = "https://api.example"
BERLIN = datetime.timezone(datetime.timedelta(hours=1))
IDENTIFIER = uuid.UUID(int=0xABCDEF)


class Kind(enum.Enum):
    SHORT = "short"


def cells_of(*names):
    """Cells of NumPy and pandas, by expressions: both are only in some environments."""
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    return [eval(name, {"np": np, "pd": pd}) for name in names]


ONE_KEY = {
    "7": [7, 7.0, "7", "7.0", " 7. ", Decimal("7.0"), Decimal("7E+0"), "7.00", b"7"],
    "0": [0, -0.0, "0.0", "-0", Decimal("0.00")],
    "20000000000000000": [20000000000000000, 2e16, "2e+16", Decimal("2E+16")],
    "0.1": [0.1, "0.10", Decimal("0.100"), "1e-01"],
    "0.0000001": [1e-7, "1e-07", "0.0000001"],
    "true": [True, "True", "TRUE", " true "],
    "A1": ["A1", b"A1", bytearray(b"A1"), "\ufeffA1"],
    "ff00": [b"\xff\x00"],
    "caf\u00e9 au lait": ["caf\u00e9 au lait", "cafe\u0301\u00a0 au\n lait "],
    "short": [Kind.SHORT, "short"],
    str(IDENTIFIER): [IDENTIFIER, str(IDENTIFIER).upper()],
    "2026-11-30": [
        datetime.date(2026, 11, 30),
        datetime.datetime(2026, 11, 30),
        datetime.datetime(2026, 11, 30, tzinfo=datetime.UTC),
        datetime.datetime(2026, 11, 30, tzinfo=BERLIN),
        "2026-11-30",
        "2026-11-30 00:00",
        "2026-11-30 00:00:00+00",
        "2026-11-30T00:00:00.000Z",
    ],
    "2026-11-30T12:05:01.5": [
        datetime.datetime(2026, 11, 30, 12, 5, 1, 500000),
        datetime.datetime(2026, 11, 30, 13, 5, 1, 500000, tzinfo=BERLIN),
        "2026-11-30 12:05:01.500000",
        "2026-11-30T13:05:01.5+0100",
    ],
    "9999-12-31": [datetime.datetime(9999, 12, 31), datetime.date(9999, 12, 31)],
}


@pytest.mark.parametrize("key", ONE_KEY)
def test_one_key_in_all_the_forms_that_engines_hand_on_is_one_key(key):
    assert {normal_key(cell) for cell in ONE_KEY[key]} == {key}


def test_cells_of_numpy_and_pandas_are_the_same_keys():
    for key, names in {
        "7": ("np.int8(7)", "np.float32(7)", "np.uint64(7)", "pd.Series([7])[0]"),
        "0.1": ("np.float32(0.1)", "np.float16(0.1)", "np.float64(0.1)"),
        "true": ("np.bool_(True)",),
        "2026-11-30": (
            "np.datetime64('2026-11-30')",
            "np.datetime64('2026-11-30', 'ns')",
            "pd.Timestamp('2026-11-30')",
            "pd.Timestamp('2026-11-30', tz='Europe/Berlin')",
        ),
        "10000-01-01": ("np.datetime64('10000-01-01')",),
    }.items():
        assert {normal_key(cell) for cell in cells_of(*names)} == {key}
    assert {normal_key(cell) for cell in cells_of("np.nan", "pd.NA", "pd.NaT")} == {None}


@pytest.mark.parametrize("cell", [None, "", " \n", float("nan"), Decimal("NaN")])
def test_a_cell_that_says_nothing_is_no_key(cell):
    assert normal_key(cell) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("007", "7"), ("+7", "7"), ("1e5", "100000"), ("7.1", "7.10.0"), ("a", "A"), (1, True)],
)
def test_names_that_only_look_like_numbers_are_keys_of_their_own(one, other):
    assert normal_key(one) != normal_key(other)


def test_a_long_key_counts_to_its_end():
    assert normal_key("x" * 300 + "1") != normal_key("x" * 300 + "2")
    assert normal_key("9" * 5000) == "9" * 5000


@pytest.mark.parametrize(
    ("cell", "before"),
    [
        ("7.0", "7.0"),  # of a CSV
        ("7", "7.0"),  # a CSV then, another now
        (Decimal("7.00"), "7.00"),
        (2e16, "2e+16"),
        (True, "True"),
        ("true", "TRUE"),
        (b"A1", "b'A1'"),
        ("caf\u00e9", "cafe\u0301"),
        ("2026-11-30", "2026-11-30 00:00:00"),
        ("a  b", "a  b"),
        ("x" * 300, "x" * 200),
    ],
)
def test_the_forms_that_earlier_versions_kept_are_looked_for_too(cell, before):
    assert before in former_keys(cell, normal_key(cell))


# --- one table, many engines -------------------------------------------------------------------


def engines():
    """How a polars frame becomes the table of a batch, by the name of what hands it on."""

    def written(write, name):
        def made(frame, tmp_path):
            write(frame, tmp_path / name)
            return tables.read(tmp_path / name)

        return made

    def duck(frame, tmp_path):
        duckdb = pytest.importorskip("duckdb")
        with duckdb.connect() as connection:
            connection.register("rows", frame.to_arrow())
            return connection.sql("select * from rows").fetchall(), frame.columns

    def of_duck(frame, tmp_path):
        found, columns = duck(frame, tmp_path)
        return table_of([dict(zip(columns, row, strict=True)) for row in found])

    return {
        "polars": lambda frame, tmp_path: table_of(frame),
        "pandas": lambda frame, tmp_path: table_of(frame.to_pandas()),
        "arrow": lambda frame, tmp_path: table_of(frame.to_arrow()),
        "duckdb": of_duck,
        "parquet": written(lambda frame, path: frame.write_parquet(path), "t.parquet"),
        "csv": written(lambda frame, path: frame.write_csv(path), "t.csv"),
        "csv by pandas": written(
            lambda frame, path: frame.to_pandas().to_csv(path, index=False), "p.csv"
        ),
        "json lines": written(lambda frame, path: frame.write_ndjson(path), "t.ndjson"),
    }


KEYS = {
    "whole numbers": [7, 8, 9],
    "whole numbers with a hole": [7, None, 9],
    "large whole numbers": [2**53 + 1, 2**62, -5],
    "numbers": [0.1, 2.5, 1e16],
    "decimals": [Decimal("7.00"), Decimal("7.50"), None],
    "days": [datetime.date(2026, 11, 30), datetime.date(1, 1, 1), None],
    "moments": [datetime.datetime(2026, 11, 30), datetime.datetime(2026, 11, 30, 12, 5), None],
    "moments in UTC": [datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC), None, None],
    "truth": [True, False, None],
    "text": ["007", "cafe\u0301", "a b"],
}


@pytest.mark.parametrize("keys", KEYS)
def test_the_same_table_is_the_same_rows_whatever_engine_hands_it_on(keys, tmp_path):
    polars = pytest.importorskip("polars")
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = polars.DataFrame(
        {
            "prompt": ["a", "b", "b"],
            "key": KEYS[keys],
            "cfg_scale": polars.Series([0.7, None, 0.3], dtype=polars.Float32),
        }
    )
    rows = {}
    for name, engine in engines().items():
        checked = check(engine(frame, tmp_path), URL)
        assert not checked.problems, (name, checked.problems)
        rows[name] = [row.id for row in checked.rows]
    assert all(found == rows["polars"] for found in rows.values()), rows


# --- columns in a text -------------------------------------------------------------------------

RECORD = {"product": "teapot ", "place": "beach", "n": 7.0, "unit price": "7.5", "Tone": "calm"}


def filled(text, **more):
    record = {**RECORD, **more}
    return Template(text, list(record)).fill(record)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("A {product} at the {place}", "A teapot at the beach"),
        ("{n} of them for ${unit price}", "7 of them for $7.5"),
        ("{n:03d} and {unit price:.2f}, {place:>6}", "007 and 7.50,  beach"),
        ("{tone} light", "calm light"),
        ('as {{"size": 1}} says, {and this is prose}', 'as {"size": 1} says, {and this is prose}'),
        ("no braces at all", "no braces at all"),
    ],
)
def test_columns_are_filled_into_a_text(text, made):
    assert filled(text) == made


@pytest.mark.parametrize(
    "text", ["A {prodct}", "A {product.upper()}", "A {{ product }}", "{% if n %}A", "A {0}", "A {}"]
)
def test_what_names_no_column_is_an_error_that_names_those_that_are(text):
    with pytest.raises(InvalidRequestError, match="{product}, {place}"):
        filled(text)


@pytest.mark.parametrize("cell", [None, " ", "nan", float("nan"), "#REF!"])
def test_a_blank_cell_is_not_filled_in(cell):
    with pytest.raises(BadCellError) as error:
        filled("A {product} at the {place}", place=cell)
    assert error.value.column == "place"


def test_the_file_of_a_sheet_may_say_its_delimiter_and_have_space_before_its_quotes():
    table = tables.parse(b"sep=;\nkey;prompt\nA1;a, b\n", "t.csv")
    assert table.records == [{"key": "A1", "prompt": "a, b"}]
    assert table.lines == [3]
    table = tables.parse(b'key, prompt\nA2, "An owl, ""grey"""\nA3, plain\n', "t.csv")
    assert [row["prompt"] for row in table.records] == ['An owl, "grey"', "plain"]
