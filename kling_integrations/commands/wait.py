"""``kling wait`` and ``kling download``: back to what is running or finished."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..core import settings
from ..core.errors import GenerationNotFoundError, KlingError, StoppedWaiting, describe
from ..core.manifest import manifest
from ..core.progress import ago
from ..core.storage.file_names import SEPARATORS
from ..core.submission import State
from ..core.waiting import Patience
from ._arguments import ID_HELP, UsageError, add_command, output_argument, timeout_argument
from ._context import connect, find, readable_ledger
from ._exit_codes import DONE, exit_code, failure
from ._finish import finish
from ._hints import command_line
from ._save import local_video
from ._target import check_output, path_of, reserved

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ..core.storage.ledger import Ledger
    from ..core.submission import Entry
    from ._console import Console


_LOOKS_AT_ONCE = 8


def add(commands: Any) -> None:
    """Adds both commands to the grammar."""
    wait = add_command(commands, "wait", _run_wait, "wait for generations and save their videos")
    wait.add_argument("id", metavar="ID", nargs="*", help=f"{ID_HELP}; all (default) that run")
    output_argument(wait)
    timeout_argument(wait)
    wait.add_argument("--no-download", action="store_true", help="only wait")

    download = add_command(
        commands, "download", _run_download, "save the video of a finished generation"
    )
    download.add_argument("id", metavar="ID", help=ID_HELP)
    output_argument(download)


def _run_wait(args: argparse.Namespace, console: Console) -> int:
    ledger = readable_ledger(console)
    words = args.id or ["all"]
    targets = _targets(words, ledger)
    if not targets:
        console.say("Nothing is running.")
        console.result({"generations": []})
        return DONE
    if len(targets) > 1 and args.out is not None:
        _check_folder(args.out)
    check_output(args.out)
    with connect(ledger) as client:
        dead = _not_found(client, ledger, targets, console)
        if len(words) > 1 or words == ["all"]:
            return _wait_for_several(client, ledger, targets, dead, args, console)
        only = targets[0]
        if only in dead:
            raise dead[only]
        made = _finish(client, ledger, only, args.timeout, args, console)
        console.result(made)
    return DONE


def _finish(
    client: KlingClient,
    ledger: Ledger | None,
    generation_id: str,
    timeout: float,
    args: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    """To the end of one generation, its file held meanwhile; the manifest."""
    with reserved(
        ledger,
        None if args.no_download else args.out,
        generation_id,
        generation_id=generation_id,
        overwrite=args.overwrite,
    ):
        return finish(
            client,
            ledger,
            generation_id,
            console,
            timeout=timeout,
            download=not args.no_download,
            output=args.out,
            overwrite=args.overwrite,
        )


def _targets(words: list[str], ledger: Ledger | None) -> list[str]:
    """The generation ids that the words mean, each once, the oldest of ``all`` first."""
    base_url = settings.base_url()
    ids: list[str] = []
    for word in words:
        if word != "all":
            ids.append(find(word, ledger, base_url)[0])
        elif ledger is None:
            raise UsageError("What is running is unknown without the ledger: give ids.")
        else:
            ids += [entry.generation_id or "" for entry in reversed(ledger.running(base_url))]
    return list(dict.fromkeys(ids))


def _not_found(
    client: KlingClient, ledger: Ledger | None, targets: list[str], console: Console
) -> dict[str, GenerationNotFoundError]:
    """Those that the gateway does not know any more, by one look at all that are old.

    A wait gives a new generation some time to become known, one after another: an old one needs
    none.
    """
    old = []
    for generation_id in targets:
        entry = ledger.entry(client.endpoint.base_url, generation_id) if ledger else None
        known_for = entry.age * client.clock.speed if entry else 0.0
        if entry and entry.state is not State.COMPLETED and known_for > Patience().not_found:
            old.append(entry)

    def look(entry: Entry) -> GenerationNotFoundError | None:
        try:
            client.get(entry.generation_id or "")
        except GenerationNotFoundError:
            return _dead(entry, console)
        except KlingError:  # the wait will see
            pass
        return None

    if not old:
        return {}
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
        found = list(pool.map(look, old))
    return {error.generation_id or "": error for error in found if error}


def _dead(entry: Entry, console: Console) -> GenerationNotFoundError:
    generation_id = entry.generation_id or ""
    forget = command_line(console.program, "forget", generation_id)
    return GenerationNotFoundError(
        f"The gateway knows no generation {generation_id} (submitted {ago(entry.age)} ago): it is "
        "not waited for. Is the key of the account that paid for it in use?",
        generation_id=generation_id,
        hint=f"To hear no more of it: {forget}",
    )


def _check_folder(output: str) -> None:
    if not (output.endswith(SEPARATORS) or path_of(output).is_dir()):
        raise UsageError(
            "For several videos --out takes a folder; one that does not exist yet ends in /."
        )


def _wait_for_several(
    client: KlingClient,
    ledger: Ledger | None,
    targets: list[str],
    dead: Mapping[str, GenerationNotFoundError],
    args: argparse.Namespace,
    console: Console,
) -> int:
    """One after another: all run at the gateway meanwhile, so the last one sets the end anyway."""
    deadline = client.clock.now() + args.timeout
    results: list[dict[str, Any]] = []
    code = DONE
    for number, generation_id in enumerate(targets, 1):
        if len(targets) > 1:
            console.note(f"{number} of {len(targets)}: {generation_id}")
        try:
            if generation_id in dead:
                raise dead[generation_id]
            left = max(0.0, deadline - client.clock.now())
            made = _finish(client, ledger, generation_id, left, args, console)
            results.append(made)
        except KlingError as error:  # one that fails must not keep the others
            console.note(describe(error, console.hint))
            results.append(failure(error, console.hint))
            code = code or exit_code(error)
        except StoppedWaiting:
            if number < len(targets):
                console.note(
                    f"The others go on as well. All of them: {console.command('wait all')}"
                )
            raise
    console.result({"generations": results})
    return code


def _run_download(args: argparse.Namespace, console: Console) -> int:
    check_output(args.out)
    generation, saved, entry = local_video(
        args.id, console, output=args.out, answer=True, overwrite=args.overwrite
    )
    console.result(
        manifest(
            generation,
            base_url=settings.base_url(),
            model=entry.record.model if entry else None,
            saved=saved,
        )
    )
    return DONE
