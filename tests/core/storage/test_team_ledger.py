"""A ledger that several machines share: one POST, whoever asks, and nothing lost."""

import hashlib
import json
import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest

from kling_integrations import KlingClient, VideoRequest
from kling_integrations.core import submission
from kling_integrations.core.errors import (
    GenerationFailedError,
    InvalidRequestError,
    KlingError,
    KlingWarning,
    LedgerError,
    LedgerUnreachableError,
    SubmissionUncertainError,
)
from kling_integrations.core.generation import Generation, Saved, Status
from kling_integrations.core.storage import owner, team_ledger, team_records
from kling_integrations.core.storage.folder_records import FolderRecords
from kling_integrations.core.storage.ledger import Ledger
from kling_integrations.core.storage.mirror import Mirror
from kling_integrations.core.storage.sqlite_file import SqliteFile
from kling_integrations.core.storage.team_ledger import TeamLedger
from kling_integrations.core.submission import Entry, Owner, Record, State

BADGER = VideoRequest(model="v2.5-turbo-pro", prompt="A badger")


@pytest.fixture
def team(tmp_path):
    return (tmp_path / "team").as_uri()


@pytest.fixture
def machine(tmp_path, monkeypatch, team):
    """``machine("name")``: from here on the user and home of that machine."""

    def use(name, *, shares=True):
        home = tmp_path / name
        monkeypatch.setenv("KLING_HOME", str(home))
        if shares:
            monkeypatch.setenv("KLING_LEDGER", team)
        else:
            monkeypatch.delenv("KLING_LEDGER", raising=False)
        monkeypatch.setattr(owner.platform, "node", lambda: name)
        return Ledger()

    return use


def submit(sandbox, ledger, request, **options):
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        return client.submit(request, **options)


def files(tmp_path):
    return sorted((tmp_path / "team").rglob("*.json"))


def completed(generation_id):
    return Generation(id=generation_id, status=Status.COMPLETED)


def saved(path, content):
    path.write_bytes(content)
    return Saved(path, len(content), hashlib.sha256(content).hexdigest(), None)


def out_of_reach(*_):
    raise LedgerUnreachableError("The token has expired.")


def kept_back(write, *args):
    with pytest.warns(KlingWarning, match="kept on this machine"):
        write(*args)


class Counting(FolderRecords):
    """Counts the round trips."""

    def __init__(self, folder):
        super().__init__(folder)
        self.calls = []

    def __getattribute__(self, name):
        if name in ("read", "read_many", "create", "write", "names"):
            self.calls.append(name)
        return super().__getattribute__(name)


def test_a_colleague_gets_the_video_that_was_paid_for(sandbox, machine, raccoon, tmp_path):
    anna = machine("anna-pc")
    with KlingClient("sandbox", sandbox.base_url, ledger=anna) as client:
        first = client.generate(raccoon)
        client.save(first, tmp_path / "anna.mp4")
    (tmp_path / "anna.mp4").unlink()
    ben = machine("ben-pc")
    with KlingClient("sandbox", sandbox.base_url, ledger=ben) as client:
        decision = ben.preview(raccoon, sandbox.base_url)
        assert decision.picks_up
        assert str(decision.entry.owner).endswith("on anna-pc")
        second = client.generate(raccoon)
        saved = client.save(second, tmp_path / "ben.mp4")
    assert second.id == first.id
    assert saved.size > 0
    assert len(sandbox.posts) == 1


def test_each_machine_finds_its_own_file_whoever_saved_the_video_last(
    sandbox, machine, raccoon, tmp_path
):
    def video(name):
        ledger = machine(f"{name}-pc")
        with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
            made = client.generate(raccoon)
            return client.save(made, tmp_path / f"{name}.mp4").path

    annas, bens = video("anna"), video("ben")
    for name, path in (("anna", annas), ("ben", bens)):
        ledger = machine(f"{name}-pc")
        assert ledger.preview(raccoon, sandbox.base_url).entry.path == path
        assert ledger.history()[0].path == path
        assert [entry.path for entry in ledger.at(path)] == [path]
    # A machine that has no file of it knows where the last one was.
    assert machine("carl-pc").history()[0].path == bens
    assert len(sandbox.posts) == 1


def test_a_paid_post_takes_two_round_trips(sandbox, raccoon, tmp_path, monkeypatch):
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    store = Counting(tmp_path / "team")
    submit(sandbox, TeamLedger("file:///team", store), raccoon)
    assert store.calls == ["create", "write"]


