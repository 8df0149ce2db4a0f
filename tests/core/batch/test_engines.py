"""One table, read by every engine and from every kind of file: the same rows, paid once."""

import csv
import datetime
import decimal
import json
import warnings

import pytest

from kling_integrations.core.batch.frames import table_of
from kling_integrations.core.batch.rows import check

numpy = pytest.importorskip("numpy")
pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
duckdb = pytest.importorskip("duckdb")

URL = "https://api.example"

COLUMNS = {
    "key": [7, 8, 10000, 9],
    "prompt": ["A boat", "Zwei Kätzchen", "A café\nat night", "An owl"],
    "duration": [5, 10, None, 5],
    "cfg_scale": [0.7, 0.1, None, 1.0],
    "aspect_ratio": ["16:9", "9:16", "1:1", None],
    "negative_prompt": ["blur", None, "rain", ""],
}
RECORDS = [dict(zip(COLUMNS, cells, strict=True)) for cells in zip(*COLUMNS.values(), strict=True)]


def ids(table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checked = check(table_of(table), URL)
    assert not checked.problems, checked.problems
    return [row.id for row in checked.rows]


DOUBLE, WHOLE = pyarrow.float64(), pyarrow.int64()


def arrow(number=DOUBLE, whole=WHOLE, columns=COLUMNS):
    types = {"cfg_scale": number, "duration": whole, "key": whole}
    return pyarrow.table(
        {
            name: pyarrow.array(
                [None if cell is None else typed(types[name], cell) for cell in cells], types[name]
            )
            if name in types
            else pyarrow.array(cells)
            for name, cells in columns.items()
        }
    )


def typed(kind, cell):
    return decimal.Decimal(str(cell)) if pyarrow.types.is_decimal(kind) else cell


def as_csv(folder):
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(row.values() for row in RECORDS)
    return path


def as_json_lines(folder):
    path = folder / "table.jsonl"
    said = [{name: cell for name, cell in row.items() if cell is not None} for row in RECORDS]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in said), encoding="utf-8")
    return path


def as_parquet(table):
    def write(folder):
        parquet.write_table(table, folder / "table.parquet")
        return folder / "table.parquet"

    return write


def asked(query, how):
    """What DuckDB makes of a query over the table, fetched as ``how``."""

    def run(folder):
        base = arrow()
        with duckdb.connect() as connection:
            connection.register("base", base)
            found = connection.sql(query)
            if how == "rows":
                return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
            if how == "records":
                return found.to_arrow_table().to_pylist()
            return getattr(found, how)()

    return run


SINGLE = "SELECT * REPLACE (cfg_scale::FLOAT AS cfg_scale) FROM base"
DECIMALS = (
    "SELECT * REPLACE (cfg_scale::DECIMAL(4, 2) AS cfg_scale, duration::HUGEINT AS duration) "
    "FROM base"
)
TEXTS = (
    "SELECT * REPLACE (cfg_scale::VARCHAR AS cfg_scale, duration::VARCHAR AS duration) FROM base"
)

