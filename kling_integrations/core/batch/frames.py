"""DataFrames and other tables of a program: taken as rows, and given back with the results.

pandas and polars are used where the caller brings them; neither is imported for anything else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .. import values
from ..errors import InvalidRequestError
from ..storage import tables
from ..storage.result_files import storable
from .results import own_columns
from .rows import Table


def is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def is_polars(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "polars" and hasattr(value, "to_dicts")


def table_of(value: Any) -> Table:
    """The rows of a DataFrame (pandas, polars), an Arrow table, a file, or a list of mappings or
    prompts, which a column of a DataFrame is, too.

    Raises InvalidRequestError for anything else.
    """
    if isinstance(value, str | os.PathLike):
        return tables.at(os.fspath(value))
    if is_pandas(value):
        columns = [str(name) for name in value.columns]
        if len(set(columns)) < len(columns):
            raise InvalidRequestError("Two columns of the DataFrame have the same name.")
        rows = value.itertuples(index=False, name=None)
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        return Table(columns, records, index=value.index.tolist())
    if is_polars(value):
        return Table(list(value.columns), value.to_dicts())
    if hasattr(value, "column_names") and hasattr(value, "to_pylist"):  # Arrow
        return Table(list(value.column_names), value.to_pylist())
    items = values.listed(value)
    if items is None and isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        items = list(value)
    if items is not None:
        return tables.from_records(
            [{"prompt": each} if isinstance(each, str) else each for each in items]
        )
    raise InvalidRequestError(
        f"A {type(value).__name__} is no table: give a DataFrame, a file, or a list of rows."
    )


def with_results(value: Any, names: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> Any:
    """What the caller gave with a column for each of ``names``: a DataFrame of the same kind.

    ``names`` is how each result column is called, ``rows`` the whole rows in their order. A pandas
    frame keeps its index. For a file or a list it is a pandas DataFrame where pandas is installed,
    else a list of mappings.
    """
    added = {shown: [row.get(shown) for row in rows] for shown in names.values()}
    if is_polars(value) or is_pandas(value):
        value = _without_results(value)
    if is_polars(value):
        polars = __import__("polars")
        series = [polars.Series(name, cells, strict=False) for name, cells in added.items()]
        return value.with_columns(series)
    if is_pandas(value):
        return value.assign(**added)
    try:
        import pandas
    except ImportError:
        return [dict(row) for row in rows]
    try:
        return pandas.DataFrame.from_records(list(rows))
    except Exception:  # noqa: BLE001 (what a cell holds must not lose the results)
        kept = [{name: storable(cell) for name, cell in row.items()} for row in rows]
        return pandas.DataFrame.from_records(kept)


def _without_results(frame: Any) -> Any:
    """A DataFrame without the columns that an earlier run added."""
    own = set(own_columns(map(str, frame.columns)))
    kept = [name for name in frame.columns if str(name) in own]
    return frame if len(kept) == len(frame.columns) else frame[kept]