def test_thousands_are_previewed_with_few_round_trips_and_as_one_by_one(
    sandbox, raccoon, tmp_path, monkeypatch
):
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    store = Counting(tmp_path / "team")
    ledger = TeamLedger("file:///team", store)
    requests = [VideoRequest(prompt=f"number {number}") for number in range(1200)]
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        paid = [client.submit(request, take=2) for request in requests[:3]]
        ledger.forget(ledger.entry(client.base_url, paid[1].id))
    asked = [(request.fingerprint, take) for request in requests for take in (1, 2)]
    store.calls.clear()
    previews = ledger.prefetch(sandbox.base_url, iter(asked))
    many = [
        previews.preview(request, sandbox.base_url, take=take)
        for request in requests
        for take in (1, 2)
    ]
    assert Counter(store.calls) == {"names": 1, "read_many": 1, "read": 3}  # side by side
    assert [many[at].pays for at in (1, 3, 5)] == [False, True, False]
    assert sum(decision.picks_up for decision in many) == 2
    for request, decision in zip(requests[:5], many[1:10:2], strict=True):
        assert decision == ledger.preview(request, sandbox.base_url, take=2)
    store.calls.clear()
    previews.preview(raccoon, sandbox.base_url)  # not asked for before: it is looked up
    assert "names" in store.calls


# A number as a 32-bit column holds it: earlier releases sent, and recorded, all of its digits.
DIGITS = VideoRequest(model="v2.5-turbo-pro", prompt="A badger", cfg_scale=0.699999988079071)


def as_earlier_releases_recorded(sandbox, machine, tmp_path, request):
    """The record of a colleague whose release knew the request by its digits or bytes."""
    submit(sandbox, machine("anna-pc"), request)
    (file,) = files(tmp_path)
    stored = json.loads(file.read_text("utf-8"))
    old = request.fingerprints[1]
    name = team_records.numbered(team_records.prefix(sandbox.base_url, old, 1), 1)
    stored["fingerprint"] = old
    file.unlink()
    moved = tmp_path / "team" / f"{name}.json"
    moved.parent.mkdir(parents=True, exist_ok=True)
    moved.write_text(json.dumps(stored), encoding="utf-8")
    return stored["generation_id"]


def test_what_a_team_recorded_under_an_earlier_form_of_the_request_is_not_paid_again(
    sandbox, machine, tmp_path
):
    assert len(DIGITS.fingerprints) == 3
    paid = as_earlier_releases_recorded(sandbox, machine, tmp_path, DIGITS)
    bert = machine("bert-pc")
    assert bert.preview(DIGITS, sandbox.base_url).picks_up
    many = [(f"{number:064x}", 1) for number in range(30)] + [(DIGITS.fingerprint, 1)]
    assert bert.prefetch(sandbox.base_url, many).preview(DIGITS, sandbox.base_url).picks_up
    assert submit(sandbox, bert, DIGITS).id == paid
    assert len(sandbox.posts) == 1
    assert submit(sandbox, bert, DIGITS, new=True).id != paid


def test_a_record_in_doubt_under_an_earlier_form_is_a_question(sandbox, machine, tmp_path):
    as_earlier_releases_recorded(sandbox, machine, tmp_path, DIGITS)
    (file,) = files(tmp_path)
    stored = json.loads(file.read_text("utf-8"))
    stored |= {"state": "intent", "generation_id": None, "created_at": 1.0}
    file.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(SubmissionUncertainError):
        submit(sandbox, machine("bert-pc"), DIGITS)
    assert len(sandbox.posts) == 1


def test_looking_for_an_earlier_form_costs_ordinary_requests_nothing(sandbox, tmp_path, raccoon):
    store = Counting(tmp_path / "team")
    ledger = TeamLedger((tmp_path / "team").as_uri(), store)
    ledger.preview(raccoon, sandbox.base_url)
    ordinary, store.calls[:] = len(store.calls), []
    ledger.preview(DIGITS, sandbox.base_url)
    assert len(store.calls) == 2 * ordinary


def test_an_unreadable_record_stops_a_preview_of_many(sandbox, raccoon, tmp_path, monkeypatch):
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    ledger = TeamLedger((tmp_path / "team").as_uri())
    submit(sandbox, ledger, raccoon)
    files(tmp_path)[0].write_text("{")
    asked = [(f"{number:064x}", 1) for number in range(50)]
    ledger.prefetch(sandbox.base_url, asked)  # of others it is none
    with pytest.raises(LedgerError, match="unreadable"):
        ledger.prefetch(sandbox.base_url, [*asked, (raccoon.fingerprint, 1)])


def test_what_one_paid_for_before_sharing_is_not_paid_again(sandbox, machine, raccoon, tmp_path):
    first = submit(sandbox, machine("anna-pc", shares=False), raccoon)
    assert submit(sandbox, machine("anna-pc"), raccoon).id == first.id
    # From now on the team knows it, too.
    assert submit(sandbox, machine("ben-pc"), raccoon).id == first.id
    assert len(sandbox.posts) == 1
    assert len(files(tmp_path)) == 1


def test_what_failed_after_it_was_shared_may_be_submitted_anew(sandbox, machine, raccoon):
    first = submit(sandbox, machine("anna-pc", shares=False), raccoon)
    anna = machine("anna-pc")
    assert submit(sandbox, anna, raccoon).id == first.id
    failed = GenerationFailedError("The provider failed.", generation_id=first.id)
    anna.wait_failed(sandbox.base_url, failed)
    assert anna.preview(raccoon, sandbox.base_url).pays
    assert submit(sandbox, anna, raccoon).id != first.id
    assert len(sandbox.posts) == 2