ENGINES = {
    "records": lambda _: RECORDS,
    "CSV": as_csv,
    "JSON Lines": as_json_lines,
    "Parquet": as_parquet(arrow()),
    "Parquet, 32 bits": as_parquet(arrow(pyarrow.float32(), pyarrow.int32())),
    "Parquet, 16 bits": as_parquet(arrow(pyarrow.float32(), pyarrow.uint16())),
    "Parquet, decimals": as_parquet(arrow(pyarrow.decimal128(5, 3), pyarrow.decimal128(38, 0))),
    "Parquet, whole numbers as floats": as_parquet(arrow(pyarrow.float32(), pyarrow.float32())),
    "Arrow": lambda _: arrow(pyarrow.float32()),
    "Arrow, decimals": lambda _: arrow(pyarrow.decimal128(5, 3), pyarrow.decimal128(38, 0)),
    "Arrow, list": lambda _: arrow(pyarrow.float32()).to_pylist(),
    "pandas": lambda _: pandas.DataFrame(COLUMNS),
    "pandas, 32 bits": lambda _: pandas.DataFrame(COLUMNS).astype({"cfg_scale": "float32"}),
    "pandas, of its own types": lambda _: pandas.DataFrame(COLUMNS).convert_dtypes(),
    "pandas, Float32": lambda _: pandas.DataFrame(COLUMNS).astype(
        {"cfg_scale": "Float32", "duration": "UInt8"}
    ),
    "pandas, Arrow's types": lambda _: arrow(pyarrow.float32()).to_pandas(
        types_mapper=pandas.ArrowDtype
    ),
    "pandas, categories": lambda _: pandas.DataFrame(COLUMNS).astype("category"),
    "polars": lambda _: polars.DataFrame(COLUMNS),
    "polars, 32 bits": lambda _: polars.DataFrame(COLUMNS).cast(
        {"cfg_scale": polars.Float32, "duration": polars.UInt8}
    ),
    "polars, decimals": lambda _: polars.DataFrame(COLUMNS).cast(
        {"cfg_scale": polars.Decimal(10, 2), "duration": polars.Decimal(10, 0)}
    ),
    "DuckDB, rows": asked("SELECT * FROM base", "rows"),
    "DuckDB, pandas": asked("SELECT * FROM base", "df"),
    "DuckDB, 32 bits": asked(SINGLE, "rows"),
    "DuckDB, 32 bits, pandas": asked(SINGLE, "df"),
    "DuckDB, 32 bits, polars": asked(SINGLE, "pl"),
    "DuckDB, 32 bits, Arrow": asked(SINGLE, "records"),
    "DuckDB, decimals": asked(DECIMALS, "rows"),
    "DuckDB, decimals, pandas": asked(DECIMALS, "df"),
    "DuckDB, decimals, Arrow": asked(DECIMALS, "records"),
    "DuckDB, texts": asked(TEXTS, "rows"),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_table_is_the_same_rows_whatever_read_it(engine, tmp_path):
    assert ids(ENGINES[engine](tmp_path)) == ids(RECORDS)


CAMERA = "kling-video/v2.1/pro/image-to-video"
ELEMENTS = "klingai/video-v3-omni-1080p-image-to-video"
SHOTS = "klingai/video-v3-turbo-pro-text-to-video"
SEEN = {"image_url": "https://example.com/cat.png"}
NESTED = [
    {
        "model": CAMERA,
        "prompt": "a",
        **SEEN,
        "camera_control": {"type": "simple", "config": {"pan": 0.7}},
        "dynamic_masks": [
            {
                "mask": "https://example.com/m.png",
                "trajectories": [{"x": 1, "y": 2}, {"x": 3, "y": 4}],
            }
        ],
        "extra": {"seed": 7, "weights": [0.1, 0.7]},
    },
    {"model": CAMERA, "prompt": "b", **SEEN, "extra": {"seed": 8}},
    {"model": CAMERA, "prompt": "c", **SEEN, "camera_control": {"type": "down_back"}},
    {
        "model": ELEMENTS,
        "prompt": "d",
        **SEEN,
        "elements": [
            {
                "frontal_image_url": "https://example.com/f.png",
                "reference_image_urls": ["https://example.com/1.png"],
            },
            {"reference_image_urls": ["https://example.com/1.png", "https://example.com/2.png"]},
        ],
    },
    {"model": SHOTS, "multi_prompt": [{"prompt": "A boat", "duration": 2}, {"prompt": "It sinks"}]},
]
TEXT, SINGLE_PRECISION = pyarrow.string(), pyarrow.float32()
NESTED_TYPES = pyarrow.schema(
    {
        "model": TEXT,
        "prompt": TEXT,
        "image_url": TEXT,
        "camera_control": pyarrow.struct(
            {
                "type": TEXT,
                "config": pyarrow.struct({"pan": SINGLE_PRECISION, "zoom": SINGLE_PRECISION}),
            }
        ),
        "dynamic_masks": pyarrow.list_(
            pyarrow.struct(
                {
                    "mask": TEXT,
                    "trajectories": pyarrow.list_(
                        pyarrow.struct({"x": pyarrow.int16(), "y": SINGLE_PRECISION})
                    ),
                }
            )
        ),
        "multi_prompt": pyarrow.list_(
            pyarrow.struct({"prompt": TEXT, "duration": pyarrow.decimal128(5, 1)})
        ),
        "elements": pyarrow.list_(
            pyarrow.struct({"frontal_image_url": TEXT, "reference_image_urls": pyarrow.list_(TEXT)})
        ),
        "extra": pyarrow.struct(
            {"seed": pyarrow.int32(), "weights": pyarrow.list_(SINGLE_PRECISION)}
        ),
    }
)


def decimals(rows):
    """The rows with decimals where a column of the table below has them: Arrow asks for it."""
    first, second = rows[-1]["multi_prompt"]
    first = {**first, "duration": decimal.Decimal(first["duration"])}
    return [*rows[:-1], {**rows[-1], "multi_prompt": [first, second]}]


def nested():
    return pyarrow.Table.from_pylist(decimals(NESTED), NESTED_TYPES)


def nested_csv(folder):
    path = folder / "nested.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, NESTED_TYPES.names)
        writer.writeheader()
        for row in NESTED:
            texts = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()}
            writer.writerow(texts)
    return path


NESTED_ENGINES = {
    "CSV": nested_csv,
    "Parquet": lambda folder: as_parquet(nested())(folder),
    "pandas": lambda _: nested().to_pandas(),
    "pandas, Arrow's types": lambda _: nested().to_pandas(types_mapper=pandas.ArrowDtype),
    "polars": lambda _: polars.from_arrow(nested()),
    "Arrow": lambda _: nested(),
    "Arrow, list": lambda _: nested().to_pylist(),
}


@pytest.mark.parametrize("engine", NESTED_ENGINES)
def test_structures_with_holes_are_the_same_rows_whatever_read_them(engine, tmp_path):
    """A struct of Parquet has all of its fields in every row; the holes are not sent."""
    assert ids(NESTED_ENGINES[engine](tmp_path)) == ids(NESTED)


def test_a_map_of_arrow_is_an_object():
    kind = pyarrow.map_(pyarrow.string(), pyarrow.float32())
    table = pyarrow.table({"prompt": ["a"], "extra": pyarrow.array([[("strength", 0.7)]], kind)})
    assert ids(table.to_pylist()) == ids([{"prompt": "a", "extra": {"strength": 0.7}}])


def test_a_ratio_that_a_spreadsheet_took_for_a_time_of_day_is_the_ratio():
    ratios = ["16:09:00", "16:09", datetime.time(16, 9), " 16:9 "]
    found = {ids([{"prompt": "a", "aspect_ratio": ratio}])[0] for ratio in ratios}
    assert found == set(ids([{"prompt": "a", "aspect_ratio": "16:9"}]))
