"""The fault matrix: what goes wrong × when × who asks, and what must come of it.

The expectations are reasoned, not recorded. A POST is in doubt unless the reply says that it was
not taken; what is in doubt is posted once. A poll outlives everything but a refusal. A download
outlives everything that passes, and asks for a fresh link once. The same call again never pays a
second time, but for a submission that surely was not taken and a generation that failed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kling_integrations import KlingClient, Ledger
from kling_integrations.core.submission import State
from kling_integrations.sandbox import Sandbox

from .fronts import DONE, FRONTS, KEY, SECRETS, Ending, Limits, Wish, listening

SPEED = 1000.0
SECONDS = 200.0  # of a job, gateway seconds: a little longer than is expected of it
DEADLINE = 200.0
HANG = 0.25  # real seconds until a hanging exchange is given up

MOMENTS = {
    "submit": "the POST",
    "first poll": "the first look at the generation",
    "mid-wait": "three looks in a row, from the second on",
    "deadline": "every look from the third to the deadline",
    "download": "the first request for the video",
    "download for good": "every request for the video",
}


@dataclass(frozen=True)
class Trouble:
    """A fault of the sandbox under the name that the table gives it."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    submit: str = ""  # verdict at a submit; empty: does not apply
    paid: int = 1
    posts: int = 1
    poll: str = DONE
    deadline: str = "timeout"
    download: str = DONE
    for_good: str = "not saved"
    hangs: bool = False


def _http(code: int) -> Trouble:
    refused = code in (400, 401, 402, 403, 404, 410, 413, 422)
    submit, posts, paid = ("refused", 1, 0) if refused else ("uncertain", 1, 0)
    if code == 429:
        submit, posts, paid = DONE, 2, 1
    outlived = code in (404, 408, 409, 425, 429) or code >= 500
    fresh_link = code in (401, 403, 404, 410)
    passes = code in (408, 425, 429) or code >= 500
    return Trouble(
        f"HTTP {code}",
        "status",
        {"code": code},
        submit,
        paid,
        posts,
        poll=DONE if outlived else "refused",
        # A generation that is not found for two minutes is not found.
        deadline="not found" if code == 404 else "timeout" if outlived else "refused",
        download=DONE if passes or fresh_link else "not saved",
    )


def _accepted(code: int, named: bool) -> Trouble:
    """Taken, and yet answered with an error; the id stands in its head ("named"), or nowhere."""
    return Trouble(
        f"HTTP {code}, {'named' if named else 'yet accepted'}",
        "status-after",
        {"code": code, "header": named},
        DONE if named else "uncertain",
        poll="",
        deadline="",
        download="",
        for_good="",
    )


CODES = (400, 401, 402, 403, 404, 408, 409, 410, 413, 422, 425, 429, 500, 502, 503, 504, 524)
TROUBLES = [
    *map(_http, CODES),
    *(_accepted(code, True) for code in (400, 403, 429, 500, 502, 503, 504, 524)),
    *(_accepted(code, False) for code in (408, 500, 502, 503, 504, 524)),
    Trouble("dropped before", "drop-before", {}, "uncertain", 0),
    Trouble("reset before", "drop-before", {"reset": True}, "uncertain", 0),
    Trouble("dropped after", "drop-after", {}, "uncertain"),
    Trouble("reset after", "drop-after", {"reset": True}, "uncertain"),
    Trouble("slow", "slow", {"seconds": 0.05}, DONE, for_good=DONE),
    Trouble("hanging", "hang", {}, "uncertain", 0, hangs=True),
    Trouble(
        "hanging, yet accepted",
        "hang-after",
        {},
        "uncertain",
        poll="",
        deadline="",
        download="",
        for_good="",
        hangs=True,
    ),
    Trouble("body cut", "cut", {}, DONE),
    Trouble("JSON cut", "cut-json", {}, DONE, download="", for_good=""),
    Trouble("garbage", "garbage", {}, DONE),
    Trouble("not HTTP", "not-http", {}, "uncertain"),
    Trouble("web page", "html", {}, DONE),
    Trouble("empty body", "empty", {}, DONE),
    Trouble("no id", "no-id", {}, "uncertain", download="", for_good=""),
    Trouble("oversized", "oversized", {"mb": 6}, DONE),
    Trouble("bomb", "bomb", {"mb": 16}, DONE, download="", for_good=""),
    Trouble("wrong type", "wrong-type", {}, DONE, for_good=DONE),
    Trouble("odd status", "odd-status", {"word": "paused"}, DONE, download="", for_good=""),
    Trouble("id of another shape", "id-changes", {}, "", download="", for_good=""),
    Trouble("completed, no video", "no-video", {}, "", download="", for_good=""),
    Trouble("redirect to another host", "redirect", {}, "uncertain", 0),
    Trouble("empty object", "reply", {"body": {}}, DONE),
    Trouble("JSON that is no object", "reply", {"body": [1, 2]}, DONE),
    Trouble(
        "id not understood",
        "reply",
        {"body": {"id": "", "status": "unknown", "error": {"message": "task_id"}}},
        "",
        poll="not found",
        deadline="not found",
        download="",
        for_good="",
    ),
    Trouble("connection refused", "", {}, "trouble", 0, 0, poll="", download="", for_good=""),
    Trouble(
        "generation fails",
        "",
        {},
        "",
        poll="failed",
        deadline="",
        download="",
        for_good="",
    ),
    Trouble("no ranges", "no-range", {}, "", poll="", deadline="", for_good=DONE),
    Trouble("link expired", "expired", {}, "", poll="", deadline=""),
    Trouble("short file", "short", {}, "", poll="", deadline=""),
]

