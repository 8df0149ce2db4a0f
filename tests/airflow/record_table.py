"""What an event means for the money, on each version of Airflow: the table of the documents.

``python -m tests.airflow.record_table`` prints it; ``test_record_table`` plays every cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

VERSIONS = ("3.0", "3.3", "3.4")


class Outcome(StrEnum):
    SAME = "the same video"
    NEW = "a new video"
    FIRST = "the first video"
    STOPS = "stops before it pays"
    NOTHING = "nothing runs"


@dataclass(frozen=True, slots=True)
class Cell:
    """``posts``: all that reached the gateway, those before the event included."""

    outcome: Outcome
    posts: int

    def __str__(self) -> str:
        return f"{self.outcome}, {self.posts}"


SAME, NEW, STOPS = Cell(Outcome.SAME, 1), Cell(Outcome.NEW, 2), Cell(Outcome.STOPS, 1)
NOTHING = Cell(Outcome.NOTHING, 1)
STATES = ("running", "finished", "failed", "in doubt")


def _row(running: Cell, finished: Cell, failed: Cell, in_doubt: Cell) -> dict[str, Cell]:
    return dict(zip(STATES, (running, finished, failed, in_doubt), strict=True))


_AGAIN = _row(SAME, SAME, NEW, SAME)
"""What is paid for is gone on with; what failed is not billed, and is submitted anew."""

EVENTS: dict[str, dict[str, Cell]] = {
    "retry": _AGAIN,
    "clear": _AGAIN,
    "clear with keep_task_state": _AGAIN,
    "clear of the whole run": _AGAIN,
    "mark failed, then clear": _AGAIN,
    "mark success": _row(NOTHING, NOTHING, NOTHING, NOTHING),
    "backfill again": _AGAIN,
    "run deleted and made again under the same id": _AGAIN,
    "clear, and another worker runs it": _AGAIN,
    "clear with a changed input": _row(NEW, NEW, NEW, NEW),
    'clear with on_clear="regenerate"': _row(SAME, NEW, NEW, SAME),
    'clear with on_clear="regenerate" and fewer retries than before': _row(SAME, NEW, NEW, SAME),
    'another task of the run cleared, then a retry with on_clear="regenerate"': _AGAIN,
    "renamed in its file, in the same run": _AGAIN,
    "storage down for a while, then a retry": _AGAIN,
    "one of two stores unreadable, then a retry": _row(SAME, SAME, STOPS, SAME),
    "every store unreadable, then a retry": _row(STOPS, STOPS, STOPS, STOPS),
    "upgrade of this package, then a retry": _AGAIN,
}
"""By event and by what the task's generation was then."""

# The task state store came with 3.3: before, there is one store, and 0.1 kept no record at all.
TWO_STORES = ("3.3", "3.4")
ONLY_ON = {
    "one of two stores unreadable, then a retry": TWO_STORES,
    "upgrade of this package, then a retry": TWO_STORES,
}

FIRST = Cell(Outcome.FIRST, 1)
NONE = Cell(Outcome.STOPS, 0)
KILLS: dict[str, Cell] = {
    "killed before the intent is written": FIRST,
    "killed between the intent and the POST": NONE,
    "killed in the POST": SAME,
    "killed before the id is written": SAME,
    "stopped by storage that was down before the POST": FIRST,
    "killed while storage was down after the POST": SAME,
}
"""By where the first attempt ended; then a retry, or a clear."""


def table() -> str:
    lines = [
        f"| event | {' | '.join(STATES)} |",
        "|---|" + "---|" * len(STATES),
        *(
            f"| {event} | {' | '.join(str(row[state]) for state in STATES)} |"
            for event, row in EVENTS.items()
        ),
        "",
        "| the first attempt was | then a retry, or a clear |",
        "|---|---|",
        *(f"| {where} | {cell} |" for where, cell in KILLS.items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
