"""A table whose batch is killed again and again, at a gateway that fails now and then."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kling_integrations.sandbox import Sandbox

FAULTS = {
    "submit": ("drop-before", "drop-after", "429", "garbage"),
    "poll": ("503", "drop-before", "html"),
    "download": ("cut", "503"),
}


def fail_now_and_then(sandbox: Sandbox, share: float = 0.05, **options: Any) -> None:
    """Arms faults for that share of all requests; ``options`` are further ones of each fault."""
    for moment, kinds in FAULTS.items():
        for kind in kinds:
            sandbox.fault(moment, kind, None, share=share / len(kinds), **options)


def prompts(count: int, word: str = "number") -> list[str]:
    return [f"{word} {number}" for number in range(count)]


def write_table(path: Path, texts: Iterable[str]) -> None:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))


def read_results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def is_whole(path: Path) -> bool:
    """Whether each row of the results has its video."""
    return all(row["status"] == "completed" and row["path"] for row in read_results(path))


def check_each_paid_once(sandbox: Sandbox, texts: list[str], results: Path) -> None:
    """Rows in are rows out, each with its own video, and each was paid for once."""
    rows = read_results(results)
    assert [row["prompt"] for row in rows] == texts
    bad = [row for row in rows if row["status"] != "completed"]
    assert not bad, bad[:3]
    jobs = {job.id: job.prompt for job in sandbox.jobs.values() if job.prompt in set(texts)}
    assert Counter(jobs.values()) == dict.fromkeys(texts, 1)
    assert {row["generation_id"]: row["prompt"] for row in rows} == jobs
    assert all(Path(row["path"]).stat().st_size == row["size"] for row in rows)
