"""The sandbox as a command that runs until Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, TextIO

from .faults import KINDS
from .server import Sandbox

DEFAULT_PORT = 8765


def banner(sandbox: Sandbox) -> str:
    """The opening lines: that nothing here is real, and how to use it."""
    bar = "=" * 72
    return "\n".join(
        [
            bar,
            "  SANDBOX   not the real gateway: no key, no money, made-up videos.",
            "            Nothing leaves this machine.",
            bar,
            f"  base URL  {sandbox.base_url}",
            f"  speed     {sandbox.speed:g} gateway seconds per second",
            "",
            "  In another shell:",
            *(f"    export {name}={value}" for name, value in sandbox.environment.items()),
            "",
            f"  Records: {sandbox.base_url}/_jobs      Stop: Ctrl-C",
            bar,
        ]
    )


def fault_help() -> str:
    """One line per fault, for the command's help."""
    lines = []
    for name, kind in KINDS.items():
        options = ", ".join(f"{key}={value}" for key, value in kind.options.items())
        lines.append(f"  {name:<13} {kind.effect}{f'  [{options}]' if options else ''}")
    return "\n".join(lines)


def serve(
    port: int = DEFAULT_PORT,
    speed: float = 60.0,
    faults: Iterable[str] = (),
    out: TextIO | None = None,
    **options: Any,
) -> None:
    """Run a sandbox until Ctrl-C or SIGTERM, with a log of its requests on `out` (stdout).

    `options` are those of `Sandbox`. Raises OSError when the port is taken and ValueError for a
    fault that does not exist.
    """
    stream = out or sys.stdout

    def write(text: str) -> None:
        stream.write(text + "\n")
        stream.flush()

    def log(text: str) -> None:
        write(f"{time.strftime('%H:%M:%S')}  {text}")

    stopped = threading.Event()
    previous: Any = None
    if threading.current_thread() is threading.main_thread():
        previous = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        with Sandbox(speed, port, faults=faults, log=log, **options) as sandbox:
            write(banner(sandbox))
            with contextlib.suppress(KeyboardInterrupt):
                stopped.wait()
            write(
                f"\nSandbox closed: {len(sandbox.posts)} submits, {sandbox.paid} generations, "
                f"{sandbox.requests['poll']} polls, {sandbox.requests['download']} downloads."
            )
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
