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
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .. import catalog, identity
from ..errors import InvalidRequestError, NextStep, Verb
from ..request import VideoRequest
from ..validation import placeholders, without_warnings
from . import cells
from .problems import Meant, Problem, listed
from .results import Result

_WIRE_NAME = re.compile(r"^(tail_|last_)?image(_url)?: ")  # the column is named already
_KEYED = 2**40  # takes from here on belong to rows with a key
_LONGEST_LABEL = 60  # characters
_CLOSE = 0.8  # how alike two names are, from 0 to 1, that may be meant as one
_FILLED = ("prompt", "negative_prompt", "image", "tail_image")  # what columns are filled into
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
    is not the row's video. ``older`` are takes, and ``fingerprints`` those of the request, under
    which earlier versions may have recorded it.
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
    older: tuple[int, ...] = ()
    fingerprints: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def id(self) -> str:
        """What the row is known by, also after a restart: 24 hexadecimal digits."""
        return self.id_with(self.take)

    def id_with(self, take: int, fingerprint: str | None = None) -> str:
        return row_id_of(self.account, fingerprint or self.fingerprint, take)

    def names(self) -> Iterator[tuple[str, int]]:
        """The fingerprints and takes under which it may be recorded, today's first."""
        for take in (self.take, *self.older):
            for fingerprint in self.fingerprints[:-1] or (self.fingerprint,):
                yield fingerprint, take

    def former_ids(self) -> Iterator[str]:
        """What earlier versions may have called it."""
        for fingerprint in self.fingerprints or (self.fingerprint,):
            for take in (self.take, *self.older):
                if (fingerprint, take) != (self.fingerprint, self.take):
                    yield self.id_with(take, fingerprint)

    def pictures(self) -> list[Any]:
        """The pictures that the row names, as it names them."""
        return [value for name, value in self.parameters.items() if cells.is_image(name)]

    def request(self) -> VideoRequest:
        """The request, made anew: thousands of rows with pictures would not fit into memory.

        Raises InvalidRequestError where it is not what was checked, because a picture changed.
        """
        with without_warnings():  # they were said when the table was checked
            request = VideoRequest(**self.parameters)
        if self.fingerprint not in request.fingerprints:
            raise InvalidRequestError("A picture of this row changed after the table was checked.")
        return request


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
    raw: bool = False,
) -> Checked:
    """Every row as a request, or with what is wrong with it. Nothing is sent.

    ``defaults`` are parameters of VideoRequest for cells that say nothing. ``names`` says which
    column is meant by a parameter or by ``key`` (``{"prompt": "text"}``). ``opened`` makes a
    picture of an address in object storage, which is else read with the platform's credentials.
    ``known`` are fingerprints by the numbers of rows whose pictures are not read again. Texts that
    look like what is left of a missing value, of a header or of a template make a row bad, and
    columns are filled into the texts of ``defaults``, unless they are ``raw``. Raises
    InvalidRequestError for a table that cannot be meant at all.
    """
    account = identity.account(base_url)
    return _Check(table, account, defaults or {}, names or {}, opened, known or {}, raw).run()


def row_id_of(base_url: str, fingerprint: str, take: int) -> str:
    """What a row is known by in results; of its request, and its number or key."""
    text = f"{identity.account(base_url)} {fingerprint} {take}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def adopted(
    table: Table, rows: Iterable[Row], earlier: Mapping[str, Result]
) -> tuple[dict[str, Result], set[str]]:
    """The results of an earlier run under today's ids of their rows, and the ids that they had.

    A row may have been known otherwise: by an older form of its request or its key, without a key
    before its table had one, or by a key that is no longer asked for. Each result goes to one row.
    """
    rows = list(rows)
    left = dict(earlier)
    found = {row.id: left.pop(row.id) for row in rows if row.id in left}
    given_up: set[str] = set()
    same = Counter(row.fingerprint for row in rows)
    unkeyed: dict[str, list[str]] = {}

    def others(row: Row) -> Iterator[str]:
        yield from row.former_ids()
        if row.key is None:
            for cell in table.records[row.number - 1].values():
                with suppress(Exception):  # any object of the user's
                    if key := cells.normal_key(cell):
                        yield row.id_with(_take_of(key))
        elif row.fingerprint not in unkeyed:
            takes = range(1, same[row.fingerprint] + 1)
            unkeyed[row.fingerprint] = [row.id_with(take) for take in takes]
        if row.key is not None:
            yield from unkeyed[row.fingerprint]

    for row in rows:
        if row.id in found or not left:
            continue
        if before := next((each for each in others(row) if each in left), None):
            found[row.id] = replace(left.pop(before), row_id=row.id)
            given_up.add(before)
    return {**left, **found}, given_up


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
        is_text = re.search(r"\s", value.strip()) or placeholders(value, table.columns)
        one_word = name == "prompt" and not is_text
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
    fingerprints: tuple[str, ...]


