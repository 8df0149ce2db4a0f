"""The ledger: one payment per request, over processes, crashes and broken files."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kling_integrations import (
    Generation,
    GenerationFailedError,
    GenerationNotFoundError,
    InvalidRequestError,
    KlingClient,
    KlingWarning,
    Ledger,
    LedgerError,
    Status,
    StoppedWaiting,
    SubmissionUncertainError,
    VideoRequest,
)
from kling_integrations.core.errors import LedgerUnreachableError
from kling_integrations.core.storage import saved_files, sqlite_rows
from kling_integrations.core.storage.saved_files import saved_file
from kling_integrations.core.submission import Entry, Record, State
from kling_integrations.sandbox import Sandbox


@pytest.fixture(params=["own", pytest.param("shared", marks=pytest.mark.thorough)])
def ledger(request, tmp_path, monkeypatch):
    """The file of one user, and the folder that a team shares: what both must do."""
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    if request.param == "shared":
        monkeypatch.setenv("KLING_LEDGER", (tmp_path / "team").as_uri())
    return Ledger()


URL = "http://127.0.0.1:1"
own_only = pytest.mark.parametrize("ledger", ["own"], indirect=True)


def generate(front, sandbox, ledger, request, **options):
    return front.run(sandbox.base_url, "generate", request, ledger=ledger, **options)


def test_the_same_request_again_is_not_paid_again(front, sandbox, ledger, raccoon):
    first = generate(front, sandbox, ledger, raccoon)
    again = generate(front, sandbox, ledger, raccoon)
    assert again.id == first.id
    assert again.status is Status.COMPLETED
    assert len(sandbox.posts) == 1


def test_new_pays_for_another_and_takes_are_numbered(front, sandbox, ledger, raccoon):
    first = generate(front, sandbox, ledger, raccoon)
    another = generate(front, sandbox, ledger, raccoon, new=True)
    second_take = generate(front, sandbox, ledger, raccoon, take=2)
    assert len({first.id, another.id, second_take.id}) == 3 == len(sandbox.posts)
    assert generate(front, sandbox, ledger, raccoon).id == another.id
    assert generate(front, sandbox, ledger, raccoon, take=2).id == second_take.id
    assert len(sandbox.posts) == 3


def test_new_without_a_ledger_is_refused(front, sandbox, raccoon):
    with pytest.raises(InvalidRequestError, match="ledger"):
        front.run(sandbox.base_url, "submit", raccoon, new=True)


def test_a_running_generation_is_attached_to(front, ledger, raccoon):
    with Sandbox(speed=1000, seconds=float("inf"), size=(160, 90)) as sandbox:
        first = front.run(sandbox.base_url, "submit", raccoon, ledger=ledger)
        again = front.run(sandbox.base_url, "submit", raccoon, ledger=ledger)
        assert first.id == again.id
        [entry] = ledger.running(sandbox.base_url)
        assert entry.generation_id == first.id
        assert len(sandbox.posts) == 1


def test_another_gateway_is_another_account_book(front, ledger, raccoon):
    for _ in range(2):
        with Sandbox(speed=1000, seconds=10, size=(160, 90)) as sandbox:
            generate(front, sandbox, ledger, raccoon)
            assert len(sandbox.posts) == 1


def test_a_failed_generation_is_submitted_anew(front, ledger, raccoon):
    with Sandbox(speed=1000, seconds=10, fail="moderation", size=(160, 90)) as sandbox:
        for posts in (1, 2):
            with pytest.raises(Exception, match="failed"):
                generate(front, sandbox, ledger, raccoon)
            assert len(sandbox.posts) == posts
        assert ledger.history()[0].record.state is State.FAILED
        assert "failed" in ledger.history()[0].error


def test_an_uncertain_post_stops_the_next_try_until_the_user_says_new(
    front, sandbox, ledger, raccoon
):
    sandbox.fault("submit", "drop-after")
    for _ in range(3):
        with pytest.raises(SubmissionUncertainError) as caught:
            generate(front, sandbox, ledger, raccoon)
        assert caught.value.client_request_id == sandbox.posts[0].client_request_id
    assert len(sandbox.posts) == 1
    generate(front, sandbox, ledger, raccoon, new=True)
    assert len(sandbox.posts) == 2
    [open_one] = ledger.uncertain(sandbox.base_url)  # still there to be recovered
    assert open_one.record.client_request_id == sandbox.posts[0].client_request_id


def test_a_refused_request_leaves_nothing_open(front, sandbox, ledger, raccoon):
    with pytest.raises(Exception, match="key"):
        generate(front, sandbox, ledger, raccoon, api_key="bad")
    assert generate(front, sandbox, ledger, raccoon).status is Status.COMPLETED


@pytest.mark.thorough
def test_what_was_seen_to_finish_teaches_the_schedule(front, ledger, raccoon):
    # Slow enough that a busy machine adds seconds of the gateway, not minutes.
    with Sandbox(speed=50, seconds=100, size=(160, 90), fps=8) as sandbox:
        generate(front, sandbox, ledger, raccoon)
        [seconds] = ledger.finished(sandbox.base_url, raccoon.model, 5)
    assert 90 < seconds < 200
    entry = ledger.history()[0]
    assert entry.record.state is State.COMPLETED


def test_threads_that_ask_for_the_same_thing_at_once_make_one_post(sandbox, ledger, raccoon):
    sandbox.fault("submit", "slow", seconds=0.2)
    ids = []

    def work():
        with KlingClient("sandbox", sandbox.base_url, ledger=Ledger()) as client:
            ids.append(client.submit(raccoon).id)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6
    assert len(set(ids)) == 1 == len(sandbox.posts)


SUBMIT = """
import sys
from kling_integrations import KlingClient, Ledger, VideoRequest
with KlingClient("sandbox", sys.argv[1], ledger=Ledger(), timeout=30) as client:
    print(client.submit(VideoRequest(model="v2.5-turbo-pro", prompt="A cheerful white raccoon")).id)
