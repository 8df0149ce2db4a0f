"""The ledger that a team shares: its records are in a bucket or in a shared folder.

The records there decide. What they say is mirrored in an SQLite file of this machine, which
answers all questions about many: before each of them only what is new is read.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .. import settings, submission
from ..errors import GenerationFailedError, KlingWarning, LedgerError
from ..generation import Generation, Saved
from ..identity import account
from ..records import RecordStore, UnreadableRecordError
from ..request import VideoRequest
from ..submission import Action, Decision, Entry, Record, State
from . import saved_files, team_records
from .mirror import Mirror
from .owner import this_owner
from .record_stores import open_store
from .request_lock import RequestLock
from .sqlite_ledger import SqliteLedger
from .team_records import deciding, number_of, numbered, prefix

# How long a submission may take (seconds): an intent that is older belongs to a process that died.
# A POST is repeated for some 150 s while it surely was not taken, and may hang for a minute.
LEASE = 300.0

_CHUNK = 500  # records that are read side by side
_REMEMBERED = 2000  # submissions that one process writes without reading them again
_MANY = 20  # requests for which one listing of all names is less than one for each
_FRESH = 1.0  # seconds for which what was listed holds, within one process


class TeamLedger:
    """The records of several users and machines, at an address such as ``s3://bucket/prefix``.

    What the user's own ledger on this machine (``own``) says is paid for is not paid for again,
    so that a team can begin to share at any time. Raises what ``open_store`` raises, and
    LedgerError where the records cannot be reached: nothing is submitted then.
    """

    def __init__(self, address: str, store: RecordStore | None = None) -> None:
        self.address = address
        self._store = store or open_store(address)
        self._mirror = Mirror(self._mirror_path)
        self._own = SqliteLedger()
        self._refreshed: tuple[float, Path] | None = None
        self._watched: dict[str, float] = {}  # when the intents of others were seen first
        self._written: dict[str, tuple[str, Entry]] = {}  # what this process wrote last, by request

    def _mirror_path(self) -> Path:
        key = hashlib.sha256(self.address.encode()).hexdigest()[:16]
        return settings.home() / "teams" / f"{key}.sqlite3"

    @property
    def path(self) -> Path:
        """The mirror on this machine."""
        return self._mirror_path()

    # --- claiming --------------------------------------------------------------------------

    def preview(
        self, request: VideoRequest, base_url: str, *, new: bool = False, take: int = 1
    ) -> Decision:
        """See ``Ledger.preview``; one round trip where nothing is there, else two."""
        entries = self._of_request(prefix(base_url, request.fingerprint, take))
        return self._previewed(entries, request, base_url, new=new, take=take)

    def prefetch(
        self, base_url: str, requests: Iterable[tuple[str, int]]
    ) -> TeamLedger | Prefetched:
        """See ``Ledger.prefetch``; a listing of all names and what is read of them."""
        prefixes = [prefix(base_url, fingerprint, take) for fingerprint, take in requests]
        if len(prefixes) < _MANY:
            return self
        return Prefetched(self, team_records.of_requests(self._store, prefixes))

    def _previewed(
        self,
        entries: dict[str, Entry],
        request: VideoRequest,
        base_url: str,
        *,
        new: bool,
        take: int,
        found: Mapping[str, dict[str, Entry]] | None = None,
    ) -> Decision:
        own = self._own_decision(request, base_url, new=new, take=take)
        decision = _decided(entries, request, new)
        if not new and decision.action is Action.SUBMIT:
            decision = self._earlier(request, base_url, take, found) or decision
        if own is not None and not decision.picks_up and not _has(entries, own):
            return own
        return decision

    def lock(self, request: VideoRequest | Record) -> RequestLock:
        """Orders the processes of this machine; those of others are told apart by ``claim``."""
        return self._mirror.lock(request)

    def claim(
        self,
        request: VideoRequest,
        base_url: str,
        *,
        new: bool = False,
        take: int = 1,
        key_hash: str | None = None,
    ) -> tuple[Decision, Record] | None:
        """See ``Ledger.claim``. None while another machine submits the same: ask again soon.

        A request that is new to the team takes one round trip.
        """
        where = prefix(base_url, request.fingerprint, take)
        own = self._own_decision(request, base_url, new=new, take=take)
        if own is not None and own.entry is not None:
            adopted = self._adopted(where, own, request, base_url)
            if adopted is not None:
                return adopted, own.entry.record
        record = Record.intent(request)
        if not new and (earlier := self._earlier(request, base_url, take)) is not None:
            return self._refused_or(earlier, record)
        intent = Entry.intent(request, record, base_url, take, key_hash, this_owner())
        if not new and self._created(numbered(where, 1), intent):
            return Decision(Action.SUBMIT, "nothing was submitted for this before"), record
        while True:
            entries = self._of_request(where)
            decision = _decided(entries, request, new)
            if decision.action is not Action.SUBMIT:
                if decision.picks_up:
                    self._learn(entries)
                return self._refused_or(decision, record)
            number = max(map(number_of, entries), default=0) + 1
            if self._created(numbered(where, number), intent):
                self._learn(entries)
                return decision, record

    def _refused_or(self, decision: Decision, record: Record) -> tuple[Decision, Record] | None:
        """The answer of ``claim`` where nothing is paid; raises SubmissionUncertainError."""
        if decision.action is not Action.REFUSE:
            return decision, record
        assert decision.entry is not None
        if self._is_submitting(decision.entry):
            return None
        raise submission.refusal(decision.entry.record, decision.entry.owner)

    def _of_request(self, where: str) -> dict[str, Entry]:
        """What the team knows of a request, each with its file on this machine."""
        return self._here(team_records.of_request(self._store, where))

    def _here(self, entries: dict[str, Entry]) -> dict[str, Entry]:
        try:
            return self._mirror.found_here(entries)
        except LedgerError:  # a copy that cannot be read is no trouble
            return entries

    def _own_decision(
        self, request: VideoRequest, base_url: str, *, new: bool, take: int
    ) -> Decision | None:
        """What was paid for on this machine before the team shared its records, or may have been.

        Raises SubmissionUncertainError for the latter.
        """
        if new or not self._own.path.exists():
            return None
        decision = self._own.preview(request, base_url, take=take)
        if decision.action is Action.REFUSE:
            assert decision.entry is not None
            raise submission.refusal(decision.entry.record)
        return decision if decision.picks_up else None

    def _earlier(
        self,
        request: VideoRequest,
        base_url: str,
        take: int,
        found: Mapping[str, dict[str, Entry]] | None = None,
    ) -> Decision | None:
        """What the team has of it under an earlier form of its name, if that forbids to pay.

        Ordinary requests have none that the team could know (its records are younger than version
        0.1), and cost no round trip here; nor does what is ``found`` already.
        """
        for fingerprint in request.fingerprints[1:-1]:
            where = prefix(base_url, fingerprint, take)
            known = (found or {}).get(where)
            entries = self._of_request(where) if known is None else self._here(known)
            decision = _decided(entries, request, new=False)
            if decision.action is not Action.SUBMIT:
                if decision.picks_up:
                    self._learn(entries)
                return decision
        return None

    def _adopted(
        self, where: str, own: Decision, request: VideoRequest, base_url: str
    ) -> Decision | None:
        """The team's decision where it pays nothing either; else the team gets the record.

        None where the team has had it before: what became of it since is in the team's records.
        """
        assert own.entry is not None
        while True:
            entries = self._of_request(where)
            decision = _decided(entries, request, new=False)
            if decision.picks_up:
                self._learn(entries)
                return decision
            if _has(entries, own):
                return None
            number = max(map(number_of, entries), default=0) + 1
            # Under the name of today: it may have been written in an earlier form.
            record = replace(own.entry.record, fingerprint=request.fingerprint)
            entry = replace(
                own.entry, record=record, base_url=account(base_url), owner=this_owner()
            )
            if self._created(numbered(where, number), entry):
                return own

    def _created(self, name: str, entry: Entry) -> bool:
        made = self._store.create(name, team_records.to_json(entry))
        if made:
            self._know(name, entry)
        return made

    def _is_submitting(self, entry: Entry) -> bool:
        """Whether the owner of an intent is still at it, as far as can be told from here."""
        record, owner = entry.record, entry.owner
        first = self._watched.setdefault(record.client_request_id, time.monotonic())
        if owner is not None and owner.host == this_owner().host:
            return owner.pid != os.getpid() and _is_running(owner.pid)
        # By two clocks: that of the other machine may be wrong, and then a question is asked.
        waited, age = time.monotonic() - first, time.time() - record.created_at
        return waited < LEASE and age < LEASE

    # --- writing what became of it ---------------------------------------------------------

    def advance(self, record: Record) -> None:
        """See ``Ledger.advance``; one round trip."""
        name, entry = self._named(record.client_request_id)
        submitted_at = record.created_at if record.state is State.SUBMITTED else entry.submitted_at
        self._write(name, replace(entry, record=record, submitted_at=submitted_at))

    def completed(self, base_url: str, generation: Generation, elapsed: float | None) -> None:
        usage = generation.usage.to_json() if generation.usage else {}
        known = {key: float(value) for key, value in usage.items() if value is not None}

        def change(entry: Entry) -> Entry:
            record = entry.record.ended(State.COMPLETED)
            return replace(entry, record=record, usage=known, elapsed=entry.elapsed or elapsed)

        if not self._change(base_url, generation.id, change):
            self._own.completed(base_url, generation, elapsed)

    def wait_failed(self, base_url: str, error: BaseException) -> None:
        if not isinstance(error, GenerationFailedError) or not error.generation_id:
            return
        message, kind = error.message, error.kind

        def change(entry: Entry) -> Entry:
            record = entry.record.ended(State.FAILED)
            return replace(entry, record=record, error=message, error_kind=kind)

        if not self._change(base_url, error.generation_id, change):
            self._own.wait_failed(base_url, error)

    def saved(self, base_url: str, generation_id: str, saved: Saved) -> None:
        path = saved.path.resolve()

        def change(entry: Entry) -> Entry:
            with suppress(LedgerError):
                self._mirror.saved_here(entry.record.client_request_id, path)
            return replace(entry, path=path, size=saved.size, sha256=saved.sha256)

        if not self._change(base_url, generation_id, change):
            self._own.saved(base_url, generation_id, saved)

    def forget(self, entry: Entry) -> None:
        """See ``Ledger.forget``. A mark beside the record: its owner may be writing its id."""
        name = self._mirror.name(entry.record.client_request_id)
        if name is None:
            self._own.forget(entry)
            return
        self._store.create(team_records.forgotten(name), {"by": str(this_owner())})
        self._know(name, replace(entry, record=entry.record.ended(State.FORGOTTEN)))

    def _change(self, base_url: str, generation_id: str, change: Callable[[Entry], Entry]) -> bool:
        """Whether the team has such a generation; its record is changed then."""
        written = next(
            (each for each in self._written.values() if each[1].generation_id == generation_id),
            None,
        )
        if written is not None:
            name, entry = written
            self._write(name, change(entry))
            return True
        known = self._mirror.entry(base_url, generation_id)
        found = self._mirror.name(known.record.client_request_id) if known else None
        stored = self._store.read(found) if found else None
        if found is None or stored is None:
            return False
        self._write(found, change(team_records.from_json(stored, found)))
        return True

    def _write(self, name: str, entry: Entry) -> None:
        self._store.write(name, team_records.to_json(entry))
        self._know(name, entry)

    # --- reading ---------------------------------------------------------------------------

    def entry(self, base_url: str, generation_id: str) -> Entry | None:
        known = self._mirror.entry(base_url, generation_id)
        if known is None:
            self.refresh()
            known = self._mirror.entry(base_url, generation_id)
        return known or self._own.entry(base_url, generation_id)

    def at(self, path: Path) -> list[Entry]:
        return self._mirror.at(path) + self._own.at(path)

    def with_content(self, sha256: str) -> list[Entry]:
        return self._mirror.with_content(sha256) + self._own.with_content(sha256)

    def history(self, limit: int = 20, search: str = "", model: str = "") -> list[Entry]:
        self.refresh()
        return self._mirror.history(limit, search, model)

    def running(self, base_url: str) -> list[Entry]:
        """Of this user, on whichever machine; and those of the time before the team shared."""
        self.refresh()
        user = this_owner().user
        shared = self._mirror.running(base_url)
        mine = [entry for entry in shared if entry.owner is None or entry.owner.user == user]
        known = {entry.generation_id for entry in shared}
        return mine + [e for e in self._own.running(base_url) if e.generation_id not in known]

    def uncertain(self, base_url: str) -> list[Entry]:
        """Of everybody, but not what is being submitted at this moment."""
        self.refresh()
        shared = self._mirror.uncertain(base_url)
        open_ = [entry for entry in shared if not self._is_submitting(entry)]
        return open_ + self._own.uncertain(base_url)

    def finished(self, base_url: str, model: str, duration: int | None) -> list[float]:
        return self._mirror.finished(base_url, model, duration)

    # --- the mirror ------------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads what is new; a record that is unreadable is left out, with a warning."""
        now = (time.monotonic(), self.path)
        if (
            self._refreshed
            and self._refreshed[1] == now[1]
            and now[0] - self._refreshed[0] < _FRESH
        ):
            return
        listed = self._store.names(team_records.REQUESTS)
        known = self._mirror.versions()
        changed = [
            name
            for name, version in listed.items()
            if known.get(name) != version and team_records.is_record(name)
        ]
        for start in range(0, len(changed), _CHUNK):
            entries = self._read(changed[start : start + _CHUNK])
            self._mirror.put(entries, listed)
        self._mirror.apply(listed)
        self._refreshed = now

    def _read(self, names: list[str]) -> dict[str, Entry]:
        try:
            values = self._store.read_many(names)
            return {name: team_records.from_json(value, name) for name, value in values.items()}
        except UnreadableRecordError as error:
            if len(names) > 1:
                middle = len(names) // 2
                return {**self._read(names[:middle]), **self._read(names[middle:])}
            warnings.warn(error.message, KlingWarning, stacklevel=4)
            return {}

    def _know(self, name: str, entry: Entry) -> None:
        self._written[entry.record.client_request_id] = name, entry
        while len(self._written) > _REMEMBERED:
            del self._written[next(iter(self._written))]
        self._learn({name: entry})

    def _learn(self, entries: dict[str, Entry]) -> None:
        """A copy that cannot be written is no trouble: the team's record is what counts."""
        with suppress(LedgerError):
            self._mirror.put(entries)

    def _named(self, client_request_id: str) -> tuple[str, Entry]:
        """The name and the record of a submission; LedgerError for one that is not the team's."""
        found = self._written.get(client_request_id) or self._mirror.named(client_request_id)
        if found is None:
            raise LedgerError(f"The team's records do not hold the submission {client_request_id}.")
        return found


class Prefetched:
    """Previews of many requests out of what was read at one moment; see ``Ledger.prefetch``."""

    def __init__(self, ledger: TeamLedger, found: dict[str, dict[str, Entry]]) -> None:
        self._ledger = ledger
        self._found = found

    def preview(self, request: VideoRequest, base_url: str, *, take: int = 1) -> Decision:
        """See ``Ledger.preview``; no round trip for what was asked for."""
        found = self._found.get(prefix(base_url, request.fingerprint, take))
        if found is None:
            return self._ledger.preview(request, base_url, take=take)
        here = self._ledger._here(found)
        return self._ledger._previewed(
            here, request, base_url, new=False, take=take, found=self._found
        )


def _decided(entries: dict[str, Entry], request: VideoRequest, new: bool) -> Decision:
    entry = deciding(entries)
    decision = submission.decide(
        entry.record if entry else None,
        request.fingerprints,
        new=new,
        saved=saved_files.saved_file(entry) is not None,
    )
    return replace(decision, entry=entry)


def _has(entries: dict[str, Entry], own: Decision) -> bool:
    """Whether the submission that decides is among these."""
    asked = own.entry.record.client_request_id if own.entry else None
    return any(entry.record.client_request_id == asked for entry in entries.values())


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