def test_the_newest_decides_and_one_that_failed_only_where_no_other_is(raccoon):
    def entry(state):
        record = Record.intent(raccoon).submitted("a:b").ended(state)
        return Entry.intent(raccoon, record, "http://127.0.0.1:1", 1, None)

    def decides(*states):
        found = team_records.deciding({f"r/{n}": entry(each) for n, each in enumerate(states)})
        return found and found.record.state

    assert decides(State.COMPLETED, State.FAILED) is State.COMPLETED
    assert decides(State.FAILED, State.SUBMITTED) is State.SUBMITTED
    assert decides(State.COMPLETED, State.SUBMITTED) is State.SUBMITTED
    assert decides(State.FAILED) is State.FAILED
    assert decides(State.REFUSED, State.FORGOTTEN) is None
    assert decides() is None


def test_a_post_in_doubt_from_before_sharing_stays_a_question(sandbox, machine, raccoon):
    sandbox.fault("submit", "drop-after")
    with pytest.raises(SubmissionUncertainError):
        submit(sandbox, machine("anna-pc", shares=False), raccoon)
    with pytest.raises(SubmissionUncertainError):
        submit(sandbox, machine("anna-pc"), raccoon)
    assert len(sandbox.posts) == 1


def test_an_intent_whose_owner_died_is_a_question_that_names_him(
    sandbox, machine, raccoon, monkeypatch
):
    anna = machine("anna-pc")
    decision, _ = anna.claim(raccoon, sandbox.base_url)
    assert decision.pays
    ben = machine("ben-pc")
    monkeypatch.setattr(team_ledger, "LEASE", 0.0)
    with pytest.raises(SubmissionUncertainError, match=r"a POST of .* by \S+ on anna-pc has no"):
        submit(sandbox, ben, raccoon)
    assert not sandbox.posts
    made = submit(sandbox, ben, raccoon, new=True)
    # The open question was passed over knowingly, and stays in the history.
    assert submit(sandbox, machine("cleo-pc"), raccoon).id == made.id
    assert [entry.state for entry in ben.history()] == [State.SUBMITTED, State.ABANDONED]
    assert len(ben.uncertain(sandbox.base_url)) == 1
    assert len(sandbox.posts) == 1


def test_a_dead_process_of_the_same_machine_is_not_waited_for(sandbox, machine, raccoon):
    anna = machine("anna-pc")
    anna.claim(raccoon, sandbox.base_url)  # and its process dies: nobody holds the lock
    assert len(anna.uncertain(sandbox.base_url)) == 1
    with KlingClient("sandbox", sandbox.base_url, ledger=anna) as client:
        with pytest.raises(SubmissionUncertainError, match="on anna-pc"):
            client.submit(raccoon)
    assert not sandbox.posts


def test_a_living_process_of_the_same_machine_is_known_by_its_lock(sandbox, machine, raccoon):
    anna = machine("anna-pc")
    lock = anna.lock(raccoon)
    assert lock.try_acquire()
    anna.claim(raccoon, sandbox.base_url)
    assert anna.uncertain(sandbox.base_url) == []
    lock.release()
    assert len(anna.uncertain(sandbox.base_url)) == 1


def test_the_number_of_a_process_proves_nothing(sandbox, machine, raccoon, tmp_path):
    """Of a machine that was started anew, say, where another program has that number now."""
    anna = machine("anna-pc")
    record = replace(Record.intent(raccoon), created_at=time.time() - 10 * 86_400)
    entry = Entry.intent(raccoon, record, sandbox.base_url, 1, None, Owner("ben", "anna-pc", 1))
    name = team_records.numbered(team_records.prefix(sandbox.base_url, raccoon.fingerprint, 1), 1)
    FolderRecords(tmp_path / "team").create(name, team_records.to_json(entry))
    with pytest.raises(SubmissionUncertainError):
        submit(sandbox, anna, raccoon)
    assert len(anna.uncertain(sandbox.base_url)) == 1


def test_while_a_colleague_submits_one_waits_and_gets_his(sandbox, machine, raccoon, monkeypatch):
    monkeypatch.setattr("kling_integrations.core.flows._CLAIM_INTERVAL", 0.02)
    anna = machine("anna-pc")
    _, record = anna.claim(raccoon, sandbox.base_url)
    ben = machine("ben-pc")
    got = []
    thread = threading.Thread(target=lambda: got.append(submit(sandbox, ben, raccoon)))
    asked = threading.Event()
    claim = TeamLedger.claim

    def asking(self, *args, **options):
        result = claim(self, *args, **options)
        if result is None:
            asked.set()
        return result

    monkeypatch.setattr(TeamLedger, "claim", asking)
    thread.start()
    assert asked.wait(30)
    anna.advance(record.submitted("gen-of-anna"))
    thread.join(30)
    assert [each.id for each in got] == ["gen-of-anna"]
    assert not sandbox.posts


