"""A team's ledger of 10,000 records: how long a history takes, and a claim.

    python benchmarks/team_ledger.py [--records N] [--s3]        # about a minute; more with --s3

How to read it: *first* is a machine that has seen none of the records (all are read), *again* the
next history of a process of its own (names are listed, what is new is read), *own file* the same
history from an SQLite ledger. *claim* is the median of 50 claims and ids of new requests. Times are
of the clock, in a process that has imported what it needs. ``--s3`` takes moto's server on
loopback, which is an imitation of S3 in Python: its figures are mostly its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kling_integrations import VideoRequest
from kling_integrations.core.storage import team_records
from kling_integrations.core.storage.ledger import Ledger
from kling_integrations.core.storage.record_stores import open_store
from kling_integrations.core.storage.sqlite_ledger import SqliteLedger
from kling_integrations.core.storage.team_ledger import TeamLedger
from kling_integrations.core.submission import Entry, Record, State

GATEWAY = "https://api.example"


def entries(count: int) -> list[Entry]:
    request = VideoRequest(prompt="A raccoon")
    made = []
    for number in range(count):
        record = replace(
            Record.intent(request),
            fingerprint=f"{number:08x}" * 8,
            created_at=1_700_000_000.0 + number,
            generation_id=f"gen-{number}",
            state=State.COMPLETED,
        )
        made.append(Entry.intent(request, record, GATEWAY, 1, None))
    return made


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--s3", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        os.environ["KLING_HOME"] = f"{folder}/home"
        address = Path(folder, "team").as_uri()
        if args.s3:
            from tests.support.object_storage import BUCKET, s3_server

            os.environ.update(stack.enter_context(s3_server()))
            address = f"s3://{BUCKET}/team"
        store, rows = open_store(address), entries(args.records)
        for entry in rows:
            where = team_records.prefix(GATEWAY, entry.record.fingerprint, 1)
            store.write(team_records.numbered(where, 1), team_records.to_json(entry))
        own = SqliteLedger(Path(folder, "own.sqlite3"))
        from kling_integrations.core.storage import sqlite_ledger

        with own._file.transaction() as db:
            for entry in rows:
                sqlite_ledger.insert(db, entry)
        first = seconds(lambda: TeamLedger(address).history(20))
        again = statistics.median(
            seconds(lambda: TeamLedger(address).history(20)) for _ in range(5)
        )
        alone = statistics.median(seconds(lambda: own.history(20)) for _ in range(5))
        ledger = Ledger(address)

        def claim(number: int) -> None:
            request = VideoRequest(prompt=f"A claim {number}")
            claimed = ledger.claim(request, GATEWAY)
            assert claimed is not None
            ledger.advance(claimed[1].submitted(f"new-{number}"))

        claims = statistics.median(seconds(lambda n=n: claim(n)) for n in range(50))
        print(f"{args.records:,} records at {address.partition('://')[0]}://\n")
        print("| | ms |\n|---|---:|")
        for name, value in (
            ("history, first", first),
            ("history, again", again),
            ("history, own file", alone),
            ("claim and id", claims),
        ):
            print(f"| {name} | {value * 1000:,.0f} |")


if __name__ == "__main__":
    main()