# At these every front is tried by default; of the others each (fault, moment) at one front.
ESSENTIAL = {
    "submit": ("HTTP 503", "HTTP 429", "HTTP 401", "dropped after", "HTTP 502, named"),
    "first poll": ("dropped before", "HTTP 401", "HTTP 404"),
    "mid-wait": ("HTTP 503", "web page", "generation fails"),
    "deadline": ("HTTP 503", "HTTP 403"),
    "download": ("body cut", "link expired"),
    "download for good": ("HTTP 503", "web page"),
}


@dataclass(frozen=True)
class Expected:
    """What must come of the call, and of the same call again once the fault is gone."""

    verdict: str
    posts: int
    paid: int
    again: str
    posts_again: int

    def __str__(self) -> str:
        again = f" → {self.again}, {self.posts_again}" if self.verdict != DONE else ""
        return f"{self.verdict}, {self.posts}{again}"


@dataclass(frozen=True)
class Case:
    trouble: Trouble
    moment: str
    front: str

    @property
    def id(self) -> str:
        return f"{self.trouble.name} × {self.moment} × {self.front}"

    @property
    def expected(self) -> Expected:
        trouble = self.trouble
        if self.moment == "submit":
            # A task looks into the gateway's log by itself: what was taken turns up there.
            looks_up = self.front in ("operator", "trigger") and trouble.paid
            again = "uncertain" if trouble.submit == "uncertain" and not looks_up else DONE
            posts = trouble.posts
            more = 1 if trouble.submit in ("refused", "trouble") else 0
            return Expected(trouble.submit, posts, trouble.paid, again, posts + more)
        verdict = {
            "first poll": trouble.poll,
            "mid-wait": trouble.poll,
            "deadline": trouble.deadline,
            "download": trouble.download,
            "download for good": trouble.for_good,
        }[self.moment]
        # A failed generation is not billed, and the same again is a new one, which fails as well.
        failed = verdict == "failed"
        fresh = failed and FRONTS[self.front].submits
        return Expected(verdict, 1, 1, "failed" if failed else DONE, 2 if fresh else 1)

    @property
    def is_default(self) -> bool:
        if self.trouble.name in ESSENTIAL[self.moment]:
            return True
        fronts = fronts_of(self.moment)
        place = TROUBLES.index(self.trouble) + list(MOMENTS).index(self.moment)
        return fronts[place % len(fronts)] == self.front


def fronts_of(moment: str) -> list[str]:
    return [name for name, front in FRONTS.items() if front.submits or moment != "submit"]


def cases() -> list[Case]:
    found = []
    for moment in MOMENTS:
        for trouble in TROUBLES:
            for front in fronts_of(moment):
                case = Case(trouble, moment, front)
                applies = case.expected.verdict and not (
                    moment == "first poll" and trouble.kind in ("no-video", "")
                )
                if applies:
                    found.append(case)
    return found


# --- running ---------------------------------------------------------------------------------


