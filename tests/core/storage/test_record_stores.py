"""The stores of records on a disk, in SQLite and in a bucket behave as one."""

import os
import re
import sqlite3
import stat
import threading
import warnings

import pytest

from kling_integrations import KlingWarning
from kling_integrations.core.errors import InvalidRequestError, LedgerError
from kling_integrations.core.storage import folder_records, probes, sqlite_file
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
        store.probe()
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
        # Nothing known of what was paid for is not the same as nothing paid for.
        for look in (
            lambda: absent.read("a"),
            lambda: absent.read_many(["a"]),
            lambda: absent.names("requests/"),
        ):
            with pytest.raises(LedgerError, match="cannot be reached"):
                look()

    def test_the_first_create_of_a_machine_takes_six_requests_more(self, store, monkeypatch):
        asked = []
        call = store._fs._call_s3

        async def counted(method, *args, **options):
            asked.append(method)
            return await call(method, *args, **options)

        monkeypatch.setattr(store._fs, "_call_s3", counted)
        assert store.create("a/1", {"by": 1})
        assert len(asked) <= 7, asked
        asked.clear()
        assert store.create("a/2", {"by": 1})
        again = BucketRecords(store._fs, store._root)  # another process of this machine
        assert again.create("a/3", {"by": 1})
        assert asked == ["put_object", "get_object", "put_object"]
        assert list(store.names()) == ["a/1", "a/2", "a/3"]


class Bucket:
    """What a driver of fsspec does, over a dictionary; each way of being wrong is a switch."""

    protocol = ("s3", "s3a")

    def __init__(self, **wrong):
        self.objects, self.asked, self.wrong = {}, [], wrong
        self._turn = threading.Lock()

    def _may(self, verb):
        self.asked.append(verb)
        if error := self.wrong.get(verb):
            raise error

    def pipe_file(self, path, data, mode="overwrite"):
        self._may(mode)
        with self._turn:
            there = mode == "create" and path in self.objects
            if not there:
                self.objects[path] = data
        if there and not self.wrong.get("careless"):
            raise self.wrong.get("taken") or FileExistsError(path)

    def cat_file(self, path):
        self._may("read")
        if path not in self.objects:
            raise FileNotFoundError(path)
        return b"{}" if self.wrong.get("stale") else self.objects[path]

    def find(self, folder, detail=False, prefix=""):
        self._may("list")
        if self.wrong.get("blind"):
            return {}
        return {p: {} for p in sorted(self.objects) if p.startswith(f"{folder}/{prefix}")}

    def invalidate_cache(self):
        pass


def http_error(status, words="odd words"):
    """As the drivers wrap what a server answers: the status is in what caused it."""
    error, cause = OSError(22, words), Exception(words)
    cause.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": "Odd"}}
    error.__cause__ = cause
    return error


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"careless": True}, "were told that they had"),
        ({"stale": True}, "not what is read"),
        ({"blind": True}, "not listed"),
        ({"create": PermissionError("no")}, "create an object only if it is not there"),
        ({"create": http_error(501)}, "create an object only if it is not there"),
        ({"overwrite": http_error(403)}, "write over"),
        ({"list": PermissionError("no")}, "list what is there"),
        ({"overwrite": http_error(503)}, "cannot be reached"),
    ],
)
def test_a_bucket_that_does_not_do_what_records_need_is_refused_before_anything_is_created(
    home, wrong, said
):
    bucket = Bucket(**wrong)
    for _ in range(2):  # what failed is tried again
        with pytest.raises(LedgerError, match=said):
            BucketRecords(bucket, "team/kling").create("a/1", {"by": 1})
    assert not any(path.endswith(".json") for path in bucket.objects)


def test_what_was_tried_is_remembered_for_a_month_and_for_one_store(home, monkeypatch):
    bucket = Bucket()

    def tries(root="team/kling"):
        bucket.asked.clear()
        store = BucketRecords(bucket, root)
        store.create(f"a/{len(bucket.objects)}", {})
        return len(bucket.asked) - 2  # the look and the create

    assert tries() == 5
    assert tries() == 0
    assert tries("team/other") == 5
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert tries() == 5
    assert tries() == 0
    for mark in (home / "stores").iterdir():
        os.utime(mark, (0, 0))
    assert tries() == 5
    monkeypatch.setenv("KLING_HOME", str(home / "wiped"))
    assert tries() == 5


def test_two_that_try_at_the_same_moment_do_not_disturb_each_other(home, monkeypatch):
    bucket, failed = Bucket(), []
    monkeypatch.setattr(probes, "was_tried", lambda key: False)
    barrier = threading.Barrier(8)

    def one(number):
        barrier.wait()
        try:
            BucketRecords(bucket, "team").create(f"a/{number}", {})
        except LedgerError as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_who_may_only_read_picks_up_what_a_colleague_has_paid_for(home):
    bucket = Bucket()
    assert BucketRecords(bucket, "team").create("a/1", {"by": "colleague"})
    denied = PermissionError("denied")
    bucket.wrong = {"create": denied, "overwrite": denied}
    for _ in range(2):
        reader = BucketRecords(bucket, "team")
        assert reader.create("a/1", {"by": "reader"}) is False
        assert reader._tried is False
    reader._tried = True  # by other credentials of the same name
    assert reader.create("a/1", {"by": "reader"}) is False
    assert reader.read("a/1") == {"by": "colleague"}


