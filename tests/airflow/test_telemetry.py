"""Metrics and spans for those who watch many tasks; they never fail one."""

from __future__ import annotations

import pytest

from kling_integrations.airflow import telemetry
from kling_integrations.airflow.exceptions import KlingFailed


class Figures:
    def __init__(self):
        self.seen = {}

    def incr(self, name, tags=None):
        self.seen[name] = self.seen.get(name, 0) + 1

    def timing(self, name, value, tags=None):
        self.seen[name] = value

    gauge = timing


@pytest.fixture
def figures(monkeypatch):
    figures = Figures()
    monkeypatch.setattr(telemetry, "_stats", lambda: figures)
    return figures


def test_a_video_is_counted_timed_and_priced(sandbox, task, operator, figures):
    made = task(operator(max_cost_usd=5)).run()
    assert figures.seen["kling.submitted"] == figures.seen["kling.finished"] == 1
    assert figures.seen["kling.seconds"] == made["elapsed_seconds"] * 1000
    assert figures.seen["kling.usd"] == made["usd"]
    assert figures.seen["kling.bytes"] == made["size"]


def test_a_failure_is_counted_by_its_kind(sandbox, task, operator, figures):
    sandbox.fails = "moderation"
    with pytest.raises(KlingFailed):
        task(operator()).run()
    assert figures.seen["kling.failed"] == 1
    assert "kling.finished" not in figures.seen


def test_figures_that_fail_fail_no_task(sandbox, task, operator, monkeypatch):
    monkeypatch.setattr(telemetry, "_stats", lambda: 1 / 0)
    assert task(operator()).run()["status"] == "completed"


def test_each_generation_is_a_span_from_its_submit_on(monkeypatch):
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer", provider.get_tracer)
    telemetry.finished({"model": "m", "generation_id": "g", "usd": 0.5}, since=1000.0)
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.start_time) == ("kling.generation", 1000 * 10**9)
    assert span.attributes["kling.usd"] == 0.5