@dataclass
class Seen:
    verdict: str = ""
    posts: int = 0
    paid: int = 0
    again: str = ""
    posts_again: int = 0
    complaints: list[str] = field(default_factory=list)

    def wrong(self, expected: Expected) -> list[str]:
        """Everything that differs from what must come of it, in words."""
        problems = [
            f"{name}: {getattr(self, name)!r}, not {getattr(expected, name)!r}"
            for name in ("verdict", "posts", "paid", "again", "posts_again")
            if getattr(self, name) != getattr(expected, name)
        ]
        return problems + self.complaints


@contextlib.contextmanager
def world() -> Iterator[Sandbox]:
    """A gateway for many cells: each aims its faults at its own prompt."""

    def seconds(model: str, payload: dict[str, Any]) -> float:
        words = payload["prompt"]
        return float("inf") if "[for ever]" in words else 60.0 if "[soon]" in words else SECONDS

    with Sandbox(speed=SPEED, seconds=seconds, size=(160, 90), fps=8, seed=7) as sandbox:
        yield sandbox


MISSED = "the fault never struck"


def run(case: Case, sandbox: Sandbox) -> Seen:
    """Plays one cell; once more where a busy machine let the moment of the fault pass."""
    for _ in range(3):
        seen = _run(case, sandbox)
        if MISSED not in seen.complaints:
            break
    return seen


