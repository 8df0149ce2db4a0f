"""Airflow's task state store is a store of records like the others."""

from __future__ import annotations

import pytest

from kling_integrations.airflow.task_state import TaskStateRecords
from kling_integrations.core.errors import LedgerError, LedgerUnreachableError
from tests.support.record_store_conformance import RecordStoreConformance

from .conftest import Store


class TestTaskState(RecordStoreConformance):
    @pytest.fixture
    def rows(self):
        return Store()

    @pytest.fixture
    def store(self, rows):
        return TaskStateRecords(rows)

    @pytest.fixture
    def spoil(self, store, rows):
        def put(name, data):
            store.write(name, {})
            rows.rows[name] = data.decode("latin-1")

        return put

    def test_what_another_process_wrote_is_there(self, store, rows):
        store.write("a/1", {"state": "intent"})
        again = TaskStateRecords(rows)
        assert list(again.names()) == ["a/1"]
        assert again.create("a/1", {}) is False

    def test_a_process_that_dies_between_value_and_index_leaves_a_record_that_is_read(
        self, store, rows
    ):
        rows.set("kling_submission", {"state": "intent"})
        assert store.read("kling_submission") == {"state": "intent"}
        assert store.create("kling_submission", {}) is False

    @pytest.mark.parametrize("verb", ["get", "set"])
    def test_a_store_that_is_away_may_come_back(self, store, rows, monkeypatch, verb):
        def away(*_, **__):
            raise RuntimeError("503")

        monkeypatch.setattr(rows, verb, away)
        with pytest.raises(LedgerUnreachableError, match="503"):
            store.write("a/1", {})

    def test_an_index_that_is_garbage_is_unreadable(self, store, rows):
        rows.set("kling_records", {"what": "is this"})
        with pytest.raises(LedgerError, match="unreadable"):
            store.names()
