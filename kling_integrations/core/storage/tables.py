"""Reading a table of rows: CSV, JSON Lines, JSON or Parquet, from a file or a stream."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..batch.results import is_results, result_column
from ..batch.rows import Table
from ..errors import InvalidRequestError, NextStep, Verb
from ..values import is_missing
from . import file_names, object_files

_LONGEST_CELL = 100 * 2**20  # characters: a picture in a cell
_DELIMITERS = ",;\t|"
_SAID = re.compile(r"\"?sep=(.)\"?\r?\n", re.IGNORECASE)
JSON_LINES = (".jsonl", ".ndjson")


def at(where: str) -> Table:
    """The table at a path as a user writes it, or at an address in object storage."""
    if object_files.is_address(where):
        table = parse(object_files.read(where), where.rpartition("/")[2])
        return replace(table, source=where)
    if where[:6].lower() == "file:/":
        where = file_names.target_of(where)
    return read(Path(where).expanduser())


def read(path: Path) -> Table:
    """The table in a file, by its name's ending: .csv, .tsv, .jsonl, .ndjson, .json or .parquet.

    Any other is read as JSON Lines where it begins with a brace, else as CSV. Raises
    InvalidRequestError for what cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror or error}.") from None
    return replace(parse(data, path.name, folder=path.parent), source=path)


def parse(data: bytes, name: str = "", *, folder: Path | None = None) -> Table:
    """The table in the bytes of a file; ``name`` is for its ending and for messages."""
    ending = Path(name).suffix.lower()
    if ending in (".parquet", ".pq") or data[:4] == b"PAR1":
        return _parquet(data, name, folder)
    if data[:4] == b"PK\x03\x04" or data[:4] == b"\xd0\xcf\x11\xe0":
        raise InvalidRequestError(
            f"{name or 'The table'} is a workbook or an archive: save the sheet as CSV (UTF-8)."
        )
    text = _decoded(data, name)
    start = text.lstrip()[:1]
    if ending == ".json" or (ending not in (".csv", ".tsv", *JSON_LINES) and start == "["):
        return _json(text, name, folder)
    if ending in JSON_LINES or (ending not in (".csv", ".tsv") and start == "{"):
        return _json_lines(text, folder)
    return _csv(text, name, folder)


def from_records(records: Sequence[Mapping[str, Any]]) -> Table:
    """Rows that are at hand. Raises InvalidRequestError for a row that is no mapping."""
    columns: dict[str, None] = {}
    records = [{"prompt": None} if is_missing(each) else each for each in records]
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping):
            raise InvalidRequestError(
                f"Row {number} is a {type(record).__name__}: a row maps columns to values."
            )
        columns.update(dict.fromkeys(map(str, record)))
    return Table(
        list(columns), [{str(name): cell for name, cell in each.items()} for each in records]
    )


def _decoded(data: bytes, name: str) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        line = data[: getattr(error, "start", 0)].count(b"\n") + 1
        raise InvalidRequestError(
            f"{name or 'The table'} is no UTF-8 text (line {line}): save it as UTF-8."
        ) from None


def _csv(text: str, name: str, folder: Path | None) -> Table:
    if "\0" in text:
        raise InvalidRequestError(f"{name or 'The table'} is no text: it holds zero bytes.")
    before = csv.field_size_limit(_LONGEST_CELL)
    said = _SAID.match(text)  # the line with which spreadsheets are told the delimiter
    start = first = 2 if said else 1
    text = text[said.end() :] if said else text
    try:
        # Strict: a quote that is not closed would swallow the rows after it, in one paid prompt.
        delimiter = said[1] if said else _delimiter(text, name)
        # After a space a quote would be a sign of the text: 'A2, "An owl"'.
        spaced = bool(re.search(rf"{re.escape(delimiter)} +\"", text))
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced, strict=True
        )
        lines, starts = [], []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append(cells)
                starts.append(start)
            start = reader.line_num + first
    except csv.Error as error:
        raise InvalidRequestError(
            f"{name or 'The table'} is no CSV: in the row from line {start} on, {error}. A quote "
            "within a text is written twice, and the text is between quotes."
        ) from None
    finally:
        csv.field_size_limit(before)
    if not lines:
        raise InvalidRequestError(f"{name or 'The table'} is empty.")
    columns = _unique([cell.strip() for cell in lines[0]])
    records, bad = [], {}
    for number, cells in enumerate(lines[1:], 1):
        if any(cell.strip() for cell in cells[len(columns) :]):
            bad[number] = (
                f"it has {len(cells)} cells, the header {len(columns)}: a comma in a text needs "
                "quotes around it"
            )
        records.append(dict(zip(columns, cells, strict=False)))
    return Table(columns, records, folder, bad, starts[1:])


def _delimiter(text: str, name: str) -> str:
    """By the header: what stands in it most often outside of quotes."""
    if Path(name).suffix.lower() == ".tsv":
        return "\t"
    lines = text.lstrip("\r\n").splitlines()
    header = "".join(lines[0].split('"')[::2]) if lines else ""
    return max(_DELIMITERS, key=lambda sign: (header.count(sign), -_DELIMITERS.index(sign)))


def _unique(names: Sequence[str]) -> list[str]:
    """Names for all columns: ``column 3`` for one without, ``size (2)`` for the second ``size``."""
    found: list[str] = []
    for number, name in enumerate(names, 1):
        name = name or f"column {number}"
        count, shown = 1, name
        while shown in found:
            count += 1
            shown = f"{name} ({count})"
        found.append(shown)
    return found


def _json_lines(text: str, folder: Path | None) -> Table:
    columns: dict[str, None] = {}
    records: list[Mapping[str, Any]] = []
    bad, starts = {}, []
    results: dict[str, int] = {}
    # Not splitlines: a text may hold other signs for a line's end.
    for start, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            record, bad[len(records) + 1] = {}, f"it is no JSON ({error})"
        if not isinstance(record, dict):
            bad[len(records) + 1] = f"it is a JSON {type(record).__name__}, not an object"
            record = {}
        columns.update(dict.fromkeys(record))
        row_id = record.get(result_column(record, "row_id") or "") if is_results(record) else None
        if row_id and results.setdefault(row_id, len(records)) < len(records):
            records[results[row_id]] = record  # of a row of results the last line counts
            continue
        records.append(record)
        starts.append(start)
    return Table(list(columns), records, folder, bad, starts)


def _json(text: str, name: str, folder: Path | None) -> Table:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name or 'The table'} is no JSON: {error}.") from None
    if not isinstance(rows, list):
        raise InvalidRequestError(f"{name or 'The table'} is no list of rows.")
    table = from_records(rows)
    return Table(table.columns, table.records, folder)


def _parquet(data: bytes, name: str, folder: Path | None) -> Table:
    parquet = needed("pyarrow.parquet")
    try:
        table = parquet.read_table(io.BytesIO(data))
    except Exception as error:  # noqa: BLE001 (Arrow has errors of its own)
        what = name or "The table"
        raise InvalidRequestError(f"{what} is no Parquet file: {str(error)[:200]}.") from None
    return Table(_unique(table.column_names), table.to_pylist(), folder)


def needed(module: str) -> Any:
    """A library of the extra ``tables``. Raises InvalidRequestError where it is not installed."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise InvalidRequestError(
            f"Parquet needs {module.partition('.')[0]}.",
            next_steps=[NextStep(Verb.INSTALL, detail="tables")],
        ) from None
