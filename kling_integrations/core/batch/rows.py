"""Rows: what each asks for, and what makes it the same row again. Pictures are read, no more I/O.

A row is known by what it asks for and by its key; without a key, by how many rows before it ask
for the same. So a table can be sorted, cut and added to: what is paid for is found again. A row
that is changed is a new row.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .. import catalog, identity
from ..errors import InvalidRequestError, NextStep, Verb
from ..request import VideoRequest
from ..validation import without_warnings
from . import cells
from .results import Result, RowStatus

_WIRE_NAME = re.compile(r"^(tail_|last_)?image(_url)?: ")  # the column is named already
_KEYED = 2**40  # takes from here on belong to rows with a key
_LONGEST_KEY = 200  # characters
_LONGEST_LABEL = 60  # characters
_CLOSE = 0.8  # how alike two names are, from 0 to 1, that may be meant as one
_ALIKE = 4  # rows with the same trouble, from which on they are one line
_MOST_SKIPPED = 50  # lines about rows that are left out
_READERS = 16  # pictures that are read from object storage side by side
_SOME_PICTURE = "https://picture.invalid/"  # stands for one that need not be read again


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as they were given: ``records`` maps columns to cells, in the order of ``columns``.

    ``folder`` is where relative paths of pictures start, besides the current folder. ``bad`` are
    rows (by their number from 1) that could not be read as such, with the reason. ``lines`` says
    for each row on which line of its file it begins, where there is a file with lines; ``index``
    what a DataFrame calls it, where there is one with an index. ``source`` is the file or address
    that the table was read from.
    """

    columns: Sequence[str]
    records: Sequence[Mapping[str, Any]]
    folder: Path | None = None
    bad: Mapping[int, str] = field(default_factory=dict)
    lines: Sequence[int] = ()
    index: Sequence[object] = ()
    source: Path | str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row that can be submitted. ``number`` counts from 1, ``duration`` is in seconds.

    ``take`` tells it from other rows that ask for the same, in the records of payments;
    ``account`` is the gateway, in the form of ``identity.account``: the sandbox's video of a row
    is not the row's video.
    """

    number: int
    key: str | None
    take: int
    fingerprint: str
    model: str
    prompt: str | None
    duration: int | None
    account: str
    parameters: Mapping[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """What the row is known by, also after a restart: 24 hexadecimal digits."""
        text = f"{self.account} {self.fingerprint} {self.take}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def pictures(self) -> list[Any]:
        """The pictures that the row names, as it names them."""
        return [value for name, value in self.parameters.items() if cells.is_image(name)]

    def request(self) -> VideoRequest:
        """The request, made anew: thousands of rows with pictures would not fit into memory.

        Raises InvalidRequestError where it is not what was checked, because a picture changed.
        """
        with without_warnings():  # they were said when the table was checked
            request = VideoRequest(**self.parameters)
        if request.fingerprint != self.fingerprint:
            raise InvalidRequestError("A picture of this row changed after the table was checked.")
        return request


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be submitted. ``row`` counts from 1; ``column`` is empty where unknown.

    ``line`` is where the row begins in its file, ``index`` what a DataFrame calls it; None where it
    has none.
    """

    row: int
    column: str
    reason: str
    line: int | None = None
    index: str | None = None

    def __str__(self) -> str:
        where = ""
        if self.index is not None:
            where = f" (index {self.index})"
        elif self.line not in (None, self.row):
            where = f" (line {self.line})"
        return f"row {self.row}{self._what}{where}"

    def result(self) -> Result:
        """The result of the row: it was refused."""
        refused = Result(self.row, "", RowStatus.REFUSED)
        reason = f"{self.column}: {self.reason}" if self.column else self.reason
        refused.end(RowStatus.REFUSED, "input", reason)
        return refused

    @property
    def _what(self) -> str:
        return f"{f', {self.column}' if self.column else ''}: {self.reason}"


def listed(problems: Sequence[Problem], most: int) -> list[str]:
    """A line for each, those with the same trouble together, and at most so many lines."""
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.column, problem.reason), []).append(problem)
    lines: list[str] = []
    for group in alike.values():
        if len(group) < _ALIKE:
            lines += map(str, group)
        else:
            some = ", ".join(str(each.row) for each in group[: _ALIKE - 1])
            more = f" and {len(group) - _ALIKE + 1:,} more"
            lines.append(f"rows {some}{more}{group[0]._what}")
    if len(lines) > most:
        lines[most:] = [f"… and {len(lines) - most:,} more"]
    return lines


@dataclass(frozen=True, slots=True)
class Checked:
    """A table that was read through. ``notes`` are warnings, each said once."""

    rows: list[Row]
    problems: list[Problem]
    notes: list[str]

    def skipped(self) -> list[str]:
        """What is left out where the good rows go ahead, in a bounded number of lines."""
        return listed(self.problems, _MOST_SKIPPED)