"""


def child(sandbox, code=SUBMIT):
    return subprocess.Popen(
        [sys.executable, "-c", code, sandbox.base_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


@pytest.mark.thorough
def test_processes_that_ask_for_the_same_thing_at_once_make_one_post(sandbox, ledger):
    sandbox.fault("submit", "slow", seconds=0.5)
    children = [child(sandbox) for _ in range(4)]
    ids = {one.communicate(timeout=60)[0].strip() for one in children}
    assert [one.returncode for one in children] == [0] * 4
    assert len(ids) == 1 == len(sandbox.posts)


def test_a_process_killed_during_its_post_leaves_an_open_question_and_no_second_post(
    sandbox, ledger, raccoon
):
    sandbox.fault("submit", "hang-after")
    killed = child(sandbox)
    assert sandbox.wait_for(lambda _: len(sandbox.posts) == 1, timeout=30)
    killed.kill()
    killed.communicate(timeout=30)
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        with pytest.raises(SubmissionUncertainError, match=r"client\.recover\(\)"):
            client.submit(raccoon)
    assert len(sandbox.posts) == 1


def test_an_interrupt_during_the_post_keeps_the_generation_id(sandbox, ledger, raccoon):
    sandbox.fault("submit", "slow", seconds=0.5)
    asking = child(sandbox)
    assert sandbox.wait_for(lambda _: len(sandbox.posts) == 1, timeout=30)
    asking.send_signal(signal.SIGINT)
    _, said = asking.communicate(timeout=30)
    [generation_id] = sandbox.jobs
    assert generation_id in said
    assert ledger.entry(sandbox.base_url, generation_id).record.state is State.SUBMITTED
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        assert client.submit(raccoon).id == generation_id
    assert len(sandbox.posts) == 1


def test_an_interrupt_between_two_posts_ends_them(ledger, raccoon):
    with Sandbox(speed=1, size=(160, 90)) as sandbox:
        sandbox.fault("submit", "429", times=None, retry_after=30)
        with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
            main = threading.get_ident()

            def interrupt():
                sandbox.wait_for(lambda _: len(sandbox.posts) == 1, timeout=30)
                signal.pthread_kill(main, signal.SIGINT)

            threading.Thread(target=interrupt).start()
            with pytest.raises(StoppedWaiting, match="before anything was submitted"):
                client.submit(raccoon)
        assert len(sandbox.posts) == 1
        assert ledger.uncertain(sandbox.base_url) == []


def test_an_interrupt_during_the_wait_names_the_way_back(ledger, raccoon):
    with Sandbox(speed=1000, seconds=float("inf"), size=(160, 90)) as sandbox:
        with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
            main = threading.get_ident()

            def interrupt():
                sandbox.wait_for(lambda _: sandbox.requests["poll"] >= 2, timeout=30)
                signal.pthread_kill(main, signal.SIGINT)

            threading.Thread(target=interrupt).start()
            with pytest.raises(StoppedWaiting, match=r"client\.wait\(") as caught:
                client.generate(raccoon)
        assert caught.value.generation_id in sandbox.jobs


@own_only
def test_a_corrupt_ledger_stops_everything_before_the_post(front, sandbox, ledger, raccoon):
    ledger.path.parent.mkdir(exist_ok=True)
    ledger.path.write_bytes(b"this is no database" * 100)
    with pytest.raises(LedgerError, match="ledger"):
        generate(front, sandbox, ledger, raccoon)
    assert not sandbox.posts


@own_only
def test_a_ledger_of_a_newer_version_stops_everything_before_the_post(sandbox, ledger, raccoon):
    ledger.history()
    with sqlite3.connect(ledger.path) as db:
        db.execute("PRAGMA user_version = 99")
    with KlingClient("sandbox", sandbox.base_url, ledger=Ledger()) as client:
        with pytest.raises(LedgerError, match="newer version"):
            client.submit(raccoon)
    assert not sandbox.posts


def test_a_ledger_that_cannot_be_written_after_the_post_still_tells_the_id(
    front, sandbox, ledger, raccoon, monkeypatch
):
    def full(self, record):
        raise LedgerError("The disk is full.")

    monkeypatch.setattr(Ledger, "advance", full)
    with pytest.raises(LedgerError, match="disk is full") as caught:
        generate(front, sandbox, ledger, raccoon)
    assert caught.value.generation_id in sandbox.jobs
    monkeypatch.undo()


def test_a_ledger_that_breaks_while_a_generation_runs_is_a_warning_and_no_error(
    front, sandbox, ledger, raccoon, monkeypatch
):
    def broken(*_):
        raise LedgerError("The disk is full.")

    monkeypatch.setattr(Ledger, "completed", broken)
    with pytest.warns(KlingWarning, match=r"disk is full\. The generation itself goes on"):
        made = generate(front, sandbox, ledger, raccoon)
    assert made.video


@own_only
def test_the_ledger_is_private_and_holds_neither_key_nor_signed_url(sandbox, ledger, tmp_path):
    request = VideoRequest(
        model="v2.5-turbo-pro", prompt="a", image="https://example.com/cat.png?signature=s3cret"
    )
    with KlingClient("sandbox-k3y", sandbox.base_url, ledger=ledger) as client:
        done = client.generate(request)
        client.download(done, tmp_path / "clip.mp4")
    content = b"".join(file.read_bytes() for file in ledger.path.parent.glob("ledger*"))
    assert done.id.encode() in content
    for secret in (b"sandbox-k3y", b"s3cret", b"ksTime"):
        assert secret not in content
    assert ledger.path.stat().st_mode & 0o077 == 0


def test_a_saved_file_is_known_until_it_is_gone(sandbox, ledger, raccoon, tmp_path):
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        done = client.generate(raccoon)
        path = client.download(done, tmp_path / "clip.mp4")
        assert saved_file(ledger.entry(sandbox.base_url, done.id)).path == path
        path.unlink()
        assert saved_file(ledger.entry(sandbox.base_url, done.id)) is None
        assert client.generate(raccoon).id == done.id  # finished: fetched again, not paid again
    assert len(sandbox.posts) == 1


def test_prompts_with_sql_in_them_are_only_words(sandbox, ledger):
    prompt = "'); DROP TABLE submissions; --"
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        client.generate(VideoRequest(prompt=prompt))
    assert ledger.history(search="drop table")[0].prompt == prompt
    assert ledger.history(search="' OR 1=1 --") == []


@pytest.mark.thorough
def test_several_may_open_a_new_ledger_at_the_same_moment(tmp_path):
    failures: list[Exception] = []

    def look(path, barrier):
        ledger = Ledger(path)
        barrier.wait()
        try:
            ledger.history(1)
        except LedgerError as error:
            failures.append(error)

    for number in range(60):
        barrier = threading.Barrier(8)
        path = tmp_path / f"{number}.sqlite3"
        threads = [threading.Thread(target=look, args=(path, barrier)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_refused_new_one_leaves_the_open_question_open(front, sandbox, ledger, raccoon):
    sandbox.fault("submit", "drop-after")
    with pytest.raises(SubmissionUncertainError):
        generate(front, sandbox, ledger, raccoon)
    with pytest.raises(Exception, match="key"):
        generate(front, sandbox, ledger, raccoon, new=True, api_key="bad")
    with pytest.raises(SubmissionUncertainError) as caught:  # the next plain run must not pay
        generate(front, sandbox, ledger, raccoon)
    assert caught.value.client_request_id == sandbox.posts[0].client_request_id
    assert sandbox.paid == 1


def test_two_posts_in_doubt_are_both_kept(front, sandbox, ledger, raccoon):
    sandbox.fault("submit", "drop-after", times=2)
    for new in (False, True):
        with pytest.raises(SubmissionUncertainError):
            generate(front, sandbox, ledger, raccoon, new=new)
    with pytest.raises(SubmissionUncertainError):
        generate(front, sandbox, ledger, raccoon)
    assert len(ledger.uncertain(sandbox.base_url)) == 2 == sandbox.paid


@own_only
def test_a_ledger_that_is_moved_away_under_a_process_is_made_anew_and_private(
    sandbox, ledger, raccoon, tmp_path
):
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        client.submit(raccoon)
        for file in ledger.path.parent.glob("ledger.sqlite3*"):
            file.rename(tmp_path / file.name)
        client.submit(VideoRequest(prompt="another"))
        assert len(ledger.history()) == 1
    assert ledger.path.stat().st_mode & 0o077 == 0


@own_only
def test_another_home_in_the_middle_of_a_process_is_another_ledger(
    sandbox, ledger, raccoon, tmp_path, monkeypatch
):
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        client.submit(raccoon)
        monkeypatch.setenv("KLING_HOME", str(tmp_path / "other"))
        assert ledger.history() == []
        client.submit(raccoon)
    assert len(sandbox.posts) == 2


@own_only
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("state", "'paid'"),
        ("created_at", "'yesterday'"),
        ("request", "'[[['"),
        ("request", "'5'"),
        ("usage", "'nonsense'"),
        ("take", "'x'"),
    ],
)
def test_an_unreadable_record_stops_the_post_and_not_the_history(
    front, sandbox, ledger, raccoon, column, value
):
    generate(front, sandbox, ledger, raccoon)
    with sqlite3.connect(ledger.path) as db:
        db.execute(f"UPDATE submissions SET {column} = {value}, sha256 = NULL")
    if column != "take":
        with pytest.raises(LedgerError, match="unreadable"):
            generate(front, sandbox, ledger, raccoon)
        assert len(sandbox.posts) == 1
    with pytest.warns(KlingWarning, match="unreadable"):
        assert ledger.history() == []


def test_unrelated_requests_have_locks_of_their_own(ledger):
    requests = [VideoRequest(prompt=f"number {number}") for number in range(600)]
    held = []
    for each in requests:
        lock = ledger.lock(each)
        assert lock.try_acquire(), "it waits for an unrelated request"
        held.append(lock)
    again = ledger.lock(requests[0])
    assert not again.try_acquire()
    for lock in held:
        lock.release()


def test_an_id_of_another_account_is_said_to_be_so_at_once(front, ledger, raccoon):
    """Under this key it answers 404, which a fresh id may do for two minutes."""
    with Sandbox(speed=1000, seconds=float("inf"), size=(160, 90)) as sandbox:
        first = front.run(sandbox.base_url, "submit", raccoon, ledger=ledger)
        sandbox.fault("poll", "404", times=None)
        for other in (False, True):
            if other:
                with sqlite3.connect(ledger.path) as db:
                    db.execute("UPDATE submissions SET key_hash = '0badc0de'")
            before = sandbox.requests["poll"]
            with pytest.raises(GenerationNotFoundError) as caught:
                front.run(sandbox.base_url, "wait", first.id, ledger=ledger)
            assert ("another key" in str(caught.value)) is other
            assert ("0badc0de" in str(caught.value)) is other
            asked = sandbox.requests["poll"] - before
            assert asked == 1 if other else asked > 1
        assert caught.value.generation_id == first.id


def test_a_ledger_of_the_first_version_gets_what_it_lacks_and_keeps_its_rows(
    sandbox, ledger, raccoon
):
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        done = client.generate(raccoon)
    with sqlite3.connect(ledger.path) as db:
        db.execute("ALTER TABLE submissions DROP COLUMN key_hash")
        db.execute(
            "CREATE UNIQUE INDEX one_intent ON submissions (base_url, fingerprint, take) "
            "WHERE state = 'intent'"
        )
    with KlingClient("sandbox", sandbox.base_url, ledger=Ledger(ledger.path)) as client:
        assert client.generate(raccoon).id == done.id
    assert len(sandbox.posts) == 1


def test_a_record_that_is_forgotten_is_neither_waited_for_nor_looked_up(ledger, raccoon):
    with Sandbox(speed=1000, seconds=float("inf"), size=(160, 90)) as sandbox:
        with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
            first = client.submit(raccoon)
            ledger.forget(ledger.entry(client.base_url, first.id))
            assert ledger.running(client.base_url) == ledger.uncertain(client.base_url) == []
            assert client.submit(raccoon).id != first.id
        assert [entry.state for entry in ledger.history()] == [State.SUBMITTED, State.FORGOTTEN]


def test_a_failed_repetition_does_not_hide_the_video_that_is_paid_for(ledger, raccoon):
    with Sandbox(speed=1000, seconds=float("inf"), size=(160, 90)) as sandbox:
        with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
            first = client.submit(raccoon)
            sandbox.finish(first.id)
            client.wait(first.id)
            another = client.submit(raccoon, new=True)
            sandbox.finish(another.id, fail="provider")
            with pytest.raises(Exception, match="failed"):
                client.wait(another.id)
            assert client.submit(raccoon).id == first.id
        assert len(sandbox.posts) == 2


def test_a_ledger_of_the_time_before_tags_gets_the_column_and_keeps_its_rows(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    request = VideoRequest(prompt="A cat")
    ledger.claim(request, "https://api.aimlapi.com")
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE submissions DROP COLUMN tag")
    (entry,) = Ledger(path).history()
    assert entry.tag is None
    Ledger(path).claim(VideoRequest(prompt="A dog", tag="new"), "https://api.aimlapi.com")
    assert [entry.tag for entry in Ledger(path).history()] == ["new", None]


def test_no_look_and_no_slow_disk_keeps_an_id_from_being_written(
    sandbox, ledger, raccoon, tmp_path, monkeypatch
):
    """A video on a mount that hangs is looked at by one, while another has just paid."""
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        client.save(client.generate(raccoon), tmp_path / "raccoon.mp4")
    hangs, goes_on = threading.Event(), threading.Event()
    saved_file = saved_files.saved_file

    def slow(entry, **options):
        if entry is not None:
            hangs.set()
            assert goes_on.wait(60)
        return saved_file(entry, **options)

    monkeypatch.setattr(saved_files, "saved_file", slow)
    looks = [
        threading.Thread(target=ledger.preview, args=(raccoon, sandbox.base_url)),
        threading.Thread(target=ledger.claim, args=(raccoon, sandbox.base_url)),
    ]
    for look in looks:
        hangs.clear()
        look.start()
        assert hangs.wait(30)
    other = Ledger(ledger.path)
    _, record = other.claim(VideoRequest(prompt="paid for meanwhile"), sandbox.base_url)
    other.advance(record.submitted("gen-1"))
    assert other.entry(sandbox.base_url, "gen-1").state is State.SUBMITTED
    goes_on.set()
    for look in looks:
        look.join(30)


@own_only
def test_a_reader_does_not_wait_for_a_writer(ledger, raccoon):
    ledger.claim(raccoon, "http://127.0.0.1:1")
    with sqlite3.connect(ledger.path, isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert ledger.history()[0].prompt == raccoon.prompt
        assert not ledger.preview(raccoon, "http://127.0.0.1:1").pays
        writer.execute("ROLLBACK")


@own_only
def test_a_ledger_restored_from_a_backup_gets_the_id_that_was_paid_for_meanwhile(
    sandbox, ledger, raccoon, tmp_path
):
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        client.submit(VideoRequest(prompt="an older one"))
        backup = ledger.path.read_bytes()
        _, record = ledger.claim(raccoon, sandbox.base_url)
        ledger.path.unlink()
        ledger.path.write_bytes(backup)
        for log in ledger.path.parent.glob("*.sqlite3-*"):
            log.unlink()
        with pytest.warns(KlingWarning, match="another one than before"):
            ledger.advance(record.submitted("gen-1"))
        assert ledger.preview(raccoon, sandbox.base_url).entry.generation_id == "gen-1"
        ledger.path.unlink()
        done = Generation("gen-1", Status.COMPLETED)
        with pytest.warns(KlingWarning, match="another one than before"):
            ledger.completed(sandbox.base_url, done, 90.0)
    [entry] = ledger.history()
    assert (entry.generation_id, entry.state) == ("gen-1", State.COMPLETED)


def test_a_later_state_and_an_id_are_never_taken_back(ledger, raccoon):
    url = "http://127.0.0.1:1"
    _, record = ledger.claim(raccoon, url)
    taken = record.submitted("gen-1")
    ledger.advance(taken)
    ledger.completed(url, Generation("gen-1", Status.COMPLETED), 90.0)
    ledger.wait_failed(url, GenerationFailedError("it failed", generation_id="gen-1"))
    for stale in (record, taken, record.ended(State.REFUSED), taken.ended(State.FORGOTTEN)):
        ledger.advance(stale)
    [entry] = ledger.history()
    assert (entry.generation_id, entry.state, entry.error) == ("gen-1", State.COMPLETED, None)
    with pytest.raises(LedgerError, match="another one"):
        ledger.advance(record.submitted("gen-2"))


def test_an_id_of_another_submission_is_not_believed(ledger, raccoon):
    url = "http://127.0.0.1:1"
    _, first = ledger.claim(raccoon, url)
    ledger.advance(first.submitted("gen-1"))
    _, second = ledger.claim(raccoon, url, new=True)
    with pytest.raises(SubmissionUncertainError, match="of another submission"):
        ledger.advance(second.submitted("gen-1"))
    assert [entry.generation_id for entry in ledger.history()] == [None, "gen-1"]
    assert len(ledger.uncertain(url)) == 1


def test_what_a_living_process_submits_is_no_doubt(ledger, raccoon):
    lock = ledger.lock(raccoon)
    assert lock.try_acquire()
    ledger.claim(raccoon, "http://127.0.0.1:1")
    [entry] = ledger.history()
    assert ledger.is_submitting(entry)
    assert ledger.uncertain("http://127.0.0.1:1") == []
    lock.release()
    assert not ledger.is_submitting(entry)
    assert ledger.uncertain("http://127.0.0.1:1") == [entry]


@own_only
def test_no_number_of_records_is_cut_where_they_decide(ledger):
    url = "http://127.0.0.1:1"
    ledger.history()
    with sqlite3.connect(ledger.path) as db:
        for number in range(1500):
            request = VideoRequest(prompt=f"number {number}")
            record = Record.intent(request)
            if number % 2:
                record = record.submitted(f"gen-{number}")
            sqlite_rows.insert(db, Entry.intent(request, record, url, 1, None))
    assert len(ledger.running(url)) == 750
    assert len(ledger.uncertain(url)) == 750


def test_what_the_user_forgot_by_its_id_stays_forgotten(ledger, raccoon):
    _, record = ledger.claim(raccoon, URL)
    ledger.advance(record.submitted("gen-1"))
    ledger.forget(ledger.entry(URL, "gen-1"))
    ledger.completed(URL, Generation(id="gen-1", status=Status.COMPLETED), 90.0)
    assert ledger.entry(URL, "gen-1").state is State.FORGOTTEN
    assert ledger.preview(raccoon, URL).pays


def test_a_failure_that_was_taken_back_leaves_no_error(ledger, raccoon):
    _, record = ledger.claim(raccoon, URL)
    ledger.advance(record.submitted("gen-1"))
    ledger.wait_failed(URL, GenerationFailedError("it failed", generation_id="gen-1"))
    assert ledger.entry(URL, "gen-1").error == "it failed"
    ledger.completed(URL, Generation(id="gen-1", status=Status.COMPLETED), 90.0)
    entry = ledger.entry(URL, "gen-1")
    assert (entry.state, entry.error) == (State.COMPLETED, None)


def test_a_lock_that_cannot_be_made_is_a_sentence_before_the_post(
    sandbox, ledger, raccoon, monkeypatch
):
    lock = ledger.lock(raccoon)
    Path(lock._lock.lock_file).mkdir()  # what no process can open for writing, root neither
    with KlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        with pytest.raises(LedgerUnreachableError, match="cannot be taken"):
            client.submit(raccoon)
    assert not sandbox.posts
