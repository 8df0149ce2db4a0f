"""kill -9 at any step, disks that are full, folders that cannot be written: then once more."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kling_integrations import (
    DownloadError,
    KlingClient,
    KlingWarning,
    Ledger,
    LedgerError,
    Status,
    StoppedWaiting,
    SubmissionUncertainError,
    VideoRequest,
)
from kling_integrations.core.storage.saved_files import saved_file
from kling_integrations.core.submission import State
from kling_integrations.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """Children that do one thing each; see nursery.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def run(self, **job: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer.get("error") != "bug", answer["message"]
        return answer

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Sandbox]:
    with Sandbox(speed=2000, seconds=60, size=(160, 90), fps=8) as sandbox:
        yield sandbox


class Scene:
    """One wish: a home, a folder and a prompt of its own."""

    def __init__(self, gateway: Sandbox, folder: Path) -> None:
        self.gateway = gateway
        self.home = folder / "home"
        self.out = folder / "out"
        self.out.mkdir()
        self.target = self.out / "clip.mp4"
        self.prompt = folder.name
        self.ledger = Ledger(self.home / "ledger.sqlite3")

    def job(self, do: str = "generate", **more: Any) -> dict[str, Any]:
        return {
            "do": do,
            "base_url": self.gateway.base_url,
            "home": str(self.home),
            "target": str(self.target),
            "prompt": self.prompt,
            **more,
        }

    @property
    def posts(self) -> list[Any]:
        return [post for post in self.gateway.posts if post.body["prompt"] == self.prompt]

    @property
    def paid(self) -> list[Any]:
        return [job for job in self.gateway.jobs.values() if job.prompt == self.prompt]

    def finish(self, nursery: Nursery) -> str:
        """The user comes back: the same again, and what a refusal says to do.

        Returns how it was brought to its end.
        """
        answer = nursery.run(**self.job())
        if "path" in answer:
            return "picked up"
        # In doubt: a POST may have been under way, and the record says so.
        assert answer["error"] == "SubmissionUncertainError", answer
        [entry] = self.ledger.uncertain(self.gateway.base_url)
        assert entry.record.state is State.INTENT
        assert answer["client_request_id"] == entry.record.client_request_id
        for job in self.paid:
            self.gateway.finish(job.id)
        with KlingClient("k3y", self.gateway.base_url, ledger=self.ledger) as client:
            [found] = client.recover()
        assert (found.generation_id is not None) == bool(self.paid)
        answer = nursery.run(**self.job(new=found.generation_id is None))
        assert "path" in answer, answer
        return "recovered" if found.generation_id else "asked anew"

    def check(self) -> None:
        """One video, paid for once, whole; nothing beside it, nothing locked, nothing corrupt."""
        assert len(self.paid) == 1
        assert sum(post.accepted for post in self.posts) == 1
        assert [path.name for path in self.out.iterdir()] == ["clip.mp4"]
        assert_whole(self.target)
        with sqlite3.connect(self.home / "ledger.sqlite3") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        entry = self.ledger.entry(self.gateway.base_url, self.paid[0].id)
        assert entry.record.state is State.COMPLETED
        assert saved_file(entry).path == self.target


def assert_whole(path: Path) -> None:
    import av

    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 40


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("kills", [200])
def test_as_many_videos_as_wanted_each_paid_for_once_whatever_is_killed(
    nursery, gateway, tmp_path, kills
):
    dice = random.Random(20)
    rehearsal = Scene(gateway, make(tmp_path / "rehearsal"))
    total = nursery.run(**rehearsal.job())["steps"]
    rehearsal.check()
    how = dict.fromkeys(("picked up", "recovered", "asked anew"), 0)
    number = 0
    while sum(how.values()) < kills:
        number += 1
        assert number < 2 * kills, "most of them ended before they were killed"
        scene = Scene(gateway, make(tmp_path / f"kill-{number}"))
        answer = nursery.run(**scene.job(step=dice.randint(1, total)))
        if scene.target.exists():
            assert_whole(scene.target)  # never half a file under the final name
        if answer["killed"]:
            how[scene.finish(nursery)] += 1
        scene.check()
    print(f"{kills} kills over {total} steps, {number} videos, each paid for once: {how}")


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_kills_around_the_post_are_told_as_what_they_are(nursery, gateway, tmp_path):
    """Step by step through the stretch in which the POST leaves and the id is written."""
    rehearsal = Scene(gateway, make(tmp_path / "rehearsal"))
    marks = nursery.run(**rehearsal.job(settle=True))["marks"]
    first, last = marks["decide"], marks["_expectation"]
    seen = []
    for number in range(40):
        step = first + (last - first) * number // 39
        scene = Scene(gateway, make(tmp_path / f"step-{number}"))
        nursery.run(**scene.job(step=step, settle=True))
        posted = bool(scene.posts)
        seen.append(scene.finish(nursery))
        scene.check()
        assert seen[-1] != "recovered" or posted
    print(seen)
    assert {"recovered", "picked up", "asked anew"} == set(seen)