def _run(case: Case, sandbox: Sandbox) -> Seen:
    """In a home and a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="kling-hostile-"))
    environment = dict(os.environ)
    os.environ |= {
        "KLING_HOME": str(folder / "home"),
        "AIML_API_KEY": KEY,
        "AIML_BASE_URL": sandbox.base_url,
    }
    limits = Limits(
        exchange=HANG if case.trouble.hangs else 20.0,
        patience=300.0 if case.moment == "download for good" else 3000.0,
    )
    try:
        with listening() as log, limits:
            return _play(case, sandbox, folder, log)
    finally:
        sandbox.resume()
        sandbox.clear_faults()
        os.environ.clear()
        os.environ.update(environment)
        shutil.rmtree(folder, ignore_errors=True)


def _play(case: Case, sandbox: Sandbox, folder: Path, log: list[str]) -> Seen:
    trouble, moment = case.trouble, case.moment
    words = ["A raccoon", os.urandom(6).hex()]
    if moment == "deadline":
        words.append("[soon]" if trouble.kind == "no-video" else "[for ever]")
    if trouble.name == "generation fails":
        words.append("[fail:moderation]")
    prompt = " ".join(words)
    target = folder / "out" / "clip.mp4"
    target.parent.mkdir()
    wish = Wish(sandbox, folder / "home", target, prompt)
    if moment == "deadline":
        # What is not found for two minutes is told before the deadline.
        wish.timeout = 2 * DEADLINE if trouble.deadline == "not found" else DEADLINE
    kind = FRONTS[case.front]
    earlier = sandbox.leaked_keys
    if not kind.submits:
        with KlingClient(KEY, sandbox.base_url) as client:
            wish.submitted = client.submit(wish.request).id
    fault = _arm(case, sandbox, prompt)
    front = kind(wish)
    seen = Seen()
    try:
        with _refusing(case, sandbox, prompt):
            ending = front.call()
        seen.verdict = ending.verdict
        seen.posts, seen.paid = _money(sandbox, prompt)
        if fault is not None and not fault.hits:
            seen.complaints.append(MISSED)
        seen.complaints += _check(case, ending, wish, log)
        sandbox.resume()
        sandbox.clear_faults()
        for job in list(sandbox.jobs.values()):
            if job.prompt == prompt:
                sandbox.finish(job.id)
        ending = front.call()
        seen.again = ending.verdict
        seen.posts_again, _ = _money(sandbox, prompt)
        seen.complaints += [f"again: {each}" for each in _check(case, ending, wish, log)]
    finally:
        front.close()
    if sandbox.leaked_keys != earlier:
        seen.complaints.append("the key was sent to another host")
    return seen


def _arm(case: Case, sandbox: Sandbox, prompt: str) -> Any:
    if not case.trouble.kind:
        return None
    moment, times, after = {
        "submit": ("submit", 1, 0),
        "first poll": ("poll", 1, 0),
        "mid-wait": ("poll", 3, 1),
        "deadline": ("poll", None, 2),
        "download": ("download", 1, 0),
        "download for good": ("download", None, 0),
    }[case.moment]
    if case.trouble.kind == "no-video":
        after = 0
    options = {**case.trouble.options, "match": prompt, "after": after}
    return sandbox.fault(moment, case.trouble.kind, times, **options)


@contextlib.contextmanager
def _refusing(case: Case, sandbox: Sandbox, prompt: str) -> Iterator[None]:
    """No connection at all: from the start, or from the third look at the generation."""
    if case.trouble.name != "connection refused":
        yield
        return
    if case.moment == "submit":
        sandbox.pause()
        yield
        return

    def looked(_: Sandbox) -> bool:
        return any(job.prompt == prompt and job.polls >= 2 for job in sandbox.jobs.values())

    def close() -> None:
        with contextlib.suppress(TimeoutError):
            sandbox.wait_for(looked, timeout=20)
            sandbox.pause()

    closing = threading.Thread(target=close)
    closing.start()
    yield
    closing.join()


def _money(sandbox: Sandbox, prompt: str) -> tuple[int, int]:
    posts = [
        post
        for post in sandbox.posts
        if isinstance(post.body, dict) and post.body.get("prompt") == prompt
    ]
    return len(posts), sum(post.accepted for post in posts)


def _check(case: Case, ending: Ending, wish: Wish, log: list[str]) -> list[str]:
    """What must hold however it ended: ids told, nothing left over, nothing given away."""
    problems = []
    told = ending.told + "\n".join(log)
    if case.front not in ("sync", "async") and "Traceback" in ending.told:
        problems.append("a traceback was shown")
    if found := SECRETS.search(told):
        problems.append(f"a secret was shown: {told[max(0, found.start() - 60) : found.end()]!r}")
    jobs = [job for job in wish.sandbox.jobs.values() if job.prompt == wish.prompt]
    posts = [post for post in wish.sandbox.posts if _is_of(post.body, wish.prompt)]
    if ending.verdict == "uncertain":
        if posts[-1].client_request_id not in ending.ids:
            problems.append("the client request id was not told")
    elif jobs and not any(job.id in ending.ids for job in jobs):
        problems.append(f"the generation's id was not told: {ending.ids}")
    problems += _debris(wish, ending)
    problems += _ledger(case, wish, jobs)
    return problems


# Their records lie beside the video; under KLING_HOME is only what was learned of the gateway.
KEPT_BESIDE = ("operator", "trigger")


def _is_of(body: object, prompt: str) -> bool:
    return isinstance(body, dict) and body.get("prompt") == prompt


def _debris(wish: Wish, ending: Ending) -> list[str]:
    # A task's record stays, beside the video.
    there = sorted(path.name for path in wish.target.parent.iterdir() if path.name != ".kling")
    if ending.verdict != DONE:
        return [f"left over: {there}"] if there else []
    if there != [wish.target.name]:
        return [f"in the folder: {there}"]
    problems = []
    if not _is_whole(wish.target):
        problems.append("the file is not the whole video")
    wish.target.unlink()  # the same call again has to bring it again
    return problems


def _is_whole(path: Path) -> bool:
    import av

    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        return frames == 5 * 8


def _ledger(case: Case, wish: Wish, jobs: list[Any]) -> list[str]:
    """Where there is a ledger it knows every paid id, or that a POST has no known outcome."""
    problems = []
    for lock in (wish.home / "locks").glob("*.lock"):
        import fcntl

        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                problems.append(f"{lock.name} is still locked")
    file = wish.home / "ledger.sqlite3"
    if not file.exists():
        return problems
    problems += _secrets(wish)
    if case.front in KEPT_BESIDE:
        return problems + _records(wish, jobs)
    ledger = Ledger(file)
    base_url = wish.sandbox.base_url
    open_ones = {entry.record.client_request_id for entry in ledger.uncertain(base_url)}
    for job in jobs:
        entry = ledger.entry(base_url, job.id)
        if entry is None and job.client_request_id not in open_ones:
            problems.append("the ledger knows nothing of a paid generation")
        if entry is not None and entry.record.state is State.REFUSED:
            problems.append("the ledger takes a paid generation for refused")
    return problems


def _records(wish: Wish, jobs: list[Any]) -> list[str]:
    files = (wish.target.parent / ".kling").rglob("*.json")
    known = "".join(file.read_text("utf-8") for file in files)
    unknown = [job for job in jobs if not (job.id in known or job.client_request_id in known)]
    return ["the task's record knows nothing of a paid generation"] if unknown else []


def _secrets(wish: Wish) -> list[str]:
    content = b"".join(each.read_bytes() for each in wish.home.glob("ledger*"))
    return ["the ledger holds a secret"] if SECRETS.search(content.decode("latin-1")) else []