class _Check:
    def __init__(
        self,
        table: Table,
        account: str,
        defaults: Mapping[str, Any],
        names: Mapping[str, str],
        opened: Callable[[str], Any] | None,
        known: Mapping[int, str],
        raw: bool,
    ) -> None:
        self._opened = opened
        self._known = known
        self._ahead: dict[int, _Asked | InvalidRequestError] = {}
        self._table = table
        self._account = account
        self._defaults = {name: value for name, value in defaults.items() if value is not None}
        self._columns = _parameter_columns(table.columns, names)
        self._templates = {
            name: cells.Template(value, table.columns)
            for name, value in self._defaults.items()
            if name in _FILLED and isinstance(value, str) and not raw
        }
        self._meant = Meant(table.records, table.columns, self._columns, self._templates, raw)
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
        column = self._columns.get("key", "")
        cell = record.get(column) if column else None
        try:
            self._meant.check_header(record)
            key = self._key(column, cell, number)
            parameters = self._parameters(record)
            self._meant.check(record, parameters)
            asked = self._ahead.pop(number, None) or self._asked(number, parameters)
            if isinstance(asked, InvalidRequestError):
                raise asked
        except cells.BadCellError as error:
            self._refuse(number, error.column, error.reason, literal=error.literal)
            return None
        except InvalidRequestError as error:
            column = self._column_of(error.message)
            reason = _WIRE_NAME.sub("", error.message) if column else error.message
            self._refuse(number, column, reason.rstrip("."))
            return None
        older = (
            () if key is None else tuple(_take_of(each) for each in cells.former_keys(cell, key))
        )
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
            older,
            asked.fingerprints,
        )

    def _key(self, column: str, cell: Any, number: int) -> str | None:
        try:
            key = cells.normal_key(cell)
        except Exception as error:  # noqa: BLE001 (an object of somebody else, of any kind)
            raise cells.BadCellError(
                column, f"it cannot be read ({type(error).__name__})"
            ) from None
        if key is None:
            return None
        self._meant.check_text(key, column)
        if (first := self._keys.setdefault(key, number)) != number:
            raise cells.BadCellError(column, f"the key {key[:40]!r} is that of row {first}, too")
        return key

    def _refuse(self, number: int, column: str, reason: str, *, literal: bool = False) -> None:
        lines, index = self._table.lines, self._table.index
        line = lines[number - 1] if lines else None
        label = repr(index[number - 1])[:_LONGEST_LABEL] if len(index) else None
        self._problems.append(Problem(number, column, reason, line, label, literal))

    def _asked(self, number: int, parameters: Mapping[str, Any]) -> _Asked:
        known = self._known.get(number)
        if known:
            instead = {name: _SOME_PICTURE for name in parameters if cells.is_image(name)}
            parameters = {**parameters, **instead}
        request = VideoRequest(**parameters)
        request.check_reachable(self._account)
        return _Asked(
            known or request.fingerprint,
            request.model,
            request.prompt,
            request.duration,
            (known,) if known else request.fingerprints,
        )

    def _read_ahead(self) -> None:
        """Reads pictures in object storage side by side: one after the other takes minutes."""

        def asked(row: tuple[int, dict[str, Any]]) -> _Asked | InvalidRequestError:
            try:
                return self._asked(*row)
            except InvalidRequestError as error:
                return error

        rows = []
        for number, record in enumerate(self._table.records, 1):
            try:
                parameters = self._parameters(record)
            except cells.BadCellError:
                continue  # said in its turn
            pictures = (value for name, value in parameters.items() if cells.is_image(name))
            if number not in self._known and any(map(cells.is_remote, pictures)):
                rows.append((number, parameters))
        if rows:
            with ThreadPoolExecutor(_READERS, "kling-pictures") as pool:
                numbers = (number for number, _ in rows)
                self._ahead = dict(zip(numbers, pool.map(asked, rows), strict=True))

    def _parameters(self, record: Mapping[str, Any]) -> dict[str, Any]:
        model_column = self._columns.get("model")
        model = cells.plain_text(record.get(model_column)) if model_column else None
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
        filled = {
            name: template.fill(record)
            for name, template in self._templates.items()
            if name not in given
        }
        return {**self._defaults, **filled, **given}

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
            return _take_of(key)
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


def _take_of(key: str) -> int:
    digest = hashlib.sha256(key.encode(errors="backslashreplace")).hexdigest()
    return _KEYED + int(digest[:12], 16)


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
