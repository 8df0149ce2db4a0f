"""The record of one paid submission, and what it says to do. No I/O.

An intent is written before the POST, the generation id right after the reply, the outcome at the
end. The SQLite ledger and Airflow's task state store are two shelves for the same record.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import KlingError, LedgerError, StoppedWaiting, SubmissionUncertainError
from .generation import Generation, Status, Usage
from .identity import account
from .protocol import new_client_request_id, uncertain

if TYPE_CHECKING:
    from .request import VideoRequest

FORMAT = 1


class State(StrEnum):
    """How far a submission came. Only ``INTENT`` leaves open whether anything was paid."""

    INTENT = "intent"
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    FAILED = "failed"  # the generation ended with an error: not billed
    REFUSED = "refused"  # the gateway did not take it: not billed
    ABANDONED = "abandoned"  # an intent that the user chose to pay past
    FORGOTTEN = "forgotten"  # the user wants to hear no more of it


# What each state may become; anything else is a view that was overtaken. An id that arrives is
# always kept: it is of something paid for, whatever was thought of its POST meanwhile.
_TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.INTENT: frozenset(State),
    State.ABANDONED: frozenset(State) - {State.INTENT},
    State.REFUSED: frozenset({State.SUBMITTED, State.COMPLETED, State.FAILED}),
    State.FORGOTTEN: frozenset({State.SUBMITTED, State.COMPLETED, State.FAILED}),
    State.SUBMITTED: frozenset({State.COMPLETED, State.FAILED, State.FORGOTTEN}),
    State.FAILED: frozenset({State.COMPLETED, State.FORGOTTEN}),
    State.COMPLETED: frozenset(),
}


class Action(StrEnum):
    SUBMIT = "submit"
    ATTACH = "attach"  # a generation exists: wait for that one
    REUSE = "reuse"  # it is finished and its file is there
    REFUSE = "refuse"  # it may have been paid: stop until the user decides


@dataclass(frozen=True, slots=True)
class Record:
    """One submission. ``created_at`` in Unix seconds; ``max_tries`` is Airflow's, else None.

    ``inputs`` is what was asked for, fit for screens, so that a later attempt can say what changed
    since; ``replaced`` are the ids of the generations that this submission took the place of.
    Records of version 0.1 have neither.
    """

    fingerprint: str
    client_request_id: str
    model: str
    created_at: float
    state: State = State.INTENT
    generation_id: str | None = None
    max_tries: int | None = None
    inputs: Mapping[str, Any] | None = field(default=None, hash=False)
    replaced: tuple[str, ...] = ()

    @classmethod
    def intent(
        cls,
        request: VideoRequest,
        max_tries: int | None = None,
        client_request_id: str | None = None,
    ) -> Record:
        """``client_request_id`` is one that no other POST has; without it a new one is made."""
        return cls(
            fingerprint=request.fingerprint,
            client_request_id=client_request_id or new_client_request_id(),
            model=request.model,
            created_at=time.time(),
            max_tries=max_tries,
        )

    def submitted(self, generation_id: str) -> Record:
        return replace(self, state=State.SUBMITTED, generation_id=generation_id)

    def ended(self, state: State) -> Record:
        return replace(self, state=state)

    def updated(self, other: Record) -> Record:
        """This record, as it is stored, after ``other`` is written: what is known is never lost.

        A state follows the table of transitions, and an id that is known stays. Raises LedgerError
        where ``other`` names another generation: one POST makes one.
        """
        if self.generation_id and other.generation_id not in (None, self.generation_id):
            raise LedgerError(
                f"The record of {self.client_request_id} holds generation {self.generation_id}; "
                f"{other.generation_id} is another one.",
                generation_id=other.generation_id,
            )
        state = other.state if other.state in _TRANSITIONS[self.state] else self.state
        if self.state is State.FORGOTTEN and self.generation_id:
            state = self.state  # the user knew of it: nothing has arrived since
        return replace(self, state=state, generation_id=self.generation_id or other.generation_id)

    def after(self, error: BaseException) -> Record:
        """The record once the POST raised: refused, or still open where it may have been taken."""
        generation_id = getattr(error, "generation_id", None)
        if generation_id:
            return self.submitted(generation_id)
        if isinstance(error, SubmissionUncertainError | LedgerError):
            return self
        if isinstance(error, StoppedWaiting):
            return self if error.client_request_id else self.ended(State.REFUSED)
        return self.ended(State.REFUSED) if isinstance(error, KlingError) else self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for any shelf."""
        stored: dict[str, Any] = {
            "format": FORMAT,
            "state": self.state.value,
            "fingerprint": self.fingerprint,
            "client_request_id": self.client_request_id,
            "model": self.model,
            "created_at": self.created_at,
            "generation_id": self.generation_id,
            "max_tries": self.max_tries,
        }
        if self.inputs is not None:
            stored["inputs"] = dict(self.inputs)
        if self.replaced:
            stored["replaced"] = list(self.replaced)
        return stored

    @classmethod
    def from_json(cls, stored: object) -> Record:
        """Raises LedgerError for what is not such a record: unreadable is not "nothing"."""
        try:
            if not isinstance(stored, Mapping):
                raise TypeError(f"a {type(stored).__name__}")
            if int(stored.get("format", FORMAT)) > FORMAT:
                raise ValueError(f"format {stored['format']}: a newer version wrote it")
            tries, generation_id = stored.get("max_tries"), stored.get("generation_id")
            inputs, replaced = stored.get("inputs"), stored.get("replaced")
            return cls(
                fingerprint=str(stored["fingerprint"]),
                client_request_id=str(stored["client_request_id"]),
                model=str(stored["model"]),
                created_at=float(stored["created_at"]),
                state=State(stored["state"]),
                generation_id=None if generation_id is None else str(generation_id),
                max_tries=None if tries is None else int(tries),
                # They only word a message: odd ones are none.
                inputs=dict(inputs) if isinstance(inputs, Mapping) else None,
                replaced=tuple(map(str, replaced)) if isinstance(replaced, list) else (),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(
                f"The record of an earlier submission is unreadable ({error}): "
                "nothing is submitted, because that could pay twice."
            ) from None


@dataclass(frozen=True, slots=True)
class Owner:
    """Who submitted: a user of a machine, in a process."""

    user: str
    host: str
    pid: int

    def __str__(self) -> str:
        return f"{self.user} on {self.host}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with what is known of its request and result.

    Times in Unix seconds, ``elapsed`` in seconds from the submit to the end noticed, ``size`` in
    bytes. ``path`` is where the video was saved; ``storage.saved_files`` tells whether it still is.
    ``owner`` is known where several share the records; ``error_kind`` is that of the failure, and
    missing in older records.
    """

    record: Record
    base_url: str
    take: int
    duration: int | None
    prompt: str | None
    request: dict[str, Any]
    submitted_at: float | None
    elapsed: float | None
    usage: dict[str, float]
    error: str | None
    path: Path | None
    size: int | None
    sha256: str | None
    key_hash: str | None = None  # of the key that paid, see ``identity.key_hash``
    owner: Owner | None = None
    tag: str | None = None  # the user's word for it, see ``VideoRequest``
    error_kind: str | None = None  # see ``GenerationFailedError``

    @classmethod
    def intent(
        cls,
        request: VideoRequest,
        record: Record,
        base_url: str,
        take: int,
        key_hash: str | None,
        owner: Owner | None = None,
    ) -> Entry:
        """What is written before the POST."""
        return cls(
            record=record,
            base_url=account(base_url),
            take=take,
            duration=request.duration,
            prompt=request.prompt,
            request=request.summary(),
            submitted_at=None,
            elapsed=None,
            usage={},
            error=None,
            path=None,
            size=None,
            sha256=None,
            key_hash=key_hash,
            tag=request.tag,
            owner=owner,
        )

    def updated(self, other: Entry) -> Entry:
        """This entry, as it is stored, after ``other`` is written, see ``Record.updated``.

        What ``other`` does not know stays as it is; only a failed one has an error.
        """
        record = self.record.updated(other.record)
        names = ["submitted_at", "usage", "path", "size", "sha256"]
        if record.state is State.FAILED:
            names += ["error", "error_kind"]
        news = {name: value for name in names if (value := getattr(other, name))}
        if self.elapsed is None and other.elapsed is not None:
            news["elapsed"] = other.elapsed
        if record.state is State.COMPLETED:
            news |= {"error": None, "error_kind": None}
        return replace(self, record=record, **news)

    def filled(self, other: Entry) -> Entry:
        """This entry, as it is stored, with what it lacks and a copy made earlier knows.

        Unlike ``updated`` it is for a copy that may be older than what is stored.
        """
        known = ("path", "size", "sha256") if self.sha256 or self.path else ()
        names = (*known, *(name for name in ("submitted_at", "usage") if getattr(self, name)))
        return self.updated(replace(other, **{name: getattr(self, name) for name in names}))

    @property
    def generation_id(self) -> str | None:
        return self.record.generation_id

    @property
    def state(self) -> State:
        return self.record.state

    @property
    def since(self) -> float:
        """When it was submitted, in Unix seconds; before the reply, when the intent was written."""
        return self.submitted_at or self.record.created_at

    @property
    def age(self) -> float:
        """Seconds since the submit."""
        return max(0.0, time.time() - self.since)

    def generation(self) -> Generation:
        """The generation as the record knows it, without asking the gateway."""
        finished = self.state is State.COMPLETED
        return Generation(
            id=self.generation_id or "",
            status=Status.COMPLETED if finished else Status.UNKNOWN,
            usage=Usage(**self.usage) if self.usage else None,
            model=self.record.model,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about a request, and why, in words for a log line.

    ``entry`` is the earlier record that decides, where one does.
    """

    action: Action
    reason: str
    entry: Entry | None = None

    @property
    def pays(self) -> bool:
        """Whether a POST would leave."""
        return self.action is Action.SUBMIT

    @property
    def picks_up(self) -> bool:
        """Whether a generation exists that is waited for or reused: nothing is paid."""
        return self.action in (Action.ATTACH, Action.REUSE)


def decide(
    record: Record | None,
    fingerprints: Collection[str],
    *,
    new: bool = False,
    retried: bool = False,
    cleared: bool = False,
    regenerate: bool = False,
    saved: bool = False,
    resubmit_uncertain: bool = False,
) -> Decision:
    """What an earlier record says to do about a request.

    ``fingerprints``: all under which a record of the same request may stand.

    ``new``: the user pays for another one, whatever there is. ``retried``: the same piece of work
    goes on by itself (an Airflow retry): what it has paid for counts, whatever its input says
    now. ``cleared``: the user runs it again (an Airflow clear): a changed input is a new video;
    the same input is another one only with ``regenerate``, and once this one is finished.
    ``saved``: the finished file is where the record says. ``resubmit_uncertain``: the user accepts
    that an intent without an id may have been paid.
    """
    if record is None:
        return Decision(Action.SUBMIT, "nothing was submitted for this before")
    if new:
        return Decision(Action.SUBMIT, "another video is asked for")
    if record.state is State.INTENT:
        if resubmit_uncertain:
            return Decision(Action.SUBMIT, "an earlier POST without a reply is passed over")
        return Decision(Action.REFUSE, "an earlier POST has no known outcome")
    if record.state in (State.REFUSED, State.FAILED, State.ABANDONED, State.FORGOTTEN):
        return Decision(Action.SUBMIT, f"the earlier submission was {record.state}")
    if record.fingerprint not in fingerprints and not (retried and not cleared):
        return Decision(Action.SUBMIT, "the input changed since the earlier submission")
    if record.state is State.SUBMITTED:
        return Decision(Action.ATTACH, f"an earlier attempt submitted {record.generation_id}")
    if cleared and regenerate:
        return Decision(Action.SUBMIT, "another video of the same input is asked for")
    action = Action.REUSE if saved else Action.ATTACH
    return Decision(action, f"generation {record.generation_id} is finished")


def changed(record: Record, inputs: Mapping[str, Any]) -> list[str]:
    """What is asked for now and differs from the record, each as ``name: 'now' (was 'then')``.

    Empty where nothing differs, and where the record does not say what was asked for.
    """
    if record.inputs is None:
        return []
    names = dict.fromkeys((*inputs, *record.inputs))
    before, now = record.inputs, inputs
    return [
        f"{name}: {_shown(now.get(name))} (was {_shown(before.get(name))})"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


_LONGEST_SHOWN = 80


def shared_id(record: Record) -> SubmissionUncertainError:
    """The error for a reply that names a generation which another submission has.

    Two submissions never share one: a cache answered, or a connection was mixed up, and what
    became of this POST is not known.
    """
    return uncertain(
        f"the gateway answered with generation {record.generation_id}, which is of another "
        "submission",
        record.client_request_id,
    )


def refusal(record: Record, owner: Owner | None = None) -> SubmissionUncertainError:
    """The error for Action.REFUSE: what to look up, and how to go on."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.created_at))
    who = f" by {owner}" if owner else ""
    return uncertain(f"a POST of {when}{who} has no known outcome", record.client_request_id)