def test_an_owner_who_comes_back_late_loses_nothing(sandbox, machine, raccoon, monkeypatch):
    anna = machine("anna-pc")
    _, record = anna.claim(raccoon, sandbox.base_url)
    monkeypatch.setattr(team_ledger, "LEASE", 0.0)
    ben = machine("ben-pc")
    submit(sandbox, ben, raccoon, new=True)
    ben.forget(ben.uncertain(sandbox.base_url)[0])
    machine("anna-pc")
    anna.advance(record.submitted("gen-of-anna"))
    machine("ben-pc")
    monkeypatch.setattr(team_ledger, "_FRESH", 0.0)  # how long a listing holds
    assert ben.entry(sandbox.base_url, "gen-of-anna").generation_id == "gen-of-anna"


def test_forgetting_a_colleagues_intent_lets_the_next_one_pay(
    sandbox, machine, raccoon, monkeypatch
):
    machine("anna-pc").claim(raccoon, sandbox.base_url)
    monkeypatch.setattr(team_ledger, "LEASE", 0.0)
    ben = machine("ben-pc")
    (entry,) = ben.uncertain(sandbox.base_url)
    ben.forget(entry)
    assert ben.uncertain(sandbox.base_url) == []
    submit(sandbox, ben, raccoon)
    assert len(sandbox.posts) == 1
    assert [entry.state for entry in ben.history()] == [State.SUBMITTED, State.FORGOTTEN]


@pytest.mark.parametrize("front_clock", [-86400.0, 86400.0])
def test_clocks_apart_cost_a_question_at_most(sandbox, machine, raccoon, monkeypatch, front_clock):
    machine("anna-pc").claim(raccoon, sandbox.base_url)
    ben = machine("ben-pc")
    now = time.time
    monkeypatch.setattr(team_ledger.time, "time", lambda: now() + front_clock)
    monkeypatch.setattr(team_ledger, "LEASE", 0.2)
    monkeypatch.setattr("kling_integrations.core.flows._CLAIM_INTERVAL", 0.05)
    with pytest.raises(SubmissionUncertainError):
        submit(sandbox, ben, raccoon)
    assert not sandbox.posts


HOSTILE = {
    "cut": lambda value: json.dumps(value)[:50],
    "a list": lambda value: "[]",
    "a format yet to come": lambda value: json.dumps({**value, "format": 99}),
    "no format": lambda value: json.dumps({k: v for k, v in value.items() if k != "format"}),
    "an unknown state": lambda value: json.dumps({**value, "state": "paid"}),
    "no id": lambda value: json.dumps({**value, "state": "submitted"}),
    "of another request": lambda value: json.dumps({**value, "fingerprint": "f" * 64}),
    "of another gateway": lambda value: json.dumps({**value, "base_url": "https://x.example"}),
    "of another take": lambda value: json.dumps({**value, "take": 2}),
    "odd figures": lambda value: json.dumps({**value, "created_at": "yesterday"}),
    "odd usage": lambda value: json.dumps({**value, "usage": [1, 2]}),
    "odd owner": lambda value: json.dumps({**value, "owner": "anna"}),
    "nested": lambda value: "[" * 100_000,
    "empty": lambda value: "",
}


@pytest.mark.parametrize("spoil", HOSTILE)
def test_an_unreadable_record_stops_the_post_and_not_the_history(
    sandbox, machine, raccoon, tmp_path, spoil
):
    other = BADGER
    anna = machine("anna-pc")
    submit(sandbox, anna, other)
    anna.claim(raccoon, sandbox.base_url)
    (file,) = [f for f in files(tmp_path) if "raccoon" in f.read_text()]
    file.write_text(HOSTILE[spoil](json.loads(file.read_text())))
    ben = machine("ben-pc")
    with pytest.raises(LedgerError, match="unreadable"):
        submit(sandbox, ben, raccoon)
    with pytest.raises(LedgerError, match="unreadable"):
        submit(sandbox, ben, raccoon, new=True)
    assert len(sandbox.posts) == 1
    with pytest.warns(KlingWarning, match="unreadable"):
        assert [entry.prompt for entry in ben.history()] == ["A badger"]


def test_what_else_lies_there_is_left_alone(sandbox, machine, raccoon, tmp_path):
    anna = machine("anna-pc")
    submit(sandbox, anna, raccoon)
    folder = files(tmp_path)[0].parent
    for name in ("notes.json", "abcd.json", "x.forgotten.json", ".hidden.json"):
        (folder / name).write_text("no record")
    (tmp_path / "team" / "readme.json").write_text("{}")
    ben = machine("ben-pc")
    submit(sandbox, ben, raccoon)
    assert len(ben.history()) == 1
    assert len(sandbox.posts) == 1


def test_records_out_of_reach_stop_the_post(sandbox, machine, raccoon, tmp_path):
    anna = machine("anna-pc")
    (tmp_path / "team").write_text("a file where the folder should be")
    with pytest.raises(LedgerError, match="cannot be reached"):
        submit(sandbox, anna, raccoon)
    assert not sandbox.posts