def check(
    table: Table,
    base_url: str,
    defaults: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    *,
    opened: Callable[[str], Any] | None = None,
    known: Mapping[int, str] | None = None,
) -> Checked:
    """Every row as a request, or with what is wrong with it. Nothing is sent.

    ``defaults`` are parameters of VideoRequest for cells that say nothing. ``names`` says which
    column is meant by a parameter or by ``key`` (``{"prompt": "text"}``). ``opened`` makes a
    picture of an address in object storage, which is else read with the platform's credentials.
    ``known`` are fingerprints by the numbers of rows whose pictures are not read again. Raises
    InvalidRequestError for a table that cannot be meant at all.
    """
    account = identity.account(base_url)
    return _Check(table, account, defaults or {}, names or {}, opened, known or {}).run()


def meant(
    table: Table, given: Mapping[str, Any], key: str | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """``defaults`` and ``names`` for ``check``, out of what a user gives for all rows.

    A prompt or picture that is the name of a column means that column; any other value is what
    rows without one of their own get. Raises InvalidRequestError for a prompt of one word that
    is no column: a typing error would be paid for with every row.
    """
    defaults = {name: value for name, value in given.items() if value is not None}
    names = {} if key is None else {"key": key}
    for name in ("prompt", "image", "tail_image"):
        value = defaults.get(name)
        if not isinstance(value, str):
            continue
        one_word = name == "prompt" and not re.search(r"\s", value.strip())
        if value in table.columns or one_word:
            names[name] = defaults.pop(name)
    return defaults, names


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is kept of a row's request."""

    fingerprint: str
    model: str
    prompt: str | None
    duration: int | None


class _Check:
    def __init__(
        self,
        table: Table,
        account: str,
        defaults: Mapping[str, Any],
        names: Mapping[str, str],
        opened: Callable[[str], Any] | None,
        known: Mapping[int, str],
    ) -> None:
        self._opened = opened
        self._known = known
        self._ahead: dict[int, _Asked | InvalidRequestError] = {}
        self._table = table
        self._account = account
        self._defaults = {name: value for name, value in defaults.items() if value is not None}
        self._columns = _parameter_columns(table.columns, names)
        self._takes: Counter[str] = Counter()
        self._keys: dict[str, int] = {}
        self._notes: dict[str, None] = {}
        self._problems: list[Problem] = []

    def run(self) -> Checked:
        if not self._table.records:
            raise InvalidRequestError("The table has no rows.")
        rows = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._read_ahead()
            for number, record in enumerate(self._table.records, 1):
                if reason := self._table.bad.get(number):
                    self._refuse(number, "", reason)
                elif row := self._row(number, record):
                    rows.append(row)
                self._notes.update(dict.fromkeys(str(each.message) for each in caught))
                caught.clear()
        if not rows:
            self._check_prompts()
        return Checked(rows, self._problems, [*self._misspelt(), *self._notes])

    def _check_prompts(self) -> None:
        """One sentence where all rows are bad because nothing says where the prompts are."""
        lost = all("needs a prompt" in problem.reason for problem in self._problems)
        if lost and not {"prompt"} & {*self._columns, *self._defaults}:
            raise InvalidRequestError(
                f"The table has no column 'prompt'. Its columns: {_shown(self._table.columns)}.",
                next_steps=[NextStep(Verb.NAME_PROMPTS)],
            )

    def _misspelt(self) -> Iterator[str]:
        """Columns that are carried through, and were perhaps meant as parameters."""
        known = [name for name in (*cells.NAMED, "key") if name not in self._columns]
        for column in self._table.columns:
            if column not in self._columns.values():
                close = get_close_matches(cells.folded(column), known, 1, _CLOSE)
                if close:
                    yield (
                        f"The column {column!r} is no parameter and is carried through. For "
                        f"{close[0]} it has to be called so."
                    )

    def _row(self, number: int, record: Mapping[str, Any]) -> Row | None:
        cell = self._columns.get("key")
        key = _key(record.get(cell)) if cell else None
        parameters = self._parameters(record)
        try:
            if key is not None and (first := self._keys.setdefault(key, number)) != number:
                raise _KeyTwiceError(f"the key {key[:40]!r} is that of row {first}, too")
            asked = self._ahead.pop(number, None) or self._asked(number, parameters)
            if isinstance(asked, InvalidRequestError):
                raise asked
        except _KeyTwiceError as error:
            self._refuse(number, cell or "", str(error))
            return None
        except InvalidRequestError as error:
            column = self._column_of(error.message)
            reason = _WIRE_NAME.sub("", error.message) if column else error.message
            self._refuse(number, column, reason.rstrip("."))
            return None
        return Row(
            number,
            key,
            self._take(asked.fingerprint, key),
            asked.fingerprint,
            asked.model,
            asked.prompt,
            asked.duration,
            self._account,
            parameters,
        )

    def _refuse(self, number: int, column: str, reason: str) -> None:
        lines, index = self._table.lines, self._table.index
        line = lines[number - 1] if lines else None
        label = repr(index[number - 1])[:_LONGEST_LABEL] if len(index) else None
        self._problems.append(Problem(number, column, reason, line, label))

    def _asked(self, number: int, parameters: Mapping[str, Any]) -> _Asked:
        known = self._known.get(number)
        if known:
            instead = {name: _SOME_PICTURE for name in parameters if cells.is_image(name)}
            parameters = {**parameters, **instead}
        request = VideoRequest(**parameters)
        return _Asked(known or request.fingerprint, request.model, request.prompt, request.duration)

    def _read_ahead(self) -> None:
        """Reads pictures in object storage side by side: one after the other takes minutes."""

        def asked(row: tuple[int, dict[str, Any]]) -> _Asked | InvalidRequestError:
            try:
                return self._asked(*row)
            except InvalidRequestError as error:
                return error

        rows = []
        for number, record in enumerate(self._table.records, 1):
            parameters = self._parameters(record)
            pictures = (value for name, value in parameters.items() if cells.is_image(name))
            if number not in self._known and any(map(cells.is_remote, pictures)):
                rows.append((number, parameters))
        if rows:
            with ThreadPoolExecutor(_READERS, "kling-pictures") as pool:
                numbers = (number for number, _ in rows)
                self._ahead = dict(zip(numbers, pool.map(asked, rows), strict=True))

    def _parameters(self, record: Mapping[str, Any]) -> dict[str, Any]:
        model_column = self._columns.get("model")
        model = plain_text(record.get(model_column)) if model_column else None
        model = model or str(self._defaults.get("model", catalog.DEFAULT_MODEL))
        known = cells.wire_names(model)
        given: dict[str, Any] = {"model": model}
        for name, column in self._columns.items():
            if name in ("model", "key") or not (name in cells.NAMED or name in known):
                continue
            cell = record.get(column)
            if not cells.is_blank(cell):
                value = cells.value_of(model, name, cell)
                given[name] = self._located(value) if cells.is_image(name) else value
        return {**self._defaults, **given}

    def _located(self, value: Any) -> Any:
        """A picture's path: beside the table where it is there, else as it is."""
        if self._opened is not None and isinstance(value, str) and cells.is_remote(value):
            return self._opened(value)
        folder = self._table.folder
        if folder is None or not isinstance(value, str) or len(value) > 1000 or ":" in value:
            return value
        beside = os.path.join(folder, value)
        return beside if os.path.isfile(beside) else value

    def _take(self, fingerprint: str, key: str | None) -> int:
        if key is not None:
            return _KEYED + int(hashlib.sha256(key.encode()).hexdigest()[:12], 16)
        self._takes[fingerprint] += 1
        return self._takes[fingerprint]

    def _column_of(self, message: str) -> str:
        """The column that a refusal is about, as far as it says so."""
        words = re.findall(r"\w+", message.lower())
        aliases = {"image_url": "image", "tail_image_url": "tail_image", "generate_audio": "audio"}
        for word in [*words[:1], *words]:
            name = aliases.get(word, word)
            for each in (word, name):
                if each in self._columns:
                    return self._columns[each]
        return next((word for word in words if word in cells.NAMED), "")


class _KeyTwiceError(Exception):
    pass


def plain_text(cell: Any) -> str | None:
    """A cell as text; None for one that says nothing."""
    return None if cells.is_blank(cell) else str(cells.plain(cell)).strip()


def _key(cell: Any) -> str | None:
    text = plain_text(cell)
    # 7 and 7.0 are one key: a column of whole numbers becomes floats where one is missing.
    if text is not None and isinstance(cells.plain(cell), float):
        text = text.removesuffix(".0")
    return text if text is None or len(text) <= _LONGEST_KEY else text[:_LONGEST_KEY]


def _shown(columns: Sequence[str]) -> str:
    return ", ".join(f"{each!r}" for each in columns[:20]) + (", …" if len(columns) > 20 else "")


def _parameter_columns(columns: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """Which column each parameter (and ``key``) is in; the others are the user's own.

    A column has the parameter's name, or is named for it. Raises InvalidRequestError.
    """
    columns = list(columns)
    found: dict[str, str] = {}
    for name, column in names.items():
        if column not in columns:
            raise InvalidRequestError(
                f"The table has no column {column!r}.{catalog.did_you_mean(column, columns)} "
                f"Its columns: {_shown(columns)}."
            )
        found[name] = column
    known = {*cells.NAMED, "key"} | {name for m in catalog.models() for name in m.parameters}
    for column in columns:
        name = cells.folded(column)
        if name not in known or name in names or column in names.values():
            continue
        if name in found:
            raise InvalidRequestError(
                f"The columns {found[name]!r} and {column!r} both mean {name}: rename one of them."
            )
        found[name] = column
    return found
