"""Results on disk: a line of JSON as each row ends, and the whole table, in order, at the end."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..batch.results import Result
from ..errors import InvalidRequestError, NextStep, Verb
from . import safe_files
from .tables import needed

FORMATS = (".jsonl", ".csv", ".parquet")


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
    return path if path.suffix.lower() == ".jsonl" else path.with_suffix(".jsonl")


class Journal:
    """JSON Lines to which each result is added as its row ends.

    Every line is whole, or it is the last one of a process that was killed while it wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def earlier(self) -> dict[str, Result]:
        """The results of earlier runs by the id of their row; the last line of a row counts.

        Raises InvalidRequestError for a file that is no such journal: it is somebody's own.
        """
        found: dict[str, Result] = {}
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
            elif line.strip() and number < len(lines):  # a last line without an end was cut
                raise InvalidRequestError(
                    f"{self.path} exists and holds no results of a batch (line {number}): it is "
                    "left as it is, and nothing was submitted.",
                    next_steps=[NextStep(Verb.SET_OUTPUT)],
                )
        return found

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


def is_ours(path: Path) -> bool:
    """Whether a results table at ``path`` was made here, so that it may be replaced."""
    try:
        if path.suffix.lower() == ".parquet":
            names = needed("pyarrow.parquet").read_schema(path).names
        else:
            with path.open(encoding="utf-8", newline="") as file:
                head = file.readline(1_000_000)
            names = list(json.loads(head)) if path.suffix == ".jsonl" else next(csv.reader([head]))
    except Exception:  # noqa: BLE001 (whatever it is, it is none of ours)
        return False
    return any(name in names for name in ("row_id", "kling_row_id"))


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, overwrite: bool = True
) -> Path:
    """The whole table, as its name's ending says; in place of what is there, or not at all.

    Raises InvalidRequestError for a target that is no file's place, OSError from the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with safe_files.whole_file(path, overwrite=overwrite) as file:
        match path.suffix.lower():
            case ".csv":
                _write_csv(file, columns, rows)
            case ".parquet":
                _write_parquet(file, columns, list(rows))
            case _:
                for row in rows:
                    file.write(_line({name: row.get(name) for name in columns}))
    return path


def _write_csv(file: BinaryIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in columns])
    text.flush()
    text.detach()


def _write_parquet(
    file: BinaryIO, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    arrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    arrays = []
    for name in columns:
        values = [row.get(name) for row in rows]
        try:
            arrays.append(arrow.array(values, from_pandas=True))
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError):
            arrays.append(arrow.array([_cell(value) for value in values]))  # of mixed types: text
    parquet.write_table(arrow.table(arrays, names=list(columns)), file)


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _line(row: Mapping[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, default=str)
    return text.encode("utf-8", errors="backslashreplace") + b"\n"


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