def test_an_id_that_the_team_cannot_be_told_is_kept_here_and_told_later(
    sandbox, machine, raccoon, monkeypatch, tmp_path
):
    anna = machine("anna-pc")

    def denied(self, name, value):
        raise LedgerError("The token has expired.")

    with monkeypatch.context() as patch:
        patch.setattr(FolderRecords, "write", denied)
        with KlingClient("sandbox", sandbox.base_url, ledger=anna) as client:
            with pytest.warns(KlingWarning, match="kept on this machine"):
                made = client.generate(raccoon)
            with pytest.warns(KlingWarning, match="kept on this machine"):
                client.save(made, tmp_path / "anna.mp4")
        # While the store takes nothing, too, it is picked up here, in another process as well.
        decision = Ledger().preview(raccoon, sandbox.base_url)
        assert decision.action is submission.Action.REUSE
        assert submit(sandbox, Ledger(), raccoon).id == made.id
    assert [e.state for e in Ledger().history()] == [State.COMPLETED]  # any question tells the team
    ben = machine("ben-pc").preview(raccoon, sandbox.base_url)
    assert (ben.entry.generation_id, ben.entry.state) == (made.id, State.COMPLETED)
    assert ben.entry.sha256
    assert len(sandbox.posts) == 1


def test_an_id_that_neither_store_nor_copy_takes_is_in_the_error(
    sandbox, machine, raccoon, monkeypatch
):
    anna = machine("anna-pc")

    def full(*_):
        raise LedgerError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FolderRecords, "write", full)
        patch.setattr(Mirror, "keep", full)
        with pytest.raises(LedgerError, match="was submitted, but its id could not") as caught:
            submit(sandbox, anna, raccoon)
    assert caught.value.generation_id in sandbox.jobs
    assert len(sandbox.posts) == 1


def test_a_late_look_of_one_never_takes_back_what_another_has_written(
    sandbox, machine, raccoon, tmp_path
):
    anna = machine("anna-pc")
    with KlingClient("sandbox", sandbox.base_url, ledger=anna) as client:
        made = client.submit(raccoon)  # its process knows it as running from here on
        ben = machine("ben-pc")
        with KlingClient("sandbox", sandbox.base_url, ledger=ben) as bens:
            done = bens.generate(raccoon)
            bens.save(done, tmp_path / "ben.mp4")
            machine("anna-pc")
            anna.completed(sandbox.base_url, done, 100.0)
            anna.wait_failed(
                sandbox.base_url, GenerationFailedError("it failed", generation_id=made.id)
            )
            anna.advance(ben.entry(sandbox.base_url, made.id).record.ended(State.REFUSED))
            ben = machine("ben-pc")
    decision = ben.preview(raccoon, sandbox.base_url)
    assert decision.action is submission.Action.REUSE
    assert decision.entry.path == tmp_path / "ben.mp4"
    assert decision.entry.error is None


def test_forgetting_what_went_on_meanwhile_is_refused(sandbox, machine, raccoon, monkeypatch):
    anna = machine("anna-pc")
    _, record = anna.claim(raccoon, sandbox.base_url)
    (seen,) = anna.uncertain(sandbox.base_url)
    anna.advance(record.submitted("gen-1"))
    with pytest.raises(LedgerError, match="submitted now, generation gen-1"):
        anna.forget(seen)
    assert anna.entry(sandbox.base_url, "gen-1").state is State.SUBMITTED


def test_a_name_that_is_taken_and_not_listed_is_read_by_its_name(
    sandbox, machine, raccoon, tmp_path, monkeypatch
):
    made = submit(sandbox, machine("anna-pc"), raccoon)
    monkeypatch.setattr(FolderRecords, "names", lambda *_: {})  # a list that lags behind
    assert submit(sandbox, machine("ben-pc"), raccoon).id == made.id
    assert len(sandbox.posts) == 1


def test_a_name_that_is_taken_and_never_there_pauses_and_ends(
    sandbox, machine, raccoon, monkeypatch
):
    monkeypatch.setattr("kling_integrations.core.flows._CLAIM_INTERVAL", 0.001)
    tries = []
    monkeypatch.setattr(FolderRecords, "create", lambda *_: tries.append(1))
    with pytest.raises(LedgerError, match="say that a name is taken"):
        submit(sandbox, machine("anna-pc"), raccoon)
    assert len(tries) < 200
    assert not sandbox.posts


def test_a_reply_that_names_a_generation_of_another_request_is_not_believed(
    sandbox, machine, raccoon
):
    anna = machine("anna-pc")
    first = submit(sandbox, anna, raccoon)
    _, record = anna.claim(BADGER, sandbox.base_url)
    with pytest.raises(SubmissionUncertainError, match="of another submission"):
        anna.advance(record.submitted(first.id))
    assert anna.preview(BADGER, sandbox.base_url).action is submission.Action.REFUSE


