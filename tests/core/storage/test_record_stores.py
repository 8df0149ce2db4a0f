"""The stores of records on a disk, in SQLite and in a bucket behave as one."""

import os
import sqlite3
import stat

import pytest

from kling_integrations.core.errors import InvalidRequestError, LedgerError
from kling_integrations.core.storage import folder_records
from kling_integrations.core.storage.bucket_records import BucketRecords
from kling_integrations.core.storage.folder_records import FolderRecords
from kling_integrations.core.storage.record_stores import open_store
from kling_integrations.core.storage.sqlite_records import SqliteRecords
from tests.support.object_storage import BUCKET, s3_server
from tests.support.record_store_conformance import RecordStoreConformance


class TestFolder(RecordStoreConformance):
    @pytest.fixture
    def store(self, tmp_path):
        return open_store((tmp_path / "shared").as_uri())

    @pytest.fixture
    def spoil(self, store):
        def put(name, data):
            file = store.folder / f"{name}.json"
            file.parent.mkdir(parents=True)
            file.write_bytes(data)

        return put

    def test_a_disk_without_links_creates_exclusively(self, store, monkeypatch):
        def refuse(*_):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(folder_records.os, "link", refuse)
        self.test_only_the_first_creates(store)
        assert [file.name for file in store.folder.rglob("*") if file.is_file()] == ["1.json"]

    def test_a_link_whose_reply_was_lost_is_ones_own(self, store, monkeypatch):
        link = os.link

        def lost(source, target):
            link(source, target)
            raise FileExistsError(17, "File exists")

        monkeypatch.setattr(folder_records.os, "link", lost)
        assert store.create("a/1", {"by": "first"}) is True
        assert store.create("a/1", {"by": "second"}) is False

    def test_a_process_that_dies_while_it_writes_leaves_the_old_value(self, store, monkeypatch):
        store.write("a/1", {"state": "intent"})

        def die(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(folder_records.Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            store.write("a/1", {"state": "submitted"})
        monkeypatch.undo()
        assert store.read("a/1") == {"state": "intent"}
        assert list(store.names()) == ["a/1"]

    def test_a_full_disk_is_a_ledger_error(self, store, monkeypatch):
        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(folder_records.os, "fsync", full)
        for work in (store.create, store.write):
            with pytest.raises(LedgerError, match="No space left"):
                work("a/1", {})
        assert store.names() == {}

    def test_colleagues_may_read_what_the_umask_allows(self, store):
        before = os.umask(0o022)
        try:
            store.write("a/1", {})
        finally:
            os.umask(before)
        assert stat.S_IMODE((store.folder / "a/1.json").stat().st_mode) == 0o644


class TestSqlite(RecordStoreConformance):
    @pytest.fixture
    def store(self, tmp_path):
        return SqliteRecords(tmp_path / "home" / "ledger.sqlite3")

    @pytest.fixture
    def spoil(self, store):
        def put(name, data):
            store.names()
            with sqlite3.connect(store.path) as db:
                db.execute("INSERT INTO records VALUES (?, ?, 1)", (name, data))

        return put

    def test_the_file_is_private(self, store):
        store.write("a", {})
        assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


@pytest.fixture(scope="module")
def server():
    with s3_server() as environment:
        yield environment


@pytest.mark.thorough  # the server is a process of its own
class TestBucket(RecordStoreConformance):
    @pytest.fixture
    def store(self, server, monkeypatch, request):
        for name, value in server.items():
            monkeypatch.setenv(name, value)
        return open_store(f"s3://{BUCKET}/{abs(hash(request.node.name)):x}")

    @pytest.fixture
    def spoil(self, store):
        return lambda name, data: store._fs.pipe_file(f"{store._root}/{name}.json", data)

    def test_ones_own_object_is_known_when_the_reply_was_lost(self, store, monkeypatch):
        pipe = store._fs.pipe_file

        def lost(path, data, mode="overwrite"):
            pipe(path, data, mode=mode)
            raise FileExistsError(path)

        monkeypatch.setattr(store._fs, "pipe_file", lost)
        assert store.create("a/1", {"client_request_id": "one"}) is True
        monkeypatch.undo()
        assert store.create("a/1", {"client_request_id": "two"}) is False

    def test_a_bucket_that_is_not_there_is_a_ledger_error(self, server, store):
        absent = open_store("s3://no-such-bucket/prefix")
        for work in (lambda: absent.create("a", {}), lambda: absent.write("a", {})):
            with pytest.raises(LedgerError, match="cannot be reached"):
                work()


def test_a_file_system_that_cannot_create_exclusively_is_refused():
    fsspec = pytest.importorskip("fsspec")

    with pytest.raises(InvalidRequestError, match="two processes could pay"):
        BucketRecords(fsspec.filesystem("memory"), "x")


@pytest.mark.parametrize(
    "address", ["ftp://host/x", "memory://x", "http://host/x", "s3://", "file://host/x", "file:///"]
)
def test_an_address_that_cannot_hold_records_is_refused(address):
    with pytest.raises(InvalidRequestError):
        open_store(address)


def test_a_missing_driver_names_what_brings_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InvalidRequestError, match=r"kling-integrations\[gcs\]"):
        open_store("gs://bucket/prefix")


def test_two_objects_for_one_folder_are_one_store(tmp_path):
    first, second = FolderRecords(tmp_path), FolderRecords(str(tmp_path))
    assert first.create("a/1", {"by": 1})
    assert not second.create("a/1", {"by": 2})
    assert second.read("a/1") == {"by": 1}
