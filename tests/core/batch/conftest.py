"""A batch in a folder of the test, on a sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kling_integrations import Ledger
from kling_integrations.core.batch.job import Batch, Order, Outcome
from kling_integrations.core.batch.tally import Tally
from kling_integrations.core.storage.tables import from_records
from kling_integrations.sandbox import Sandbox


class Desk:
    """``desk(rows, max_cost=5)`` runs the batch; again, and it is the same batch."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.results = folder / "results.jsonl"
        self.ledger = Ledger(folder / "home" / "ledger.sqlite3")

    def batch(self, rows: Sequence[Mapping[str, Any]], **options: Any) -> Batch:
        order = {"folder": self.folder / "out", "results": self.results, **options}
        return Batch(from_records(rows), Order(**order), self.ledger, self.sandbox.base_url)

    def __call__(
        self,
        rows: Sequence[Mapping[str, Any]],
        on_change: Callable[[Tally], object] | None = None,
        **options: Any,
    ) -> Outcome:
        batch = self.batch(rows, **options)
        batch.check_rows()
        prepared = batch.prepare(asyncio.run(batch.prices()))
        return batch.run_to_end(prepared, on_change)

    @property
    def posts(self) -> int:
        return len(self.sandbox.posts)


@pytest.fixture
def desk(sandbox: Sandbox, tmp_path: Path) -> Desk:
    return Desk(sandbox, tmp_path)


def prompts(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"number {number}"} for number in range(count)]