def test_a_post_in_doubt_of_the_time_before_sharing_is_recovered(sandbox, machine, raccoon):
    alone = machine("anna-pc", shares=False)
    alone.claim(raccoon, sandbox.base_url)
    team = machine("anna-pc")
    [entry] = team.uncertain(sandbox.base_url)
    team.advance(entry.record.submitted("gen-1"))
    assert team.preview(raccoon, sandbox.base_url).entry.generation_id == "gen-1"
    assert submit(sandbox, team, raccoon).id == "gen-1"
    assert not sandbox.posts


def test_a_copy_that_cannot_be_written_is_no_trouble(sandbox, machine, raccoon, monkeypatch):
    anna = machine("anna-pc")
    copy = anna.path
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"no database" * 100)
    made = submit(sandbox, anna, raccoon)
    copy.unlink()
    assert [entry.generation_id for entry in anna.history()] == [made.id]
    assert submit(sandbox, anna, raccoon).id == made.id
    assert len(sandbox.posts) == 1


def test_only_ones_own_are_waited_for(sandbox, machine, raccoon, monkeypatch):
    anna = machine("anna-pc")
    monkeypatch.setattr(owner, "_user", lambda: "anna")
    mine = submit(sandbox, anna, raccoon)
    monkeypatch.setattr(owner, "_user", lambda: "ben")
    ben = machine("ben-pc")
    his = submit(sandbox, ben, BADGER)
    assert [entry.generation_id for entry in ben.running(sandbox.base_url)] == [his.id]
    assert {entry.generation_id for entry in ben.history()} == {mine.id, his.id}


def test_what_ones_other_machine_submitted_is_seen_by_the_first_look(sandbox, machine, raccoon):
    made = submit(sandbox, machine("build-7"), raccoon)
    [entry] = machine("laptop").running(sandbox.base_url)
    assert entry.generation_id == made.id


def test_records_hold_neither_key_nor_signed_link(sandbox, machine, raccoon, tmp_path):
    anna = machine("anna-pc")
    with KlingClient("sandbox-secret", sandbox.base_url, ledger=anna) as client:
        done = client.generate(raccoon)
        client.save(done, tmp_path / "a.mp4")
    for file in files(tmp_path):
        text = file.read_text()
        assert done.id in text
        assert "sandbox-secret" not in text
        assert "Expires" not in text
        assert "ksTime" not in text


def test_a_history_of_ten_thousand_reads_only_what_is_new(machine, raccoon, tmp_path, sandbox):
    anna = machine("anna-pc")
    _, record = anna.claim(raccoon, sandbox.base_url)
    entry = anna._records()._named(record.client_request_id)[1]
    store = Counting(tmp_path / "team")
    from kling_integrations.core.storage import team_records

    for number in range(300):
        one = replace(
            entry,
            record=replace(
                entry.record,
                fingerprint=f"{number:08x}" * 8,
                client_request_id=f"kling-{number}",
            ),
        )
        where = team_records.prefix(one.base_url, one.record.fingerprint, 1)
        store.write(team_records.numbered(where, 1), team_records.to_json(one))
    ledger = TeamLedger("file:///counted", store)
    assert len(ledger.history(1000)) == 301
    store.calls.clear()
    fresh = TeamLedger("file:///counted", store)
    assert len(fresh.history(1000)) == 301
    assert store.calls == ["names"]


@pytest.mark.parametrize("source", ["ftp://x/y", "memory://x", "file:///", "s3://"])
def test_an_address_that_cannot_hold_a_ledger_is_refused_before_anything_is_paid(
    sandbox, raccoon, monkeypatch, tmp_path, source
):
    monkeypatch.setenv("KLING_HOME", str(tmp_path))
    with pytest.raises(InvalidRequestError):
        submit(sandbox, Ledger(source), raccoon)
    assert not sandbox.posts


def test_sqlite_on_a_network_disk_is_refused_with_the_way_out(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        f"40 22 0:40 / {tmp_path}/nfs\\040home rw shared:9 - nfs4 server:/home rw,vers=4.2\n"
    )
    monkeypatch.setattr("kling_integrations.core.storage.sqlite_file._MOUNTS", mounts)
    (tmp_path / "nfs home").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "nfs home")
    for home in ("nfs home/deep", "linked"):
        with pytest.raises(LedgerError, match="network disk") as caught:
            Ledger(tmp_path / home / "ledger.sqlite3").history()
        assert "KLING_LEDGER" in str(caught.value)
    assert Ledger(tmp_path / "here" / "ledger.sqlite3").history() == []
    assert os.listdir(tmp_path / "nfs home") == []


def test_one_process_may_change_its_ledger(sandbox, machine, raccoon):
    ledger = machine("anna-pc", shares=False)
    assert not ledger.is_shared
    machine("anna-pc")
    assert ledger.is_shared
    made = submit(sandbox, ledger, raccoon)
    machine("anna-pc", shares=False)
    assert ledger.history() == []
    assert not ledger.is_shared
    with pytest.raises(KlingError):
        KlingClient("sandbox", sandbox.base_url, ledger=ledger).get("nonsense")
    assert made.id


