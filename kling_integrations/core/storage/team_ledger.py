"""The ledger that a team shares: its records are in a bucket or in a shared folder.

The records there decide. What they say is mirrored in an SQLite file of this machine, which
answers all questions about many: before each of them only what is new is read.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from .. import settings, submission
from ..errors import (
    GenerationFailedError,
    KlingWarning,
    LedgerError,
    LedgerUnreachableError,
)
from ..generation import Generation, Saved
from ..identity import account
from ..records import RecordStore, UnreadableRecordError
from ..request import VideoRequest
from ..submission import Action, Decision, Entry, Record, State
from . import saved_files, team_records
from .mirror import Mirror
from .owner import is_own, this_owner
from .record_stores import open_store
from .sqlite_ledger import RequestLock, SqliteLedger, check_unchanged, failed, known_usage
from .team_records import deciding, number_of, numbered, prefix

# How long a submission may take (seconds): an intent that is older belongs to a process that died.
# A POST is repeated for some 150 s while it surely was not taken, and may hang for a minute.
LEASE = 300.0

_CHUNK = 500  # records that are read side by side
_REMEMBERED = 2000  # submissions that one process writes without reading them again
_MANY = 20  # requests for which one listing of all names is less than one for each
_ROUNDS = 3  # tries to take the next number before one pauses
_PATIENCE = 30  # and pauses (of a second) until that is an error
_FRESH = 1.0  # seconds for which what was listed holds, within one process


class TeamLedger:
    """The records of several users and machines, at an address such as ``s3://bucket/prefix``.

    What the user's own ledger on this machine (``own``) says is paid for is not paid for again,
    so that a team can begin to share at any time. Raises what ``open_store`` raises, and
    LedgerError where the records cannot be reached: nothing is submitted then.
    """

    lease = LEASE

    def __init__(self, address: str, store: RecordStore | None = None) -> None:
        self.address = address
        self._store = store or open_store(address)
        self._mirror = Mirror(self._mirror_path)
        self._own = SqliteLedger()
        self._refreshed: tuple[float, Path] | None = None
        self._lost: dict[str, int] = {}  # how often the names of a request were taken and not there
        self._watched: dict[str, float] = {}  # when the intents of others were seen first
        self._written: dict[str, tuple[str, Entry]] = {}  # what this process wrote last, by request

    def _mirror_path(self) -> Path:
        # However it is spelled: what is kept here must be found again.
        scheme, _, rest = self.address.partition("://")
        path = "/".join(filter(None, rest.removeprefix("localhost/").split("/")))
        regular = f"{scheme}:///{path}" if scheme == "file" else f"{scheme}://{path}"
        key = hashlib.sha256(regular.encode()).hexdigest()[:16]
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
        if own is not None and own.action is Action.REFUSE:
            return own
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
        resubmit: str | None = None,
    ) -> tuple[Decision, Record] | None:
        """See ``Ledger.claim``. None while another machine submits the same: ask again soon.

        A request that is new to the team takes one round trip.
        """
        where = prefix(base_url, request.fingerprint, take)
        own = self._own_decision(request, base_url, new=new, take=take, resubmit=resubmit)
        if own is not None and own.entry is not None:
            if own.action is Action.REFUSE:
                if self._own.is_submitting(own.entry):  # a process that knows of no team
                    return None
                raise submission.refusal(own.entry.record)
            adopted = self._adopted(where, own, request, base_url)
            if adopted is not None:
                return adopted, own.entry.record
        record = Record.intent(request)
        earlier = None if new else self._earlier(request, base_url, take, resubmit=resubmit)
        if earlier is not None:
            return self._refused_or(earlier, record)
        intent = Entry.intent(request, record, base_url, take, key_hash, this_owner())
        name, entries = numbered(where, 1), dict[str, Entry]()
        if not new and self._created(name, intent):
            return Decision(Action.SUBMIT, "nothing was submitted for this before"), record
        for _ in range(_ROUNDS):
            entries = self._of_request(where, name)
            decision = _decided(entries, request, new, resubmit)
            if decision.action is not Action.SUBMIT:
                self._lost.pop(where, None)
                if decision.picks_up:
                    self._learn(entries)
                return self._refused_or(decision, record)
            name = numbered(where, max(map(number_of, entries), default=0) + 1)
            if self._created(name, intent):
                self._lost.pop(where, None)
                self._learn(entries)
                return decision, record
        self._lose(where)
        return None

    def _lose(self, where: str) -> None:
        """Counts a claim that others were quicker at: one asks again soon, but not for ever."""
        lost = self._lost[where] = self._lost.get(where, 0) + 1
        if lost > _PATIENCE:
            del self._lost[where]
            raise LedgerUnreachableError(
                f"The records in {self._store} say that a name is taken and hold no such record, "
                f"{lost * _ROUNDS} times: {where}.",
                hint="Nothing was submitted. A store that shows late what was written does this, "
                "and an address that it spells in two ways.",
            )

    def _refused_or(self, decision: Decision, record: Record) -> tuple[Decision, Record] | None:
        """The answer of ``claim`` where nothing is paid; raises SubmissionUncertainError."""
        if decision.action is not Action.REFUSE:
            return decision, record
        assert decision.entry is not None
        if self.is_submitting(decision.entry, holding=True):
            return None
        raise submission.refusal(decision.entry.record, decision.entry.owner)

    def _of_request(self, where: str, name: str = "") -> dict[str, Entry]:
        """What the team knows of a request, each with its file on this machine.

        ``name`` is a record that must be there, listed or not yet.
        """
        self._send(where)
        entries = team_records.of_request(self._store, where, name)
        with suppress(LedgerError):
            for unsent, entry in self._mirror.unsent(where).items():
                stored = entries.get(unsent)
                entries[unsent] = stored.filled(entry) if stored else entry
        return self._here({each: entries[each] for each in sorted(entries, key=number_of)})

    def _here(self, entries: dict[str, Entry]) -> dict[str, Entry]:
        try:
            return self._mirror.found_here(entries)
        except LedgerError:  # a copy that cannot be read is no trouble
            return entries

    def _own_decision(
        self,
        request: VideoRequest,
        base_url: str,
        *,
        new: bool,
        take: int,
        resubmit: str | None = None,
    ) -> Decision | None:
        """What was paid for on this machine before the team shared its records, or may have been.

        None where nothing was, and where the team has it by now.
        """
        if new or not self._own.path.exists():
            return None
        decision = self._own.preview(request, base_url, take=take)
        if decision.action is Action.REFUSE:
            assert decision.entry is not None
            if decision.entry.record.client_request_id == resubmit:
                return None
            where = prefix(base_url, request.fingerprint, take)
            if _decided(self._of_request(where), request, new=False).picks_up:
                return None
        return None if decision.pays else decision

    def _earlier(
        self,
        request: VideoRequest,
        base_url: str,
        take: int,
        found: Mapping[str, dict[str, Entry]] | None = None,
        resubmit: str | None = None,
    ) -> Decision | None:
        """What the team has of it under an earlier form of its name, if that forbids to pay.

        Ordinary requests have none that the team could know (its records are younger than version
        0.1), and cost no round trip here; nor does what is ``found`` already.
        """
        for fingerprint in request.fingerprints[1:-1]:
            where = prefix(base_url, fingerprint, take)
            known = (found or {}).get(where)
            entries = self._of_request(where) if known is None else self._here(known)
            decision = _decided(entries, request, new=False, resubmit=resubmit)
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
        name, decision = "", own
        for _ in range(_ROUNDS):
            entries = self._of_request(where, name)
            known = _decided(entries, request, new=False)
            if known.picks_up:
                self._learn(entries)
                return known
            if _has(entries, own):
                return None
            name = numbered(where, max(map(number_of, entries), default=0) + 1)
            # Under the name of today: it may have been written in an earlier form.
            record = replace(own.entry.record, fingerprint=request.fingerprint)
            entry = replace(
                own.entry, record=record, base_url=account(base_url), owner=this_owner()
            )
            if self._created(name, entry):
                return own
        return decision  # it is paid for, whatever the team's store says

    def _created(self, name: str, entry: Entry) -> bool:
        made = self._store.create(name, team_records.to_json(entry))
        if made:
            self._remember(name, entry)
            with suppress(LedgerError):
                self._mirror.claimed(name, entry)
        return made

    def is_submitting(self, entry: Entry, *, holding: bool = False) -> bool:
        """Whether the owner of an intent is still at it, as far as can be told from here.

        A process of this machine holds the request's lock, which falls with it; ``holding``: the
        caller has that lock, so no other has it. Of any other machine only the lease tells. A
        number of a process proves nothing: it is given to others, and containers share it.
        """
        if entry.state is not State.INTENT:
            return False
        if entry.owner is None:  # of the user's own ledger, which has locks of its own
            return self._own.is_submitting(entry)
        record = entry.record
        with suppress(LedgerError):
            if self._mirror.is_claimed(entry):
                return not holding and self._mirror.is_submitting(entry)
        first = self._watched.setdefault(record.client_request_id, time.monotonic())
        # By two clocks: that of the other machine may be wrong, and then a question is asked.
        waited, age = time.monotonic() - first, time.time() - record.created_at
        return waited < LEASE and abs(age) < LEASE

    # --- writing what became of it ---------------------------------------------------------

    def advance(self, record: Record) -> None:
        """See ``Ledger.advance``; one round trip for a claim of this process, else two.

        What the store cannot be told is kept on this machine, with a warning, and is sent later.
        """
        own = record.client_request_id
        name, entry, is_mine = self._named(own)
        if name is None:
            self._own.advance(record)  # of the time before the team shared its records
            return
        with suppress(LedgerError):  # a copy that cannot be read is no trouble
            known = record.generation_id and self._mirror.entry(
                entry.base_url, record.generation_id
            )
            if not known and record.generation_id and self._own.path.exists():
                known = self._own.entry(entry.base_url, record.generation_id)
            if known and known.record.client_request_id != own:
                raise submission.shared_id(record)
        submitted_at = record.created_at if record.state is State.SUBMITTED else None
        news = replace(entry, record=record, submitted_at=submitted_at)
        # An intent is only written by the machine that submits, so what it has become is known.
        is_known = is_mine and entry.state is State.INTENT
        self._write(name, lambda latest: latest.updated(news), entry, is_known=is_known)

    def completed(self, base_url: str, generation: Generation, elapsed: float | None) -> None:
        usage = known_usage(generation.usage)

        def change(entry: Entry) -> Entry:
            record = entry.record.ended(State.COMPLETED)
            return replace(entry, record=record, usage=usage, elapsed=elapsed)

        if not self._change(base_url, generation.id, change):
            self._own.completed(base_url, generation, elapsed)

    def wait_failed(self, base_url: str, error: BaseException) -> None:
        if not isinstance(error, GenerationFailedError) or not error.generation_id:
            return
        if not self._change(base_url, error.generation_id, partial(failed, error=error)):
            self._own.wait_failed(base_url, error)

    def saved(self, base_url: str, generation_id: str, saved: Saved) -> None:
        path = saved.path.resolve()

        def change(entry: Entry) -> Entry:
            return replace(entry, path=path, size=saved.size, sha256=saved.sha256)

        if known := self._of_generation(base_url, generation_id):
            # Before the record is changed, which happens inside a transaction of the same file.
            with suppress(LedgerError):
                self._mirror.saved_here(known[1].record.client_request_id, path)
        if not self._change(base_url, generation_id, change):
            self._own.saved(base_url, generation_id, saved)

    def forget(self, entry: Entry) -> None:
        """See ``Ledger.forget``. A mark beside the record: its owner may be writing its id."""
        name, _, _ = self._named(entry.record.client_request_id)
        if name is None:
            self._own.forget(entry)
            return
        self._send(name)
        if (stored := self._read(name)) is not None:
            check_unchanged(stored, entry)
        self._store.create(team_records.forgotten(name, entry.state), {"by": str(this_owner())})
        self._know(name, replace(entry, record=entry.record.ended(State.FORGOTTEN)))

    def _change(self, base_url: str, generation_id: str, change: Callable[[Entry], Entry]) -> bool:
        """Whether the team has such a generation; its record is changed then, as it is stored."""
        known = self._of_generation(base_url, generation_id)
        if known is None:
            return False
        name, entry = known
        self._write(name, lambda latest: latest.updated(change(latest)), entry)
        return True

    def _of_generation(self, base_url: str, generation_id: str) -> tuple[str, Entry] | None:
        """The name and the record of a generation of the team, as far as this machine knows it."""
        for written in list(self._written.values()):  # a list: other threads write into it
            if written[1].generation_id == generation_id:
                return written
        entry = self._mirror.entry(base_url, generation_id)
        name = self._mirror.name(entry.record.client_request_id) if entry else None
        return (name, entry) if name and entry else None

    def _write(
        self,
        name: str,
        change: Callable[[Entry], Entry],
        entry: Entry,
        *,
        is_known: bool = False,
    ) -> None:
        """Changes the copy here, then what is stored; ``is_known``: that is not read first.

        ``change`` runs inside a transaction, so it asks no store and no file. ``entry`` is the
        record as this process knows it. Raises LedgerError only where neither took the change.
        """
        kept: LedgerError | None = None
        try:
            entry = self._mirror.keep(name, entry, change)
        except LedgerError as error:
            kept, entry = error, change(entry)
        self._remember(name, entry)
        try:
            # The copy may be old: only the change counts, and what the store lacks.
            stored = None if is_known else self._read(name)
            latest = entry if stored is None else change(stored.filled(entry))
            self._store.write(name, team_records.to_json(latest))
        except UnreadableRecordError:
            raise
        except LedgerError as error:
            if kept is not None:
                raise
            warnings.warn(
                f"{error.message} What became of {entry.generation_id or 'a submission'} is kept "
                "on this machine, and goes to the team's records when they can be reached.",
                KlingWarning,
                stacklevel=4,
            )
            return
        if kept is None:
            with suppress(LedgerError):
                self._mirror.sent(entry)

    def _send(self, where: str = "") -> None:
        """Sends what the store has not got yet, of one request or all."""
        with suppress(LedgerError):
            for name, entry in self._mirror.unsent(where).items():
                try:
                    stored = self._read(name)
                    latest = entry if stored is None else stored.filled(entry)
                    self._store.write(name, team_records.to_json(latest))
                except LedgerUnreachableError:
                    return
                except LedgerError:  # of this one; it keeps none of the others back
                    continue
                self._mirror.sent(entry)

    def _read(self, name: str) -> Entry | None:
        stored = self._store.read(name)
        return None if stored is None else team_records.from_json(stored, name)

    # --- reading ---------------------------------------------------------------------------

    def entry(self, base_url: str, generation_id: str) -> Entry | None:
        known = self._mirror.entry(base_url, generation_id)
        if known is None:
            self.refresh()
            known = self._mirror.entry(base_url, generation_id)
        return known or self._own.entry(base_url, generation_id)

    def submission(self, client_request_id: str) -> Entry | None:
        self.refresh()
        found = self._mirror.submission(client_request_id)
        return found or self._own.submission(client_request_id)

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
        shared = self._mirror.running(base_url)
        mine = [entry for entry in shared if is_own(entry)]
        known = {entry.generation_id for entry in shared}
        return mine + [e for e in self._own.running(base_url) if e.generation_id not in known]

    def uncertain(self, base_url: str) -> list[Entry]:
        """Of everybody, but not what is being submitted at this moment."""
        self.refresh()
        shared = self._mirror.uncertain(base_url)
        open_ = [entry for entry in shared if not self.is_submitting(entry)]
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
        self._send()
        listed = self._store.names(team_records.REQUESTS)
        known = self._mirror.versions()
        changed = [
            name
            for name, version in listed.items()
            if known.get(name) != version and team_records.is_record(name)
        ]
        for start in range(0, len(changed), _CHUNK):
            entries = self._read_many(changed[start : start + _CHUNK])
            self._mirror.put(entries, listed)
        self._mirror.apply(listed)
        self._refreshed = now

    def _read_many(self, names: list[str]) -> dict[str, Entry]:
        try:
            values = self._store.read_many(names)
            return {name: team_records.from_json(value, name) for name, value in values.items()}
        except UnreadableRecordError as error:
            if len(names) > 1:
                middle = len(names) // 2
                return {**self._read_many(names[:middle]), **self._read_many(names[middle:])}
            warnings.warn(error.message, KlingWarning, stacklevel=4)
            return {}

    def _know(self, name: str, entry: Entry) -> None:
        self._remember(name, entry)
        self._learn({name: entry})

    def _remember(self, name: str, entry: Entry) -> None:
        self._written[entry.record.client_request_id] = name, entry
        while len(self._written) > _REMEMBERED:
            with suppress(KeyError, RuntimeError):  # another thread was quicker
                del self._written[next(iter(self._written))]

    def _learn(self, entries: dict[str, Entry]) -> None:
        """A copy that cannot be written is no trouble: the team's record is what counts."""
        with suppress(LedgerError):
            self._mirror.put(entries)

    def _named(self, client_request_id: str) -> tuple[str | None, Entry, bool]:
        """The name and the record of a submission, and whether this process wrote it.

        The name is None for one of the user's own ledger. Raises LedgerError for an unknown one.
        """
        if written := self._written.get(client_request_id):
            return *written, True
        if mirrored := self._mirror.named(client_request_id):
            return *mirrored, False
        own = self._own.submission(client_request_id) if self._own.path.exists() else None
        if own is not None:
            return None, own, False
        raise LedgerError(f"No record holds the submission {client_request_id}.")


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


def _decided(
    entries: dict[str, Entry], request: VideoRequest, new: bool, resubmit: str | None = None
) -> Decision:
    entry = deciding(entries)
    decision = submission.decide(
        entry.record if entry else None,
        request.fingerprints,
        new=new,
        saved=saved_files.saved_file(entry) is not None,
        resubmit_uncertain=entry is not None and entry.record.client_request_id == resubmit,
    )
    return replace(decision, entry=entry)


def _has(entries: dict[str, Entry], own: Decision) -> bool:
    """Whether the submission that decides is among these."""
    asked = own.entry.record.client_request_id if own.entry else None
    return any(entry.record.client_request_id == asked for entry in entries.values())
