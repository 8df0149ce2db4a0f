"""Bare ``kling``, ``kling config`` and ``kling version``: how things stand, what is set."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ..core import catalog, settings
from ..core.errors import InvalidRequestError, LedgerError
from ..core.storage.ledger import Ledger
from ..version import __version__
from ._arguments import add_command
from ._context import key_variable, readable_ledger, uncertain
from ._exit_codes import DONE

if TYPE_CHECKING:
    from ._console import Console


def add(commands: Any) -> None:
    """Adds ``config`` and ``version`` to the grammar; the bare command needs no name."""
    add_command(commands, "config", _run_config, "what the environment sets: gateway, key, folders")
    add_command(commands, "version", run_version, "print the version")


def run_status(args: argparse.Namespace, console: Console) -> int:
    """What ``kling`` without a command prints."""
    print_status(
        console,
        ways_in=[
            (console.command("generate 'A white raccoon in a forest'"), "make a video"),
            (console.command("models"), "what there is"),
            (console.command("history"), "what was made"),
            (console.command("-h"), "everything else"),
        ],
        without_key=[
            (console.command("demo"), "see it all in ten seconds, without a key or money"),
            (console.command("sandbox"), "a stand-in for the gateway, to try everything"),
            (f"export {settings.KEY_VARIABLES[0]}=…", "for real videos, which cost money"),
        ],
    )
    return DONE


def print_status(
    console: Console,
    *,
    ways_in: Sequence[tuple[str, str]],
    without_key: Sequence[tuple[str, str]],
    facts: Sequence[tuple[str, str]] = (),
    running: Collection[str] = (),
) -> None:
    """How things stand, and the way in: bare ``kling`` in a shell, bare ``%kling`` in a notebook.

    ``ways_in`` are commands with what they do; those of ``without_key`` precede them where there
    is neither a key nor the sandbox. ``facts`` are names and values that the integration adds;
    ``running`` are ids of generations that it knows beside those of the ledger.
    """
    base_url = settings.base_url()
    sandbox = settings.is_sandbox(base_url)
    key = key_variable()
    ledger = readable_ledger(console)
    known = [entry.generation_id for entry in ledger.running(base_url)] if ledger else []
    ids = list(dict.fromkeys([*filter(None, known), *running]))
    unclear = len(uncertain(ledger, base_url))
    jobs, wait = console.command("jobs"), console.command("wait")
    console.say(f"kling-integrations {__version__}")
    console.facts(
        [
            ("  gateway", f"{base_url}{'  (SANDBOX: nothing is real)' if sandbox else ''}"),
            ("  key", f"from {key}" if key else "none needed" if sandbox else "none"),
            *((f"  {name}", value) for name, value in facts),
            ("  running", f"{len(ids)}: {jobs}, {wait}" if ids else None),
            (
                "  unclear",
                f"{unclear} without a known outcome: {console.command('recover')}"
                if unclear
                else None,
            ),
        ]
    )
    console.say("")
    steps = [*ways_in] if key or sandbox else [*without_key, *ways_in]
    console.facts([(f"  {line}", what) for line, what in steps])
    console.result(
        {
            "version": __version__,
            "base_url": base_url,
            "sandbox": sandbox,
            "key": key,
            "running": ids,
            "uncertain": unclear,
        }
    )


def _run_config(args: argparse.Namespace, console: Console) -> int:
    base_url = settings.base_url()
    key = key_variable()
    values: dict[str, Any] = {
        "base_url": base_url,
        "sandbox": settings.is_sandbox(base_url),
        "legacy_endpoint": settings.legacy_endpoint(),
        "key": f"from {key}" if key else None,
        **_folders(),
        "default_model": catalog.DEFAULT_MODEL,
        "version": __version__,
    }
    words = {True: "yes", False: "no", None: "none"}
    console.facts(
        (name.replace("_", " "), words.get(value, value)) for name, value in values.items()
    )
    console.note(
        "Set by AIML_BASE_URL, AIML_API_KEY, KLING_HOME, KLING_LEDGER and KLING_LEGACY_ENDPOINT."
    )
    console.result(values)
    return DONE


def _folders() -> dict[str, str]:
    """Home and ledger; what is wrong with one of them in its place: the user looks for it here."""
    try:
        home, ledger = str(settings.home()), Ledger()
    except LedgerError as error:
        return {"home": error.message}
    try:
        ledger.history(1)
    except (InvalidRequestError, LedgerError) as error:
        return {"home": home, "ledger": error.message}
    return {"home": home, "ledger": ledger.source}


def run_version(args: argparse.Namespace, console: Console) -> int:
    """Also what ``kling --version`` prints."""
    console.say(f"kling-integrations {__version__}")
    console.result({"version": __version__})
    return DONE
