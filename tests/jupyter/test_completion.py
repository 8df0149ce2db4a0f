"""Tab completion where it asks the ledger."""

from __future__ import annotations

import pytest

from kling_integrations.core.errors import SubmissionUncertainError
from kling_integrations.jupyter.completion import candidates


def after(line: str, shell) -> list[str]:
    return list(candidates(False, line.split(), "", shell.ip.user_ns))


def test_forget_completes_what_is_waited_for_and_what_is_in_doubt(shell, sandbox):
    shell.run("%%kling -d 5 -o done\nA cat")
    sandbox.fault("poll", "odd-status", None, word="queued")
    shell.run("%%kling -d 5 --bg -o job\nA dog")
    assert shell["job"].wait_for_id(10)
    sandbox.fault("submit", "drop-after")
    with pytest.raises(SubmissionUncertainError) as doubt:
        shell.run("%%kling -d 5\nA fox")
    assert after("forget", shell) == [shell["job"].id, doubt.value.client_request_id]
    assert shell["done"].id in after("show", shell)
    shell.run(f"%kling forget {doubt.value.client_request_id}")
    assert after("forget", shell) == [shell["job"].id]
