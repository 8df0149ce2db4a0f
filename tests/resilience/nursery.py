"""Makes children that can be killed cheaply: everything is imported once, then forked.

Reads one JSON object per line: what a child shall do and when it shall die; writes one per child.
A child dies by SIGKILL at its ``step``-th call into anything (Python or C), or never.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import filelock  # noqa: F401 (imported before the fork)
import requests  # noqa: F401

from kling_integrations import KlingClient, KlingError, Ledger, VideoRequest
from kling_integrations.core.generation import Generation, Status
from kling_integrations.core.http import requests_transport as transport  # noqa: F401

MARKED = ("decide", "exchange", "submitted", "_expectation")


class Steps:
    """Counts the calls of all threads; kills at the ``last`` one.

    From the first call of the function ``full_at`` on, the disk is full.
    """

    def __init__(self, last: int | None, full_at: str | None) -> None:
        self.full_at = full_at
        self.count = 0
        self.last = last
        self.marks: dict[str, int] = {}  # function of interest: the step of its first call

    def __call__(self, frame: Any, event: str, arg: Any) -> None:
        self.count += 1
        if event == "call" and frame.f_code.co_name in MARKED:
            self.marks.setdefault(frame.f_code.co_name, self.count)
            if frame.f_code.co_name == self.full_at:
                fill_the_disk(1000)
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk(size: int) -> None:
    """No file may grow beyond ``size`` bytes; SIGXFSZ is ignored by Python already."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def work(job: dict[str, Any], steps: Steps) -> dict[str, Any]:
    if size := job.get("file_limit"):
        fill_the_disk(size)
    book = Ledger(Path(job["home"]) / "ledger.sqlite3")
    if job.get("settle"):  # so that what follows is killed, and not the making of the file
        book.history()
    client = KlingClient("k3y", job["base_url"], ledger=book)
    threading.setprofile(steps)
    sys.setprofile(steps)
    try:
        with client:
            if job["do"] == "generate":
                request = VideoRequest(prompt=job["prompt"])
                done = client.generate(request, new=job.get("new", False), timeout=3600)
            else:
                done = Generation(job["id"], Status.UNKNOWN)
            if job["do"] != "submit":
                saved = client.save(done, job["target"])
        return {"id": done.id, "path": str(saved.path)}
    except KlingError as error:
        return {
            "error": type(error).__name__,
            "message": str(error),
            "id": error.generation_id,
            "client_request_id": error.client_request_id,
        }
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def child(job: dict[str, Any], out: int) -> None:
    steps = Steps(job.get("step"), job.get("full_at"))
    try:
        answer = work(job, steps)
    except BaseException:
        answer = {"error": "bug", "message": traceback.format_exc()}
    os.write(out, json.dumps({**answer, "steps": steps.count, "marks": steps.marks}).encode())
    os._exit(0)


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            child(job, writing)
        os.close(writing)
        told = b""
        while chunk := os.read(reading, 65536):
            told += chunk
        os.close(reading)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status)
        print(json.dumps({**json.loads(told or "{}"), "killed": killed}), flush=True)


if __name__ == "__main__":
    main()