def test_kills_during_a_download_leave_no_half_file_and_no_litter(nursery, tmp_path):
    dice = random.Random(21)
    with Sandbox(speed=2000, seconds=20, size=(640, 360), fps=24) as gateway:
        scene = Scene(gateway, make(tmp_path / "rehearsal"))
        total = nursery.run(**scene.job())["steps"]
        [paid] = scene.paid
        download = nursery.run(**scene.job("save", id=paid.id))["steps"]
        assert download < total
        scene.target.unlink()
        kills = 0
        for _ in range(40):
            answer = nursery.run(**scene.job("save", id=paid.id, step=dice.randint(1, download)))
            kills += answer["killed"]
            names = {path.name for path in scene.out.iterdir()} - {"clip.mp4"}
            assert all(name.endswith(".part") and name.startswith(".") for name in names)
            if scene.target.exists():
                frames_of(scene.target)
                scene.target.unlink()
        assert kills > 30
        assert "path" in nursery.run(**scene.job())
        assert [path.name for path in scene.out.iterdir()] == ["clip.mp4"]
        assert len(scene.posts) == 1


def frames_of(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert frames == 120
    return frames


def test_kills_while_the_ledger_is_made_leave_a_ledger_that_works(nursery, gateway, tmp_path):
    dice = random.Random(22)
    for number in range(40):
        scene = Scene(gateway, make(tmp_path / f"{number}"))
        nursery.run(**scene.job(step=dice.randint(1, 900)))
        assert Ledger(scene.home / "ledger.sqlite3").history() is not None
        assert len(scene.paid) <= 1


# --- signals -------------------------------------------------------------------------------------

SUBMIT = """
import sys, signal
from kling_integrations import KlingClient, Ledger, VideoRequest
{handler}
with KlingClient("k3y", sys.argv[1], ledger=Ledger(), timeout=30) as client:
    print(client.submit(VideoRequest(prompt="a")).id)
"""
RAISING = """
class Stopped(BaseException): pass
def stop(number, frame): raise Stopped()
signal.signal(signal.SIGTERM, stop)
"""


@pytest.mark.parametrize("handler", ["", RAISING], ids=["plain", "as Airflow does"])
def test_sigterm_in_the_post_never_leads_to_a_second_payment(
    gateway, tmp_path, monkeypatch, handler
):
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    with Sandbox(speed=1000, seconds=60, size=(160, 90), fps=8) as gateway:
        gateway.fault("submit", "slow", seconds=0.5)
        asking = subprocess.Popen(
            [sys.executable, "-c", SUBMIT.format(handler=handler), gateway.base_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ,
            cwd=ROOT,
        )
        assert gateway.wait_for(lambda _: gateway.posts, timeout=30)
        asking.send_signal(signal.SIGTERM)
        asking.communicate(timeout=30)
        gateway.wait_for(lambda _: gateway.paid or gateway.posts[0].status is None, timeout=30)
        with KlingClient("k3y", gateway.base_url, ledger=Ledger()) as client:
            if handler:  # the reply was waited for, and its id is written down
                assert client.submit(VideoRequest(prompt="a")).id in gateway.jobs
            else:
                with pytest.raises(SubmissionUncertainError):
                    client.submit(VideoRequest(prompt="a"))
        assert len(gateway.posts) == 1


def test_the_shells_sigterm_in_the_post_is_an_interrupt_that_keeps_the_id(tmp_path):
    with Sandbox(speed=1000, seconds=60, size=(160, 90), fps=8) as gateway:
        gateway.fault("submit", "slow", seconds=0.5)
        env = {**os.environ, **gateway.environment, "KLING_HOME": str(tmp_path / "home")}
        asking = subprocess.Popen(
            [sys.executable, "-m", "kling_integrations", "generate", "a", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**env, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            text=True,
        )
        assert gateway.wait_for(lambda _: gateway.posts, timeout=30)
        asking.send_signal(signal.SIGINT)
        out, err = asking.communicate(timeout=30)
        [id] = gateway.jobs
        assert json.loads(out)["generation_id"] == id
        assert "Traceback" not in err
        assert asking.returncode == 3


# --- disks ---------------------------------------------------------------------------------------


def test_a_disk_that_fills_during_a_download_costs_neither_the_video_nor_room(
    nursery, gateway, tmp_path
):
    scene = Scene(gateway, tmp_path)
    first = nursery.run(**scene.job())
    size = scene.target.stat().st_size
    scene.target.unlink()
    answer = nursery.run(**scene.job("save", id=first["id"], file_limit=size // 2))
    assert answer["error"] == "DownloadError"
    assert f"client.download({first['id']!r}, " in answer["message"]
    assert list(scene.out.iterdir()) == []
    assert "path" in nursery.run(**scene.job())
    scene.check()


def test_a_disk_that_is_full_before_the_post_stops_it(nursery, gateway, tmp_path):
    scene = Scene(gateway, tmp_path)
    answer = nursery.run(**scene.job(file_limit=100))
    assert answer["error"] == "LedgerUnreachableError"
    assert scene.posts == []


def test_a_disk_that_fills_up_between_the_post_and_the_id_still_tells_the_id(
    nursery, gateway, tmp_path
):
    scene = Scene(gateway, tmp_path)
    answer = nursery.run(**scene.job(full_at="exchange"))
    [paid] = scene.paid
    assert answer["error"] == "LedgerError"
    assert answer["id"] == paid.id
    assert f"client.wait({paid.id!r})" in answer["message"]
    assert scene.finish(nursery) == "recovered"  # the intent stands there: nothing is paid again
    scene.check()


def test_a_ledger_that_breaks_after_the_payment_is_a_warning_and_the_video_is_had(
    gateway, tmp_path
):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    with KlingClient("k3y", gateway.base_url, ledger=ledger) as client:
        generation = client.submit(VideoRequest(prompt="a"))
        for file in tmp_path.glob("ledger*"):
            file.write_bytes(b"no database" * 500)
        with pytest.warns(KlingWarning, match="ledger"):
            done = client.wait(generation.id)
        assert done.status is Status.COMPLETED
        with pytest.warns(KlingWarning, match="ledger"):
            assert client.download(done, tmp_path / "clip.mp4").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where it likes")
def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_lost(gateway, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with KlingClient("k3y", gateway.base_url) as client:
        done = client.generate(VideoRequest(prompt="a"))
        with pytest.raises(DownloadError, match="kling download"):
            client.download(done, folder / "clip.mp4")


@pytest.mark.parametrize("made", ["a file", "a folder", "a broken link"])
def test_a_home_that_is_no_place_for_a_ledger_stops_before_the_post(
    gateway, tmp_path, monkeypatch, made
):
    home = tmp_path / "home"
    match made:
        case "a file":
            home.write_text("")
        case "a folder":
            (home / "ledger.sqlite3").mkdir(parents=True)
        case "a broken link":
            home.symlink_to(tmp_path / "nowhere" / "at" / "all")
    monkeypatch.setenv("KLING_HOME", str(home))
    before = len(gateway.posts)
    with KlingClient("k3y", gateway.base_url, ledger=Ledger()) as client:
        with pytest.raises(LedgerError):
            client.submit(VideoRequest(prompt="a"))
    assert len(gateway.posts) == before


def test_a_ledger_that_another_process_holds_is_waited_for(gateway, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.history()
    holder = sqlite3.connect(ledger.path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.5, lambda: holder.execute("COMMIT"))
    timer.start()
    began = time.monotonic()
    with KlingClient("k3y", gateway.base_url, ledger=ledger) as client:
        client.submit(VideoRequest(prompt="held"))
    assert time.monotonic() - began > 0.4
    timer.join()
    holder.close()


def test_an_interrupt_while_another_process_submits_the_same_leaves_nothing_behind(
    gateway, tmp_path
):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    request = VideoRequest(prompt="the same")
    main = threading.get_ident()
    held = ledger.lock(request)
    assert held.try_acquire()
    try:
        timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        with KlingClient("k3y", gateway.base_url, ledger=Ledger(ledger.path)) as client:
            with pytest.raises(StoppedWaiting, match="before anything was submitted"):
                client.submit(request)
    finally:
        held.release()
    with contextlib.suppress(LedgerError):
        assert ledger.history() == []


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-10 * 365 * 86400.0, -3600.0, 3600.0, 10 * 365 * 86400.0])
def test_a_wall_clock_that_jumps_while_waiting_changes_nothing(
    gateway, tmp_path, monkeypatch, jump
):
    real = time.time
    skew = [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + skew[0])

    def step(progress):
        if progress.polls == 1:
            skew[0] = jump

    ledger = Ledger(tmp_path / "ledger.sqlite3")
    request = VideoRequest(model="v2.5-turbo-pro", prompt=f"jump {jump}")
    with KlingClient("k3y", gateway.base_url, ledger=ledger) as client:
        done = client.generate(request, on_update=step)
    with KlingClient("k3y", gateway.base_url, ledger=Ledger(ledger.path)) as client:
        assert client.generate(request).id == done.id
    assert sum(post.body["prompt"] == request.prompt for post in gateway.posts) == 1
    learned = ledger.finished(gateway.base_url, request.model, 5)
    assert all(seconds < 3600 for seconds in learned)


def test_a_clock_that_is_set_back_does_not_make_an_older_record_the_newest(
    gateway, tmp_path, monkeypatch
):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    request = VideoRequest(prompt="set back [fail:provider]")
    real = time.time
    with KlingClient("k3y", gateway.base_url, ledger=ledger) as client:
        with pytest.raises(Exception, match="failed"):
            client.generate(request)
        monkeypatch.setattr(time, "time", lambda: real() - 86400)
        second = client.submit(request)  # a failed one is not billed: submitted anew
        assert client.submit(request).id == second.id
    assert sum(post.body["prompt"] == request.prompt for post in gateway.posts) == 2


def test_a_record_from_the_future_is_waited_for_as_if_from_now(gateway, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    request = VideoRequest(prompt="from the future")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86400 * 400)
    with KlingClient("k3y", gateway.base_url, ledger=ledger) as client:
        first = client.submit(request)
    monkeypatch.undo()
    with KlingClient("k3y", gateway.base_url, ledger=Ledger(ledger.path)) as client:
        assert client.generate(request).id == first.id
