"""The ledger: which submissions were made, what became of them, and what that says to do.

On one machine it is an SQLite file (``sqlite_ledger``), which needs no set-up. A team shares one in
a bucket or a shared folder (``team_ledger``): one creates a record only if it is not there, so that
of all machines that ask for the same video at the same moment one pays.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import settings
from .record_stores import is_address
from .sqlite_ledger import RequestLock, SqliteLedger

if TYPE_CHECKING:
    from ..generation import Generation, Saved
    from ..request import VideoRequest
    from ..submission import Decision, Entry, Record
    from .team_ledger import Prefetched, TeamLedger


class Ledger:
    """The records of one user or of a team.

    ``source``: the path of an SQLite file, or an address (``s3://bucket/prefix``, ``gs://…``,
    ``abfs://…``, ``file:///folder``). None: what ``KLING_LEDGER`` names, else a file in
    ``KLING_HOME``; both are read anew each time.

    Every method raises LedgerError where the records are corrupt, read-only or out of reach:
    without them, what was paid for is unknown, so nothing may be submitted in silence. An address
    that cannot hold records raises InvalidRequestError.
    """

    def __init__(self, source: str | Path | None = None) -> None:
        self._given = source
        self._opened: tuple[str, SqliteLedger | TeamLedger] | None = None

    @property
    def source(self) -> str:
        """What it is made of now, a path or an address: ``Ledger(source)`` is the same one."""
        given = self._given or settings.ledger() or settings.home() / "ledger.sqlite3"
        return str(given)

    @property
    def path(self) -> Path:
        """Its SQLite file; of a team's ledger the copy on this machine."""
        return self._records().path

    @property
    def is_shared(self) -> bool:
        """Whether a team's records decide."""
        return is_address(self.source)

    @property
    def lease(self) -> float | None:
        """Seconds after which others take an intent for one left behind; None: never."""
        return getattr(self._records(), "lease", None)

    def _records(self) -> SqliteLedger | TeamLedger:
        source = self.source
        if self._opened is None or self._opened[0] != source:
            self._opened = source, _open(source)
        return self._opened[1]

    # --- claiming --------------------------------------------------------------------------

    def preview(
        self, request: VideoRequest, base_url: str, *, new: bool = False, take: int = 1
    ) -> Decision:
        """What a submit of this request would do now; writes nothing.

        For every question before a payment: ``decision.pays`` says whether a POST
        would leave, ``decision.entry`` is the record that decides. ``new`` and ``take`` as for
        ``KlingClient.submit``. Another process may be quicker in between.
        """
        return self._records().preview(request, base_url, new=new, take=take)

    def prefetch(
        self, base_url: str, requests: Iterable[tuple[str, int]]
    ) -> SqliteLedger | TeamLedger | Prefetched:
        """What previews many requests, given by fingerprint and take, with few round trips.

        Its ``preview`` says what is known now; what is written later it may not know.
        """
        return self._records().prefetch(base_url, requests)

    def lock(self, request: VideoRequest | Record) -> RequestLock:
        """The lock under which this request, or that of this record, is decided and posted."""
        return self._records().lock(request)

    def claim(
        self,
        request: VideoRequest,
        base_url: str,
        *,
        new: bool = False,
        take: int = 1,
        key_hash: str | None = None,
        resubmit: str | None = None,
    ) -> tuple[Decision, Record] | None:
        """What the records say, and the intent that is written when that is to submit.

        Hold the request's lock from before this call until the POST has an outcome. None while
        another machine submits the same: ask again soon. Raises SubmissionUncertainError when an
        earlier POST has no known outcome, unless ``new``, or where it is the one of the client
        request id ``resubmit``.
        """
        return self._records().claim(
            request, base_url, new=new, take=take, key_hash=key_hash, resubmit=resubmit
        )

    # --- writing what became of it ---------------------------------------------------------

    def advance(self, record: Record) -> None:
        """Writes what became of a submission: its id, or its end.

        Raises SubmissionUncertainError for an id that another submission has.
        """
        self._records().advance(record)

    def completed(self, base_url: str, generation: Generation, elapsed: float | None) -> None:
        """The generation is finished; ``elapsed`` seconds after its submit, where watched."""
        self._records().completed(base_url, generation, elapsed)

    def wait_failed(self, base_url: str, error: BaseException) -> None:
        """Marks the end of a failed generation; any other error leaves it running."""
        self._records().wait_failed(base_url, error)

    def saved(self, base_url: str, generation_id: str, saved: Saved) -> None:
        """Where the video is on this machine."""
        self._records().saved(base_url, generation_id, saved)

    def forget(self, entry: Entry) -> None:
        """Gives a record up, at the user's word: it is neither waited for nor looked up again.

        It stays in the history. The next submit of the same request pays.
        """
        self._records().forget(entry)

    # --- reading ---------------------------------------------------------------------------

    def entry(self, base_url: str, generation_id: str) -> Entry | None:
        """The record of a generation."""
        return self._records().entry(base_url, generation_id)

    def submission(self, client_request_id: str) -> Entry | None:
        """The record of one submission, by the id that went out with its POST."""
        return self._records().submission(client_request_id)

    def is_submitting(self, entry: Entry) -> bool:
        """Whether a living process is at this submission, as far as can be told from here."""
        return self._records().is_submitting(entry)

    def at(self, path: Path) -> list[Entry]:
        """The generations whose video was saved as this file, or is a copy of it by content."""
        return self._records().at(path)

    def with_content(self, sha256: str) -> list[Entry]:
        """The generations whose video has this checksum."""
        return self._records().with_content(sha256)

    def history(self, limit: int = 20, search: str = "", model: str = "") -> list[Entry]:
        """The newest first; ``search`` looks in prompts and ids, ``model`` in model ids."""
        return self._records().history(limit, search, model)

    def running(self, base_url: str) -> list[Entry]:
        """What this user has under way."""
        return self._records().running(base_url)

    def uncertain(self, base_url: str) -> list[Entry]:
        """Submissions without a known outcome, those that the user paid past included.

        What is being submitted at this moment is none of them.
        """
        return self._records().uncertain(base_url)

    def finished(self, base_url: str, model: str, duration: int | None) -> list[float]:
        """Seconds, the queue apart, that the last 50 watched ones took; the newest last."""
        return self._records().finished(base_url, model, duration)


def _open(source: str) -> SqliteLedger | TeamLedger:
    if not is_address(source):
        return SqliteLedger(source)
    from .team_ledger import TeamLedger  # which few need

    return TeamLedger(source)
