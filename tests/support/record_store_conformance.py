"""What every store of records must do; a module of tests inherits it and gives its ``store``."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from kling_integrations.core.errors import LedgerError


class RecordStoreConformance:
    """Needs the fixtures ``store`` and ``spoil(name, data)``, which puts raw bytes there."""

    def test_what_is_not_there_is_none(self, store):
        assert store.read("nothing") is None
        assert store.read_many(["nothing", "a/b"]) == {}
        assert store.names() == {}
        assert store.names("no/such/folder/") == {}

    def test_what_is_written_is_read(self, store):
        value = {"state": "intent", "prompt": "Ein Bär – 熊 🐻\n", "n": 1.5, "x": None, "l": [1]}
        store.write("a/b", value)
        assert store.read("a/b") == value
        store.write("a/b", {"state": "submitted"})
        assert store.read("a/b") == {"state": "submitted"}

    def test_only_the_first_creates(self, store):
        assert store.create("a/1", {"by": "first"}) is True
        assert store.create("a/1", {"by": "second"}) is False
        assert store.read("a/1") == {"by": "first"}

    def test_what_was_written_cannot_be_created(self, store):
        store.write("a/1", {"by": "first"})
        assert store.create("a/1", {"by": "second"}) is False

    def test_of_many_that_create_at_the_same_moment_one_does(self, store):
        for turn in range(5):
            barrier, made = threading.Barrier(6), []

            def create(number: int, barrier: Any = barrier, made: Any = made, n: int = turn):
                barrier.wait()
                if store.create(f"race/{n}", {"by": number}):
                    made.append(number)

            threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [store.read(f"race/{turn}")] == [{"by": number} for number in made]

    def test_names_are_listed_by_their_beginning(self, store):
        for name in ("a/1", "a/2", "ab/1", "b"):
            store.write(name, {"name": name})
        assert list(store.names()) == ["a/1", "a/2", "ab/1", "b"]
        assert list(store.names("a/")) == ["a/1", "a/2"]
        assert list(store.names("a")) == ["a/1", "a/2", "ab/1"]
        assert store.read_many(["a/1", "b", "c"]) == {"a/1": {"name": "a/1"}, "b": {"name": "b"}}

    def test_a_write_is_seen_in_the_listing(self, store):
        store.write("a/1", {"state": "intent"})
        store.write("a/2", {"state": "intent"})
        before = store.names()
        store.write("a/1", {"state": "submitted", "generation_id": "gen"})
        after = store.names()
        assert after["a/1"] != before["a/1"]
        assert after["a/2"] == before["a/2"]

    @pytest.mark.parametrize("data", [b"", b"{", b"null", b"[1]", b'"x"', b"\xff\xfe", b"[" * 9999])
    def test_unreadable_is_not_absent(self, store, spoil, data):
        spoil("a/1", data)
        with pytest.raises(LedgerError, match="unreadable"):
            store.read("a/1")
        with pytest.raises(LedgerError, match="unreadable"):
            store.read_many(["a/1"])
        assert store.create("a/1", {"by": "second"}) is False
        assert list(store.names()) == ["a/1"]

    @pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", "a b", "a/.x", "x" * 600])
    def test_odd_names_are_refused(self, store, name):
        for work in (
            lambda: store.read(name),
            lambda: store.create(name, {}),
            lambda: store.write(name, {}),
        ):
            with pytest.raises(ValueError, match="no name of a record"):
                work()