def test_different_requests_do_not_wait_for_each_other(sandbox, machine):
    anna = machine("anna-pc")
    requests = [VideoRequest(prompt=f"Raccoon {n}") for n in range(5)]
    assert len({submit(sandbox, anna, request).id for request in requests}) == 5


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["create", "write"])
def test_a_crash_between_any_two_steps_costs_no_second_post(
    sandbox, machine, raccoon, monkeypatch, step, after
):
    anna = machine("anna-pc")
    work = getattr(FolderRecords, step)

    def dying(self, name, value):
        if after:
            work(self, name, value)
        raise Crash

    monkeypatch.setattr(FolderRecords, step, dying)
    with pytest.raises(Crash):
        submit(sandbox, anna, raccoon)
    monkeypatch.undo()
    ben = machine("ben-pc")
    monkeypatch.setattr(team_ledger, "LEASE", 0.0)
    if (step, after) == ("create", False):  # nothing happened
        submit(sandbox, ben, raccoon)
    elif (step, after) == ("write", True):
        (job,) = sandbox.jobs
        assert submit(sandbox, ben, raccoon).id == job
    else:
        with pytest.raises(SubmissionUncertainError, match="on anna-pc"):
            submit(sandbox, ben, raccoon)
        (entry,) = ben.uncertain(sandbox.base_url)
        asked = entry.record.client_request_id
        assert [job.client_request_id for job in sandbox.jobs.values()] in ([], [asked])
    assert len(sandbox.posts) <= 1


def test_an_id_that_arrives_after_its_doubt_was_given_up_is_paid_for_once(
    sandbox, machine, raccoon, monkeypatch
):
    anna = machine("anna-pc")
    _, record = anna.claim(raccoon, sandbox.base_url)
    monkeypatch.setattr(team_ledger, "LEASE", 0.0)
    ben = machine("ben-pc")
    ben.forget(ben.uncertain(sandbox.base_url)[0])
    machine("anna-pc")
    anna.advance(record.submitted("gen-of-anna"))
    ben = machine("ben-pc")
    assert submit(sandbox, ben, raccoon).id == "gen-of-anna"
    assert not sandbox.posts
    ben.forget(ben.entry(sandbox.base_url, "gen-of-anna"))  # with its id known it stays so
    machine("anna-pc")
    done = completed("gen-of-anna")
    anna.completed(sandbox.base_url, done, 90.0)
    assert machine("ben-pc").preview(raccoon, sandbox.base_url).pays


def test_what_one_wrote_long_ago_is_not_written_over_a_colleagues_file(
    sandbox, machine, raccoon, tmp_path
):
    anna = machine("anna-pc")
    made = submit(sandbox, anna, raccoon)
    anna.saved(sandbox.base_url, made.id, saved(tmp_path / "anna.mp4", b"first"))
    ben = machine("ben-pc")
    theirs = saved(tmp_path / "ben.mp4", b"other bytes")
    ben.entry(sandbox.base_url, made.id)
    ben.saved(sandbox.base_url, made.id, theirs)
    machine("anna-pc")
    anna.completed(sandbox.base_url, completed(made.id), 90.0)  # she knows of her own only
    entry = machine("cleo-pc").entry(sandbox.base_url, made.id)
    assert (entry.path, entry.size, entry.sha256) == (theirs.path, theirs.size, theirs.sha256)
    assert entry.state is State.COMPLETED


def test_what_was_kept_back_fills_in_what_the_team_lacks_and_no_more(
    sandbox, machine, raccoon, tmp_path, monkeypatch
):
    anna = machine("anna-pc")
    made = submit(sandbox, anna, raccoon)
    with monkeypatch.context() as patch:
        patch.setattr(FolderRecords, "write", out_of_reach)
        mine = saved(tmp_path / "anna.mp4", b"first")
        kept_back(anna.saved, sandbox.base_url, made.id, mine)
        kept_back(anna.completed, sandbox.base_url, completed(made.id), 90.0)
    ben = machine("ben-pc")
    theirs = saved(tmp_path / "ben.mp4", b"other bytes")
    ben.entry(sandbox.base_url, made.id)
    ben.saved(sandbox.base_url, made.id, theirs)
    machine("anna-pc")
    monkeypatch.setattr(team_ledger, "_FRESH", 0.0)
    anna.history()
    entry = machine("cleo-pc").entry(sandbox.base_url, made.id)
    assert (entry.state, entry.sha256) == (State.COMPLETED, theirs.sha256)
    assert anna._records()._mirror.unsent() == {}


def test_one_process_keeps_what_another_of_the_same_machine_could_not_send(
    sandbox, machine, raccoon, tmp_path, monkeypatch
):
    anna = machine("anna-pc")
    made = submit(sandbox, anna, raccoon)
    other = Ledger()  # another process of hers
    with monkeypatch.context() as patch:
        patch.setattr(FolderRecords, "write", out_of_reach)
        kept_back(other.completed, sandbox.base_url, completed(made.id), 90.0)
        # The first knows it as running; its file is no reason to take the end back.
        mine = saved(tmp_path / "anna.mp4", b"first")
        kept_back(anna.saved, sandbox.base_url, made.id, mine)
    Ledger().history()
    entry = machine("ben-pc").entry(sandbox.base_url, made.id)
    assert (entry.state, entry.size) == (State.COMPLETED, len(b"first"))


