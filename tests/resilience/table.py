"""The fault matrix as a page: ``python -m tests.resilience.table docs/faults.md`` (minutes)."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import warnings
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from . import matrix
from .fronts import DONE, FRONTS
from .matrix import MOMENTS, Case, Seen

HEAD = """\
# What happens when things go wrong

Every fault of the sandbox at every moment of a generation at every front door, played for real
over sockets: one call that asks for a video and saves it, then, once the fault is gone, the same
call again. A cell counts only when all of this holds, after both calls:

- the number of POSTs that reached the gateway and of generations that it accepted (and bills) is
  the expected one;
- the verdict is the expected one, and it names the generation's id, or the client request id
  where no generation is known;
- the folder holds the whole video, or nothing; no lock is held; the ledger knows every paid id,
  or that a POST has no known outcome;
- no traceback was shown (shell, cell, tasks), and neither the key nor a signed address stands in
  what was shown, logged, raised, written to the ledger, to XCom, to a task's state or to a
  trigger's row; the key reached no other host.

The expectations are reasoned beforehand (`tests/resilience/matrix.py`), not recorded. *Verdict,
POSTs* are those of the first call, after the arrow those of both together; a first call that ends
with the video has no arrow, and its repetition sent no POST either. `uncertain` means that the POST
may have been taken: it is not repeated until the user says so; a task finds it in the gateway's log
by itself once it is listed there. A submission that was surely refused, and a generation that
failed, are not billed, and may be submitted anew.

Fronts: {fronts}. The sensor waits for what something else submitted, so it has no
submits. ✓: as expected; what was seen otherwise is spelled out.

This page was written by `python -m tests.resilience.table docs/faults.md`;
`make test-exhaustive` plays the same cells as tests, `make test` a selection
in which each fault at each moment occurs.
"""

FRONT_WORDS = {
    "sync": "`sync` and `async` (the two Python clients)",
    "shell": "`shell` (`kling generate`)",
    "cell": "`cell` (`%%kling`)",
    "operator": "`operator` and `trigger` (KlingVideoOperator on a worker, and deferred)",
    "sensor": "`sensor` (KlingVideoSensor)",
}


PROCESSES = 4  # most of the time is waiting for the gateway's clock


def play(part: int) -> tuple[list[tuple[Case, Seen]], int]:
    """Every PROCESSES-th cell, and the keys that reached another host."""
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Airflow logs there
    played = []
    with matrix.world() as sandbox:
        for case in matrix.cases()[part::PROCESSES]:
            played.append((case, matrix.run(case, sandbox)))
            if problems := played[-1][1].wrong(case.expected):
                sys.stderr.write(f"{case.id}: {problems}\n")
        return played, sandbox.leaked_keys


def main() -> int:
    began = time.monotonic()
    fresh = multiprocessing.get_context("spawn")  # a sandbox's threads do not survive a fork
    with ProcessPoolExecutor(PROCESSES, mp_context=fresh) as pool:
        parts = list(pool.map(play, range(PROCESSES)))
    leaked = sum(keys for _, keys in parts)
    seen = {case.id: (case, result) for cells, _ in parts for case, result in cells}
    played: dict[tuple[str, str], dict[str, tuple[Case, Seen]]] = defaultdict(dict)
    for case in matrix.cases():
        played[case.moment, case.trouble.name][case.front] = seen[case.id]
    page = [HEAD.format(fronts=", ".join(FRONT_WORDS.values()))]
    page.append(totals(played, leaked, time.monotonic() - began))
    for moment, words in MOMENTS.items():
        fronts = matrix.fronts_of(moment)
        page.append(f"\n## {moment[0].upper()}{moment[1:]}: {words}\n")
        page.append(f"| fault | verdict, POSTs | {' | '.join(fronts)} |")
        page.append(f"|---|---|{'---|' * len(fronts)}")
        page += [line(name, row, fronts) for (at, name), row in played.items() if at == moment]
    target = Path(sys.argv[1])
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(page) + "\n", encoding="utf-8")
    return 0


def line(name: str, row: dict[str, tuple[Case, Seen]], fronts: list[str]) -> str:
    usual = str(next(iter(row.values()))[0].expected)
    cells = []
    for front in fronts:
        if front not in row:
            cells.append("–")
            continue
        case, seen = row[front]
        problems = seen.wrong(case.expected)
        other = "" if str(case.expected) == usual else f" ({case.expected})"
        cells.append(f"**{'; '.join(problems)}**".replace("|", "/") if problems else f"✓{other}")
    return f"| {name} | {usual} | {' | '.join(cells)} |"


def totals(
    played: dict[tuple[str, str], dict[str, tuple[Case, Seen]]], leaked: int, seconds: float
) -> str:
    rows = [cell for row in played.values() for cell in row.values()]
    per_front = {name: [0, 0] for name in FRONTS}
    for case, seen in rows:
        per_front[case.front][0] += 1
        per_front[case.front][1] += not seen.wrong(case.expected)
    twice = sum(seen.paid > 1 for _, seen in rows)
    lost = sum("ledger knows nothing" in text for _, seen in rows for text in seen.complaints)
    saved = sum(DONE in (seen.verdict, seen.again) for _, seen in rows)
    good = sum(case[1] for case in per_front.values())
    lines = [
        "## Totals",
        "",
        f"{len(rows)} cells, {good} as expected. {sum(seen.posts_again for _, seen in rows)} POSTs "
        f"for {len(rows)} wanted videos and their repetitions. Paid twice in one call: {twice}. "
        f"Paid and lost: {lost}. Ended with the video, at once or at the second call: {saved}; the "
        "others are POSTs in doubt, which only the user may repeat, and generations that failed. "
        f"Keys that reached another host: {leaked}. Played in {seconds:.0f} s.",
        "",
        f"| | {' | '.join(per_front)} |",
        f"|---|{'---|' * len(per_front)}",
        f"| cells | {' | '.join(str(cells) for cells, _ in per_front.values())} |",
        f"| as expected | {' | '.join(str(good) for _, good in per_front.values())} |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