def test_a_failed_precondition_is_a_name_that_is_taken_in_whatever_words(home):
    bucket = Bucket(taken=http_error(412))
    store = BucketRecords(bucket, "team")
    assert store.create("a/1", {"by": 1}) is True
    assert store.create("a/1", {"by": 2}) is False
    assert store.create("a/1", {"by": 1}) is True  # its own, whose reply was lost


def test_a_create_that_meets_another_one_is_repeated_after_a_pause(home, monkeypatch):
    bucket, slept = Bucket(), []
    store = BucketRecords(bucket, "team")
    store.probe()
    monkeypatch.setattr(probes.time, "sleep", slept.append)
    bucket.wrong = {"create": http_error(409)}
    with pytest.raises(LedgerError, match="cannot be reached"):
        store.create("a/1", {})
    assert len(slept) == 5
    monkeypatch.setattr(probes.time, "sleep", lambda seconds: bucket.wrong.clear())
    assert store.create("a/1", {}) is True


def test_a_bucket_that_says_not_now_to_one_of_two_must_still_refuse_the_next(home, monkeypatch):
    """Its 409 is of the race alone: two machines, one after the other, would both create."""
    replies = iter([True, None, True])
    monkeypatch.setattr(probes, "_created", lambda *_: next(replies))
    with pytest.raises(LedgerError, match="created twice"):
        probes.try_bucket(Bucket(), "team", lambda path: b"")


@pytest.mark.parametrize(
    "words", ["NoSuchBucket", "The specified bucket does not exist", "ContainerNotFound"]
)
def test_a_bucket_that_is_gone_is_no_empty_history(home, words):
    gone = FileNotFoundError("x")
    gone.__cause__ = Exception(words)
    store = BucketRecords(Bucket(read=gone, list=gone), "team")
    for look in (lambda: store.read("a"), lambda: store.read_many(["a"]), store.names):
        with pytest.raises(LedgerError, match="cannot be reached"):
            look()


def test_an_empty_list_of_a_container_that_is_gone_is_no_empty_history(home):
    gone = FileNotFoundError("x")
    gone.__cause__ = Exception("ErrorCode:ContainerNotFound")
    azure = Bucket(read=gone)  # adlfs lists nothing there, without an error
    azure.protocol = "abfs"
    with pytest.raises(LedgerError, match="cannot be reached"):
        BucketRecords(azure, "team").names()


def test_signs_in_an_address_are_names_and_no_patterns(home):
    bucket = Bucket()
    store = BucketRecords(bucket, "/team//[x]*?#%20/")
    other = BucketRecords(bucket, "team/x/y")
    assert store.create("a/1", {"by": 1})
    assert other.create("a/1", {"by": 2})
    assert store.read_many(["a/1"]) == {"a/1": {"by": 1}}
    assert list(store.names()) == ["a/1"]
    with pytest.raises(InvalidRequestError):
        BucketRecords(bucket, "team/../other")


# --- folders -----------------------------------------------------------------------------------


def unlinked(monkeypatch, kind):
    """A disk of this kind that has no hard links."""

    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(sqlite_file, "file_system", lambda path: kind)


@pytest.mark.parametrize(
    "kind",
    ["fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse", "fuse.mount-s3", "davfs", "nfs4", "9p"],
)
def test_a_mount_without_links_that_others_may_have_is_refused(monkeypatch, tmp_path, kind):
    unlinked(monkeypatch, kind)
    store = FolderRecords(tmp_path)
    with pytest.raises(LedgerError, match=re.escape(kind)):
        store.create("a/1", {})
    assert store.names() == {}


@pytest.mark.parametrize("kind", ["exfat", "vfat", "fuseblk", "tmpfs", "cifs", ""])
def test_a_disk_of_this_machine_without_links_holds_records(monkeypatch, tmp_path, kind):
    unlinked(monkeypatch, kind)
    store = FolderRecords(tmp_path)
    assert store.create("a/1", {"by": 1}) is True
    assert store.create("a/1", {"by": 2}) is False


@pytest.mark.parametrize("mode", [0o2770, 0o777, 0o1777])
def test_what_is_made_below_a_folder_of_several_users_is_theirs_whatever_the_umask(tmp_path, mode):
    folder = tmp_path / "team"
    folder.mkdir()
    folder.chmod(mode)
    before = os.umask(0o077)
    try:
        FolderRecords(folder).create("requests/a/1", {})
        FolderRecords(folder).write("requests/a/1", {"id": 1})
    finally:
        os.umask(before)
    for made in ("requests", "requests/a"):
        assert stat.S_IMODE((folder / made).stat().st_mode) == mode & ~0o1000
    assert stat.S_IMODE((folder / "requests/a/1.json").stat().st_mode) == mode & 0o666


def test_a_folder_of_one_user_is_said_to_be_one_once(tmp_path, home):
    store = FolderRecords(tmp_path / "team", shared=True)
    with pytest.warns(KlingWarning, match="2770"):
        store.create("a/1", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.create("a/2", {})
        FolderRecords(tmp_path / "own").create("a/1", {})


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
