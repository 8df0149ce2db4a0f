"""What became of a row: a result is data, whatever happened. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from .. import cost
from ..errors import (
    DownloadError,
    GenerationFailedError,
    InvalidRequestError,
    KlingError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from ..generation import Generation, Saved, Usage
from ..values import is_missing


class RowStatus(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"  # the generation ended with an error: not billed
    REFUSED = "refused"  # the row, or the gateway at the submit: nothing was paid
    UNCERTAIN = "uncertain"  # a POST without a known outcome: it may have been paid
    RUNNING = "running"  # it goes on at the gateway, and is billed when it completes
    NOT_SUBMITTED = "not_submitted"  # budget, interrupt, or a stop


FINAL = frozenset({RowStatus.COMPLETED, RowStatus.FAILED})
"""Nothing more becomes of such a row by itself."""

WORTH_REPEATING = frozenset({"provider", "credits", "unknown"})
"""Kinds of failure that say nothing against the row: moderation and input would end it again."""


@dataclass(slots=True)
class Result:
    """One row's end, as it is written. ``size`` in bytes, ``seconds`` from submit to the end seen.

    Times are ISO 8601 in UTC. ``usd`` is what the gateway says that it cost, ``expected_usd`` what
    its price list said beforehand. ``error_kind`` is a kind of failed generations (moderation,
    input, credits, provider, unknown), or one of ``budget``, ``stopped``, ``interrupted``,
    ``uncertain``, ``timeout``, ``download``, ``gateway``, ``error``.
    """

    row: int
    row_id: str
    status: str
    generation_id: str | None = None
    path: str | None = None
    sha256: str | None = None
    size: int | None = None
    seconds: float | None = None
    usd: float | None = None
    expected_usd: float | None = None
    error_kind: str | None = None
    error: str | None = None
    submitted_at: str | None = None
    finished_at: str | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Result | None:
        """The result that a line of an earlier run holds; None for anything else."""
        try:
            known: dict[str, Any] = {name: stored.get(name) for name in COLUMNS}
            known["row"], known["row_id"] = int(stored["row"]), str(stored["row_id"])
            known["status"] = RowStatus(stored["status"]).value
            return cls(**known)
        except (KeyError, TypeError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def moderated(self) -> bool:
        return self.error_kind == "moderation"

    def complete(self, generation: Generation, where: tuple[str, Saved] | None) -> None:
        """It has its video; ``where`` says the place and the file, None where it is not saved."""
        self.status = RowStatus.COMPLETED
        self.generation_id = generation.id
        usd = cost.spent(generation.usage)
        self.usd = self.usd if usd is None else usd
        if where is not None:
            self.path, self.sha256, self.size = where[0], where[1].sha256, where[1].size

    def end(self, status: RowStatus, kind: str, message: str) -> None:
        self.status, self.error_kind, self.error = status, kind, message


def counted(result: Result) -> float:
    """USD that an earlier result counts as: also what may have been paid."""
    usage = None if result.usd is None else Usage(usd_spent=result.usd)
    failed = result.status == RowStatus.FAILED
    may_be = result.generation_id is not None or result.status == RowStatus.UNCERTAIN
    if not may_be:
        return 0.0
    return cost.charged(usage, result.expected_usd, failed=failed).usd or 0.0


COLUMNS: Sequence[str] = tuple(each.name for each in fields(Result))
"""The columns that a results table adds to those of its rows, in their order."""


def added_columns(own: Sequence[str]) -> dict[str, str]:
    """How each result column is called beside the table's own: ``kling_status`` where both are."""
    taken = set(own)
    names = {}
    for name in COLUMNS:
        shown = name
        while shown in taken:
            shown = f"kling_{shown}"
        taken.add(shown)
        names[name] = shown
    return names


def encodable(text: str) -> str:
    """Text that every format takes: half of a surrogate pair becomes its escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def line(
    record: Mapping[str, Any], own: Sequence[str], result: Result, names: Mapping[str, str]
) -> dict[str, Any]:
    """A row of a table of results: the row's ``own`` cells, then its result, under ``names``."""
    cells = {name: None if is_missing(cell := record.get(name)) else cell for name in own}
    made = {
        name: encodable(value) if isinstance(value, str) else value
        for name, value in result.to_json().items()
    }
    return {**cells, **{shown: made[name] for name, shown in names.items()}}


def result_column(columns: Iterable[str], name: str) -> str | None:
    """What the result column ``name`` is called in a table of results; None where it has none."""
    kinds = re.compile(rf"(kling_)*{name}")
    return max((each for each in columns if kinds.fullmatch(each)), key=len, default=None)


def is_results(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is one of results."""
    columns = list(columns)
    needed = ("row", "row_id", "status", "generation_id")
    return all(result_column(columns, name) for name in needed)


def own_columns(columns: Iterable[str]) -> list[str]:
    """The columns of a table that are its own: without those that an earlier run added.

    A table that had a ``status`` of its own keeps it: the added one is called ``kling_status``.
    """
    own = list(columns)
    while is_results(own):
        added = {result_column(own, name) for name in COLUMNS}
        own = [name for name in own if name not in added]
    return own


def now_iso(moment: float) -> str:
    """Unix seconds as ``2026-11-21T17:44:26Z``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def classify(error: BaseException) -> tuple[RowStatus, str]:
    """What an error of a row makes of it, and the kind that the results table shows."""
    if isinstance(error, GenerationFailedError):
        return RowStatus.FAILED, error.kind
    if isinstance(error, SubmissionUncertainError):
        return RowStatus.UNCERTAIN, "uncertain"
    if isinstance(error, DownloadError):
        return RowStatus.COMPLETED, "download"
    if isinstance(error, WaitTimeoutError):
        return RowStatus.RUNNING, "timeout"
    if getattr(error, "generation_id", None):
        return RowStatus.RUNNING, "gateway"
    if isinstance(error, InvalidRequestError):
        return RowStatus.REFUSED, "input"
    if isinstance(error, KlingError):
        return RowStatus.NOT_SUBMITTED, "gateway"
    return RowStatus.NOT_SUBMITTED, "error"