def test_one_unreadable_record_keeps_no_other_ones_news_back(
    sandbox, machine, raccoon, tmp_path, monkeypatch
):
    anna = machine("anna-pc")
    claims = {request: anna.claim(request, sandbox.base_url)[1] for request in (raccoon, BADGER)}
    with monkeypatch.context() as patch:
        patch.setattr(FolderRecords, "write", out_of_reach)
        for number, record in enumerate(claims.values()):
            kept_back(anna.advance, record.submitted(f"gen-{number}"))
    first = next(f for f in files(tmp_path) if raccoon.fingerprint[:40] in f.name)
    first.write_text("{")
    monkeypatch.setattr(team_ledger, "_FRESH", 0.0)
    with pytest.warns(KlingWarning, match="unreadable"):
        anna.history()
    assert machine("ben-pc").preview(BADGER, sandbox.base_url).entry.generation_id == "gen-1"


def test_a_doubt_of_the_time_before_sharing_is_told_by_its_own_lock(sandbox, machine, raccoon):
    alone = machine("anna-pc", shares=False)
    lock = alone.lock(raccoon)
    assert lock.try_acquire()
    alone.claim(raccoon, sandbox.base_url)  # by a process that knows of no team
    team = machine("anna-pc")
    decision = team.preview(raccoon, sandbox.base_url)  # an answer, so that a batch goes on
    assert decision.action is submission.Action.REFUSE
    assert team.is_submitting(decision.entry)
    assert team.claim(raccoon, sandbox.base_url) is None
    lock.release()
    assert not team.is_submitting(decision.entry)
    with pytest.raises(SubmissionUncertainError):
        team.claim(raccoon, sandbox.base_url)


def test_an_id_of_ones_own_ledger_is_no_reply_to_another_request(sandbox, machine, raccoon):
    first = submit(sandbox, machine("anna-pc", shares=False), raccoon)
    team = machine("anna-pc")
    _, record = team.claim(BADGER, sandbox.base_url)
    with pytest.raises(SubmissionUncertainError, match="of another submission"):
        team.advance(record.submitted(first.id))


def test_an_intent_from_a_clock_far_ahead_is_a_question_at_once(sandbox, machine, raccoon):
    anna = machine("anna-pc")
    record = replace(Record.intent(raccoon), created_at=time.time() + 86_400)
    entry = Entry.intent(raccoon, record, sandbox.base_url, 1, None, Owner("ben", "ben-pc", 1))
    assert not anna.is_submitting(entry)


def test_another_threads_write_does_not_end_the_search_for_a_generation(sandbox, machine, raccoon):
    ledger = machine("anna-pc")._records()
    made = Entry.intent(raccoon, Record.intent(raccoon), sandbox.base_url, 1, None)

    class Seen:
        """What was written before: while it is looked at, another thread writes."""

        @property
        def generation_id(self):
            ledger._remember("name", made)

    ledger._written = {"an-older-one": ("name", Seen()), "another": ("name", Seen())}
    assert not ledger._change(sandbox.base_url, "unknown", lambda entry: entry)
    assert made.record.client_request_id in ledger._written


def test_nothing_is_asked_inside_a_transaction_of_the_copy(
    sandbox, machine, raccoon, tmp_path, monkeypatch
):
    """It would wait for itself: half a minute for each video that is saved."""
    anna = machine("anna-pc")
    made = submit(sandbox, anna, raccoon)
    inside, begun = [], SqliteFile._begun

    @contextmanager
    def watched(self, begin):
        assert not inside, "one transaction inside another"
        with begun(self, begin) as db:
            inside.append(1)
            try:
                yield db
            finally:
                inside.pop()

    monkeypatch.setattr(SqliteFile, "_begun", watched)
    mine = saved(tmp_path / "anna.mp4", b"first")
    anna.saved(sandbox.base_url, made.id, mine)
    anna.completed(sandbox.base_url, completed(made.id), 90.0)
    ben = machine("ben-pc")
    ben.entry(sandbox.base_url, made.id)
    ben.saved(sandbox.base_url, made.id, saved(tmp_path / "ben.mp4", b"first"))
    decision = machine("anna-pc").preview(raccoon, sandbox.base_url)
    assert decision.entry.path == mine.path  # her own, whoever saved it last


def test_an_address_spelled_otherwise_is_the_same_copy(monkeypatch, tmp_path):
    """What is kept on this machine for the team is found whatever the address looks like."""
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    store = FolderRecords(tmp_path / "team")
    spellings = ["file:///team/x", "file:///team/x/", "file:///team//x", "file://localhost/team/x"]
    assert len({TeamLedger(each, store).path for each in spellings}) == 1
    assert TeamLedger("s3://b/p", store).path == TeamLedger("s3://b/p/", store).path
    assert TeamLedger("s3://b/p", store).path != TeamLedger("s3://b/q", store).path
