"""``kling recover``: what became of submissions without a known outcome."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..core import settings
from ..core.errors import NextStep, Verb
from ..core.submission import State
from ._arguments import add_command
from ._context import connect, user_ledger
from ._exit_codes import DONE, UNCERTAIN
from ._hints import command_line
from ._text import one_line

if TYPE_CHECKING:
    from ..core.recovery import Recovered
    from ._console import Console


def add(commands: Any) -> None:
    """Adds the command to the grammar."""
    add_command(
        commands,
        "recover",
        _run_recover,
        "look up submissions without a known outcome in the gateway's log, and attach them",
    )


def _run_recover(args: argparse.Namespace, console: Console) -> int:
    ledger = user_ledger()
    if not ledger.uncertain(settings.base_url()):
        console.say("Every submission from here has a known outcome.")
        console.result({"recovered": []})
        return DONE
    console.note("Looking through the gateway's log …")
    with connect(ledger) as client:
        results = client.recover()
    blocked = [each for each in results if _blocks(each)]
    for each in results:
        _report(each, console)
    console.result(
        {
            "recovered": [
                {
                    "client_request_id": each.entry.record.client_request_id,
                    "generation_id": each.generation_id,
                    "reason": each.reason,
                    "prompt": each.entry.prompt,
                    "model": each.entry.record.model,
                }
                for each in results
            ]
        }
    )
    return UNCERTAIN if blocked else DONE


def _blocks(result: Recovered) -> bool:
    """Whether it still keeps the same request from being submitted."""
    return result.generation_id is None and result.entry.state is State.INTENT


def _report(result: Recovered, console: Console) -> None:
    console.say(f"“{one_line(result.entry.prompt, 60)}” ({result.entry.record.model})")
    if result.generation_id:
        console.say(f"  Found: {result.generation_id}")
        console.say(f"  {console.hint(NextStep(Verb.WAIT, result.generation_id))}")
        return
    console.say(f"  {result.reason[:1].upper()}{result.reason[1:]}.")
    if _blocks(result):
        console.say(f"  Try again in some minutes. {console.hint(NextStep(Verb.SUBMIT_NEW))}")
    give_up = command_line(console.program, "forget", result.entry.record.client_request_id)
    console.say(f"  To give it up, paid or not: {give_up}")
