"""Results as files: a line of JSON as each row ends, and the whole table, in order, at the end.

A row that is paid for must not be lost because of what its other columns hold: a cell that a
format cannot hold is written as text.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from .. import values
from ..batch.results import Result, RowStatus, encodable, is_results
from ..errors import InvalidRequestError, NextStep, Verb
from . import object_files, safe_files
from .tables import JSON_LINES, needed

FORMATS = (*JSON_LINES, ".csv", ".parquet")
_DEEPEST = 50  # levels of lists and objects in a cell; what is deeper is written as text
_NOTHING_PAID = (RowStatus.NOT_SUBMITTED, RowStatus.REFUSED)


def check_target(path: Path) -> None:
    """Raises InvalidRequestError for a results file that cannot be, before anything is paid."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidRequestError(
            f"Results are written as .jsonl, .csv or .parquet: {path.name!r} ends otherwise."
        )
    if path.suffix.lower() == ".parquet":
        needed("pyarrow.parquet")
    safe_files.check_target(path)


def journal_of(path: Path) -> Path:
    """The JSON Lines that are written while the rows end, beside the table that is asked for."""
    return path if path.suffix.lower() in JSON_LINES else path.with_suffix(".jsonl")


class Journal:
    """JSON Lines to which each result is added as its row ends.

    Every line is whole, or it is the last one of a process that was killed while it wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._lines: dict[str, bytes] = {}

    def earlier(self) -> dict[str, Result]:
        """The results of earlier runs by the id of their row; the last line of a row counts.

        Raises InvalidRequestError for a file that is no such journal: it is somebody's own.
        """
        found: dict[str, Result] = {}
        held: dict[str, bytes] = {}
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return found
        except OSError as error:
            raise InvalidRequestError(
                f"{self.path} cannot be read: {error.strerror or error}."
            ) from None
        for number, line in enumerate(lines, 1):
            if line.strip() and (result := result_of(line)):
                found[result.row_id] = result
                held[result.row_id] = line
            elif line.strip() and number < len(lines):  # a last line without an end was cut
                raise InvalidRequestError(
                    f"{self.path} exists and holds no results of a batch (line {number}): it is "
                    "left as it is, and nothing was submitted.",
                    next_steps=[NextStep(Verb.SET_OUTPUT)],
                )
        self._lines = held
        return found

    def others(self, row_ids: Iterable[str]) -> list[bytes]:
        """The lines of other rows: of another table, or of rows that this one has no more.

        They are the record of what was paid for; a row for which nothing was is left out.
        """
        with suppress(InvalidRequestError):  # what another run added since ``earlier``
            self.earlier()
        known = {"", *row_ids}
        lines = ((each, result_of(line), line) for each, line in self._lines.items())
        return [
            line
            for row_id, result, line in lines
            if row_id not in known and result and _tells_of_a_generation(result)
        ]

    def add(self, row: Mapping[str, Any]) -> None:
        """A row with its result's columns, the last ones. Raises OSError from the disk."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+")
            self._end_cut_line()
        self._file.write(_line(row))
        self._file.flush()

    def _end_cut_line(self) -> None:
        """Drops a last line that a killed process left without an end."""
        assert self._file is not None
        self._file.seek(0)
        held = self._file.read()
        if held and not held.endswith(b"\n"):
            self._file.truncate(held.rfind(b"\n") + 1)
        self._file.seek(0, io.SEEK_END)

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


def _tells_of_a_generation(result: Result) -> bool:
    return bool(result.generation_id) or result.status not in _NOTHING_PAID


def check_address(address: str, *, overwrite: bool = False) -> None:
    """``check_target`` for results in object storage, where nothing but our results may be.

    Raises InvalidRequestError, also where the address cannot be read.
    """
    check_target(Path("/", address.rpartition("/")[2]))
    files, path = object_files.filesystem(address)
    if overwrite:
        return
    data = object_files.find(files, path, address)
    if data and not _has_our_columns(io.BytesIO(data), Path(address).suffix):
        raise not_ours(address)


def not_ours(target: Path | str) -> InvalidRequestError:
    """A file of the user's own is in the way of the results."""
    return InvalidRequestError(
        f"{str(target)!r} exists and was not made here: it is left as it is, and nothing was "
        "submitted.",
        next_steps=[NextStep(Verb.SET_OUTPUT)],
    )


def is_ours(path: Path) -> bool:
    """Whether a results table at ``path`` was made here, so that it may be replaced.

    A file without a byte is as good as none, and a journal may have been cut in its first line.
    """
    try:
        if path.stat().st_size == 0:
            return path.is_file()
        with path.open("rb") as file:
            return _has_our_columns(file, path.suffix)
    except OSError:
        return False


def _has_our_columns(file: BinaryIO, suffix: str) -> bool:
    try:
        if suffix.lower() == ".parquet":
            names = needed("pyarrow.parquet").read_schema(file).names
        elif suffix.lower() == ".csv":
            names = next(csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline="")))
        else:
            head = file.readline()
            return _is_cut(head) or result_of(head) is not None
    except Exception:  # noqa: BLE001 (whatever it is, it is none of ours)
        return False
    return is_results(names)


