"""The SQLite file under ``KLING_HOME``: how it is made, opened and written safely."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ..errors import LedgerError, LedgerUnreachableError, NextStep, Verb


class SqliteFile:
    """Opens ``path()`` for each transaction: safe over threads and forks, and cheap beside a POST.

    ``prepare(db)`` makes the tables; it runs when a file is opened for the first time, and again
    after it was moved away or replaced.
    """

    def __init__(
        self,
        path: Callable[[], Path],
        prepare: Callable[[sqlite3.Connection], None],
        synchronous: str = "FULL",
    ) -> None:
        self._path = path
        self._synchronous = synchronous
        self._prepare = prepare
        self._ready: tuple[Path, int] | None = None  # the file that was prepared, and its inode

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection that sees one moment, and keeps none from writing. See ``transaction``."""
        return self._begun("BEGIN")

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection inside a transaction that is committed at the end.

        Nothing slow belongs into one: it keeps all others from writing, an id that is paid for
        included. Raises LedgerError when the file is corrupt, read-only or unreadable: without it,
        what was paid for is unknown, so nothing may be submitted in silence.
        """
        return self._begun("BEGIN IMMEDIATE")

    @contextmanager
    def _begun(self, begin: str) -> Iterator[sqlite3.Connection]:
        db = None
        try:
            db = self._connect()
            db.execute(begin)
            yield db
            db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            # Locked, full, not writable: that passes. A file that is no database does not.
            passes = isinstance(error, sqlite3.OperationalError | OSError)
            raise (LedgerUnreachableError if passes else LedgerError)(
                f"The ledger {self._path()} cannot be used: {error}.",
                hint="It is what keeps you from paying twice, so nothing is submitted without it. "
                "Repair it, or move it away knowing that what it held is forgotten.",
                next_steps=[NextStep(Verb.SET_HOME)] if isinstance(error, OSError) else (),
            ) from error
        finally:
            if db is not None:
                db.close()  # a transaction that was not committed is rolled back

    def _connect(self) -> sqlite3.Connection:
        path = self._path()
        ready = self._ready is not None and self._ready == (path, _inode(path))
        if not ready:  # the first time, or after the file was moved away or replaced
            _refuse_network_disk(path)
            make_private(path.parent)
            # Made here, because SQLite would make it readable to all; its -wal and -shm inherit.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(path, timeout=30, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            # The id of something paid must survive a power cut: FULL, not WAL's usual NORMAL.
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            if not ready:
                _use_wal(db)
                self._prepare(db)
                self._ready = (path, _inode(path))
        except BaseException:
            db.close()
            raise
        return db


@contextmanager
def kept_open(path: Path) -> Iterator[None]:
    """Holds a file of SQLite open while thousands of transactions come, each on its own connection.

    The last connection that is closed folds the log into the file and deletes it: without another
    one that stays, every transaction would, which takes more than half of its time. A file that
    cannot be read is left to the transactions, which say what is wrong.
    """
    db = None
    with suppress(sqlite3.Error, OSError):
        db = sqlite3.connect(path, check_same_thread=False)
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    try:
        yield
    finally:
        if db is not None:
            db.close()


# File systems of other machines: SQLite's documents advise against them, because of their locks.
_NETWORK = re.compile(
    r"nfs4?|cifs|smb[23f]?s?|afs|ncpfs|ceph|lustre|gpfs|beegfs|gfs2?|ocfs2|glusterfs"
    r"|9p|virtiofs|vboxsf|vmhgfs|prl_fs|davfs2?"
    r"|fuse\.(sshfs|glusterfs|ceph.*|s3fs|gcsfuse|goofys|rclone|blobfuse2?|mount-s3|juicefs.*"
    r"|vmhgfs.*|davfs2?|geesefs|ossfs|cosfs|obsfs|mountpoint-s3)"
)
_MOUNTS = Path("/proc/self/mountinfo")


def may_be_of_others(path: Path) -> str:
    """The kind of a disk that other machines may reach by a program of its own; else empty.

    So are all kinds of FUSE but that of disks (``fuseblk``), and NFS.
    """
    kind = file_system(path)
    return kind if re.fullmatch(r"fuse(\..+)?|nfs4?|davfs2?|9p", kind) else ""


def _refuse_network_disk(path: Path) -> None:
    """Raises LedgerError for a disk of another machine; Linux only, elsewhere nothing is known."""
    kind = file_system(path)
    if not _NETWORK.fullmatch(kind):
        return
    raise LedgerError(
        f"The ledger {path} would lie on a network disk ({kind}): SQLite's locks do not hold "
        "there, so two machines could pay for the same video.",
        hint="Keep it on a disk of this machine (KLING_HOME), or share records that are made for "
        "it: KLING_LEDGER=file:///… for a shared folder, s3://… for a bucket.",
        next_steps=[NextStep(Verb.SET_HOME)],
    )


def file_system(path: Path) -> str:
    """The kind of file system that the path is, or would be, on; empty where it is not known."""
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    found = ("", "")  # the longest mount point that holds the path, and its kind
    where = path.absolute().parent.resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()[:1]
        if len(fields) < 5 or not kind:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
        if where.is_relative_to(point) and len(point) >= len(found[0]):
            found = point, kind[0]
    return found[1]


def make_private(folder: Path) -> None:
    """Makes the folder of ledger and locks, for its user alone (parents as the umask says)."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return -1


def _use_wal(db: sqlite3.Connection) -> None:
    """SQLite waits for others everywhere but here: several may open a new ledger at once."""
    deadline = time.monotonic() + 30
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
