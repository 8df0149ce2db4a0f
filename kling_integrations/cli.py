"""The shell's front of the commands: a live line on a terminal, plain lines elsewhere.

The answer goes to stdout (a path, an id, a table; with ``--json`` one JSON object), everything
else to stderr. Nobody sees a traceback for a mistake of their own or of the gateway.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from .commands import Console, exit_code, failure, parser, run
from .commands._console import clean, cut, size
from .commands._exit_codes import BROKEN_PIPE, DONE
from .core.errors import KlingError, KlingWarning, StoppedWaiting
from .core.http.client import INTERRUPT_GRACE
from .core.progress import Progress, clock_time

if TYPE_CHECKING:
    from .commands._console import OnUpdate
    from .core.settings import Clock

_BAR = 20  # columns
_OFTEN, _SELDOM = 0.2, 1.0  # seconds between two redraws


class Terminal(Console):
    """A console with one line at the bottom that is drawn anew while something is waited for."""

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool = False) -> None:
        super().__init__(out, err, as_json=as_json)
        self._lock = threading.RLock()
        self._live: Callable[[], str] | None = None
        self._drawn = False
        self._noted: set[str] = set()
        encoding = (getattr(err, "encoding", None) or "ascii").lower()
        self._full, self._empty = ("█", "░") if "utf" in encoding else ("#", "-")
        self.width = shutil.get_terminal_size().columns if out.isatty() else None

    def note(self, text: str) -> None:
        with self._lock:
            self._erase()
            super().note(text)
            self._draw()

    def say(self, text: str) -> None:
        with self._lock:
            self._erase()
            super().say(text)
            self._draw()

    @contextmanager
    def submitting(self) -> Iterator[None]:
        began = time.monotonic()
        line = self._living(lambda: f"submitting  {clock_time(time.monotonic() - began)}", _SELDOM)
        with told_about_interrupts(self), line:
            yield

    @contextmanager
    def watching(self, clock: Clock) -> Iterator[OnUpdate]:
        last: tuple[Progress, float] | None = None
        most = 0.0

        def update(progress: Progress) -> None:
            nonlocal last
            last = progress, clock.now()
            if progress.note and progress.note not in self._noted:
                self._noted.add(progress.note)
                self.note(progress.note)
            with self._lock:
                self._erase()
                self._draw()

        def line() -> str:
            nonlocal most
            if last is None or last[0].status.is_terminal:
                return ""
            now = last[0].after(clock.now() - last[1])
            # A time in the queue that only the first poll tells of must not turn the bar back.
            most = max(most, now.fraction)
            return self._line(replace(now, fraction=most))

        with self._living(line, max(_OFTEN, clock.real(_SELDOM))):
            yield update

    def _line(self, progress: Progress) -> str:
        """``generating  0:42 of about 2:50  █████░░░░  24 %  id``, in the width that there is."""
        done = min(_BAR, int(progress.fraction * _BAR))
        bar = self._full * done + self._empty * (_BAR - done)
        return (
            f"{progress.word:<10}  {progress.pace}  {bar} {progress.fraction:4.0%}  {progress.id}"
        )

    def transfer(self, received: int, total: int | None) -> None:
        of = f" of {size(total)}" if total else ""
        with self._lock:
            self._live = lambda: f"saving  {size(received)}{of}"
            self._erase()
            self._draw()
            self._live = None  # the next words erase it

    @contextmanager
    def _living(self, line: Callable[[], str], interval: float) -> Iterator[None]:
        over = threading.Event()

        def redraw() -> None:
            while not over.wait(interval):
                with self._lock, suppress(OSError, ValueError):
                    if not over.is_set():
                        self._erase()
                        self._draw()

        with self._lock:
            self._live = line
            self._draw()
        thread = threading.Thread(target=redraw, name="kling-line", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            with self._lock, suppress(OSError, ValueError):
                self._live = None
                self._erase()

    def _draw(self) -> None:
        text = clean(self._live()) if self._live else ""
        if text:
            self.err.write(cut(text, shutil.get_terminal_size().columns - 1))
            self.err.flush()
            self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            self.err.write("\r\x1b[K")
            self.err.flush()
            self._drawn = False


class Lines(Console):
    """Plain lines, for pipes, files and logs."""

    def submitting(self) -> AbstractContextManager[None]:
        return told_about_interrupts(self)


@contextmanager
def told_about_interrupts(console: Console) -> Iterator[None]:
    """While a POST is under way, Ctrl-C first waits for its reply: who presses it should know."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def tell() -> None:
        console.note(
            f"\nInterrupted while submitting: waiting up to {INTERRUPT_GRACE:.0f} s for the reply, "
            "which holds the id. Ctrl-C again leaves at once."
        )

    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    # Most replies are quicker than this; and a handler must not write in the middle of a write.
    soon = threading.Timer(_OFTEN, tell)
    soon.daemon = True

    def interrupted(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        soon.start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        soon.cancel()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    before_dashes = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in before_dashes
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller (>&-)
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (until the end)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    console = console_for("--json" in before_dashes)
    with warnings.catch_warnings():
        warnings.simplefilter("always", KlingWarning)
        _show_warnings(console)
        try:
            return run(parser().parse_args(words), console)
        except SystemExit as leaving:  # -h
            return leaving.code if isinstance(leaving.code, int) else DONE
        except BrokenPipeError:
            # Whoever read our output has seen enough. Python would complain about it at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the end of the line)
            if debug:
                traceback.print_exc()
            return _tell(error, console, debug)


def _tell(error: BaseException, console: Console, debug: bool) -> int:
    code = exit_code(error)
    if isinstance(error, StoppedWaiting):
        console.note(f"\n{error}")
    elif isinstance(error, KeyboardInterrupt):
        console.note("\nInterrupted. What is running: kling jobs")
    elif isinstance(error, KlingError | OSError):
        console.note(f"kling: {error}")
    else:
        console.note(f"kling: a mistake in this program: {type(error).__name__}: {error}")
        if not debug:
            console.note("  With --debug it shows where. What is running: kling jobs")
    with suppress(BrokenPipeError):
        console.result(failure(error))
    return code


def _show_warnings(console: Console) -> None:
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, KlingWarning):
            console.note(f"Note: {message}")
        else:
            usual(message, category, *where)

    warnings.showwarning = show  # type: ignore[assignment]


def console_for(as_json: bool) -> Console:
    """A live line where there is a terminal to draw it on."""
    live = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return (Terminal if live else Lines)(sys.stdout, sys.stderr, as_json=as_json)