def _is_cut(line: bytes) -> bool:
    """Whether a line is the beginning of an object, which ends with the file."""
    if line.endswith(b"\n") or not line.startswith(b"{"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def is_input(path: Path | str, source: Path | str | None) -> bool:
    """Whether a results file is the file that the table is read from, however each is spelt."""
    if source is None:
        return False
    if isinstance(path, str) or isinstance(source, str):
        return object_files.same_address(str(path), str(source))
    try:
        return os.path.samefile(path, source)
    except (OSError, ValueError):
        return False


def write_table(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    overwrite: bool = True,
    others: Iterable[bytes] = (),
) -> Path:
    """The whole table, as its name's ending says; in place of what is there, or not at all.

    ``others`` are lines of a journal that are to stay in it, after these. Raises
    InvalidRequestError for a target that is no file's place, OSError from the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with safe_files.whole_file(path, overwrite=overwrite) as file:
        _write(file, path.suffix, columns, rows)
        for line in others:
            file.write(line + b"\n")
    return path


def write_table_at(address: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """``write_table`` for an address in object storage. Raises InvalidRequestError."""
    held = io.BytesIO()
    _write(held, Path(address).suffix, columns, rows)
    object_files.write(address, held.getvalue())


def _write(
    file: BinaryIO, suffix: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    match suffix.lower():
        case ".csv":
            _write_csv(file, columns, rows)
        case ".parquet":
            _write_parquet(file, columns, list(rows))
        case _:
            for row in rows:
                file.write(_line({name: row.get(name) for name in columns}))


def _write_csv(file: BinaryIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(storable(row.get(name))) for name in columns])
    text.flush()
    text.detach()


def _write_parquet(
    file: BinaryIO, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    names = [encodable(name) for name in columns]
    arrays = [_array(arrow, parquet, [storable(row.get(name)) for row in rows]) for name in columns]
    parquet.write_table(arrow.table(arrays, names=names), file)


def _array(arrow: Any, parquet: Any, cells: list[Any]) -> Any:
    """A column of Parquet: of the type of its cells where they have one that it can hold."""
    whole = all(cell is None or type(cell) is int for cell in cells)
    for kind in (None, arrow.uint64()) if whole else (None,):
        # Arrow raises errors of its own, OverflowError, UnicodeError and what an object raises.
        with suppress(Exception):
            array = arrow.array(cells, kind, from_pandas=True)
            if array.type.num_fields or not arrow.types.is_primitive(array.type):
                parquet.write_table(
                    arrow.table([array], names=["cell"]), arrow.BufferOutputStream()
                )
            return array
    return arrow.array([_cell(cell) for cell in cells], arrow.string())


def storable(cell: Any) -> Any:
    """A cell as the formats of results take it: None where it says nothing, and text where a
    format could not hold it (an object, keys that are no text, what contains itself).
    """
    try:
        return _held(cell, ())
    except Exception:  # noqa: BLE001 (an object of somebody else may raise anything)
        return _text(cell)


def _held(value: Any, within: tuple[int, ...]) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if values.is_missing(value):
        return None
    value = values.scalar(value)
    if isinstance(value, bool | int | float | date | time | timedelta | Decimal | bytes):
        if within and isinstance(value, float) and not math.isfinite(value):
            return None if value != value else str(value)
        return value
    items = values.listed(value)
    if items is None and not isinstance(value, Mapping):
        return _text(value)
    if id(value) in within or len(within) > _DEEPEST:
        raise ValueError("it contains itself, or is nested too deep")
    inside = (*within, id(value))
    if items is not None:
        return [_held(each, inside) for each in items]
    held = {
        encodable(name if isinstance(name, str) else str(name)): _held(each, inside)
        for name, each in value.items()
    }
    if len(held) < len(value):
        raise ValueError("two of its keys are the same text")
    return held


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    try:
        return encodable(str(value))
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__}>"


def _cell(value: Any) -> str | None:
    """A cell that is ``storable`` as the text of a CSV."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=_text)
    return _text(value)


def _line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON, which knows no infinity."""
    cells = {encodable(str(name)): storable(cell) for name, cell in row.items()}
    for name, cell in cells.items():
        if isinstance(cell, float) and not math.isfinite(cell):
            cells[name] = str(cell)
    return json.dumps(cells, ensure_ascii=False, default=_text).encode() + b"\n"


def result_of(line: bytes) -> Result | None:
    """The result that a line of a journal holds; None for anything else."""
    try:
        stored = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(stored, dict):
        return None
    known = {}
    for name, value in stored.items():  # the row's own columns come first: the last one is ours
        while name.startswith("kling_"):
            name = name.removeprefix("kling_")
        known[name] = value
    return Result.of(known)
