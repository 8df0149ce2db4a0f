"""Machines that share a ledger ask for the same video at the same moment; some are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

from kling_integrations.core.storage.ledger import Ledger
from kling_integrations.core.submission import State
from kling_integrations.sandbox import Sandbox
from tests.support.object_storage import BUCKET, s3_server

# A machine: for each line on stdin it asks for that video, and says what came of it.
MACHINE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from kling_integrations import KlingClient, VideoRequest
from kling_integrations.core import flows
from kling_integrations.core.errors import SubmissionUncertainError
from kling_integrations.core.storage import owner, team_ledger
from kling_integrations.core.storage.ledger import Ledger
name, base_url = sys.argv[1:]
owner.platform.node = lambda: name
team_ledger.LEASE = 3.0
flows._CLAIM_INTERVAL = 0.05
client = KlingClient("sandbox", base_url, ledger=Ledger())
client.ledger.history(1)
print("ready", flush=True)
for line in sys.stdin:
    try:
        result = client.submit(VideoRequest(prompt=line.strip())).id
    except SubmissionUncertainError:
        result = None
    print(json.dumps(result), flush=True)
"""


class Machine:
    def __init__(self, name, tmp_path, sandbox, environment):
        self.name, self.tmp_path, self.sandbox = name, tmp_path, sandbox
        self.environment = {**os.environ, **environment, "KLING_HOME": str(tmp_path / name)}
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", MACHINE, self.name, self.sandbox.base_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, prompt):
        self.process.stdin.write(f"{prompt}\n")
        self.process.stdin.flush()

    def answer(self):
        """The id, None for an open question, or ``killed``."""
        line = self.process.stdout.readline()
        return json.loads(line) if line else "killed"

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(params=["folder", "s3"])
def shared(request, tmp_path):
    """The environment of machines that share a ledger."""
    if request.param == "folder":
        yield {"KLING_LEDGER": (tmp_path / "team").as_uri()}
        return
    with s3_server() as environment:
        yield {**environment, "KLING_LEDGER": f"s3://{BUCKET}/team"}


@pytest.mark.parametrize(
    "races", [12, pytest.param(200, marks=[pytest.mark.exhaustive, pytest.mark.timeout(1500)])]
)
def test_one_post_each_and_nothing_lost(shared, tmp_path, monkeypatch, races):
    rng = random.Random(races)
    with Sandbox(speed=1000, seconds=100, size=(160, 90), fps=8) as sandbox:
        machines = [Machine(f"machine-{n}", tmp_path, sandbox, shared) for n in range(4)]
        killed = set()
        for number in range(races):
            prompt = f"race {number}"
            for machine in machines:
                machine.ask(prompt)
            victim = rng.choice(machines) if rng.random() < 0.3 else None
            if victim is not None:
                moment(rng.uniform(0, 0.04))
                victim.kill()
            answers = [machine.answer() for machine in machines]
            ids = {each for each in answers if each not in (None, "killed")}
            assert len(ids) <= 1, (prompt, answers)
            if victim is None:
                assert None not in answers
                assert "killed" not in answers
                assert len(ids) == 1
            else:
                killed.add(prompt)
                victim.process.stdout.close()
                victim.process.stdin.close()
                victim.start()
        for machine in machines:
            machine.close()
        assert killed
        posts = Counter(post.body["prompt"] for post in sandbox.posts)
        assert set(posts.values()) == {1}
        assert {f"race {number}" for number in range(races)} - set(posts) <= killed
        for name, value in shared.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("KLING_HOME", str(tmp_path / "observer"))
        entries = Ledger().history(10_000)
        known = {entry.generation_id for entry in entries}
        asked = {e.record.client_request_id for e in entries if e.state is State.INTENT}
        for job in sandbox.jobs.values():
            assert job.id in known or job.client_request_id in asked


def moment(seconds):
    """Not a wait for a condition: the moment of the kill is what is drawn by lot."""
    threading.Event().wait(seconds)
