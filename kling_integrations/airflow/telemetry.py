"""Figures for those who watch many tasks: Airflow's metrics, and a span per generation.

Both go where Airflow is configured to send them (``[metrics]``, ``[traces]``, or an OpenTelemetry
provider of one's own) and cost nothing where there is none. They never fail a task.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any


def submitted(model: str) -> None:
    """``kling.submitted``: one generation was paid for, or will be."""
    with _harmless():
        _stats().incr("kling.submitted", tags={"model": model})


def finished(made: Mapping[str, Any], since: float | None) -> None:
    """``kling.finished``, ``kling.seconds``, ``kling.usd``, ``kling.bytes``, and the span.

    ``since``: when it was submitted, in Unix seconds.
    """
    with _harmless():
        stats, tags = _stats(), {"model": str(made.get("model"))}
        stats.incr("kling.finished", tags=tags)
        if isinstance(seconds := made.get("elapsed_seconds"), int | float):
            stats.timing("kling.seconds", seconds * 1000.0, tags=tags)
        for name, key in (("kling.usd", "usd"), ("kling.bytes", "size")):
            if isinstance(figure := made.get(key), int | float):
                stats.gauge(name, figure, tags=tags)
    with _harmless():
        _span(made, since)


def failed(kind: str) -> None:
    """``kling.failed``, by the kind of error."""
    with _harmless():
        _stats().incr("kling.failed", tags={"kind": kind})


def _stats() -> Any:
    from airflow.providers.common.compat.sdk import Stats

    return Stats


def _span(made: Mapping[str, Any], since: float | None) -> None:
    from opentelemetry import trace

    end = time.time()
    attributes = {
        f"kling.{name}": made[key]
        for name, key in (
            ("generation_id", "generation_id"),
            ("model", "model"),
            ("usd", "usd"),
            ("polls", "polls"),
            ("sandbox", "sandbox"),
        )
        if made.get(key) is not None
    }
    span = trace.get_tracer("kling_integrations").start_span(
        "kling.generation", start_time=int((since or end) * 1e9), attributes=attributes
    )
    span.end(int(end * 1e9))


@contextmanager
def _harmless() -> Iterator[None]:
    with suppress(Exception):  # what watches must not break what is watched
        yield
