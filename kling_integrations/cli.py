"""The shell's console for the commands: a live line on a terminal, plain lines elsewhere.

The answer goes to stdout (a path, an id, a table; with ``--json`` one JSON object), everything
else to stderr. A mistake of the user or of the gateway never shows a traceback.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from .commands import (
    Console,
    UsageError,
    clean,
    cut,
    exit_code,
    failure,
    parser,
    run,
    size,
)
from .core.errors import KlingError, KlingWarning, StoppedWaiting, describe
from .core.progress import Progress, clock_time

if TYPE_CHECKING:
    from .core.batch.tally import Tally
    from .core.http.base import OnUpdate
    from .core.settings import Clock

_BAR = 20  # columns
_FAST, _SLOW = 0.2, 1.0  # real seconds between two redraws


class Terminal(Console):
    """A console whose last line is redrawn while a command waits."""

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
        line = self._redrawing(lambda: f"submitting  {clock_time(time.monotonic() - began)}", _SLOW)
        with explaining_interrupts(self), line:
            yield

    @contextmanager
    def watching(self, clock: Clock) -> Iterator[OnUpdate]:
        last: tuple[Progress, float] | None = None
        furthest = 0.0

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
            nonlocal furthest
            if last is None or last[0].status.is_terminal:
                return ""
            now = last[0].after(clock.now() - last[1])
            # A queue that the first poll reveals must not turn the bar back.
            furthest = max(furthest, now.fraction)
            return self._line(replace(now, fraction=furthest))

        with self._redrawing(line, max(_FAST, clock.real(_SLOW))):
            yield update

    def _line(self, progress: Progress) -> str:
        """``generating  0:42 of about 2:50  █████░░░░  24%  id``; ``_draw`` cuts it to width."""
        done = min(_BAR, int(progress.fraction * _BAR))
        bar = self._full * done + self._empty * (_BAR - done)
        return (
            f"{progress.word:<10}  {progress.pace}  {bar} {progress.fraction:4.0%}  {progress.id}"
        )

    @contextmanager
    def counting(self) -> Iterator[Callable[[Tally], None]]:
        last: Tally | None = None

        def line() -> str:
            if last is None:
                return ""
            done = int(last.fraction * _BAR)
            return f"{self._full * done}{self._empty * (_BAR - done)}  {last.line()}"

        def update(tally: Tally) -> None:
            nonlocal last
            last = tally
            self.bad_rows(tally)

        with self._redrawing(line, _FAST):
            yield update

    def transfer(self, received: int, total: int | None) -> None:
        of_total = f" of {size(total)}" if total else ""
        with self._lock:
            self._live = lambda: f"saving  {size(received)}{of_total}"
            self._erase()
            self._draw()
            self._live = None  # the next note erases it

    @contextmanager
    def _redrawing(self, line: Callable[[], str], interval: float) -> Iterator[None]:
        """Draws ``line()`` anew every ``interval`` real seconds, and erases it at the end."""
        over = threading.Event()

        def redraw() -> None:
            while not over.wait(interval):
                with self._lock:
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
            with self._lock:
                self._live = None
                self._erase()

    def _draw(self) -> None:
        text = clean(self._live()) if self._live else ""
        if text:
            self._put(cut(text, shutil.get_terminal_size().columns - 1))
            self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            self._put("\r\x1b[K")
            self._drawn = False

    def _put(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a closed terminal ends no wait
            self.err.write(text)
            self.err.flush()


class Lines(Console):
    """Plain lines, for pipes, files and logs."""

    def submitting(self) -> AbstractContextManager[None]:
        return explaining_interrupts(self)


@contextmanager
def explaining_interrupts(console: Console) -> Iterator[None]:
    """While a POST is under way, Ctrl-C first waits for its reply: a note tells the user so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    from .core.http.client import INTERRUPT_GRACE  # which a look at the history does not load

    def explain() -> None:
        console.note(
            f"\nInterrupted while submitting: waiting up to {INTERRUPT_GRACE:.0f} s for the reply, "
            "which holds the id. Ctrl-C again leaves at once."
        )

    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    # Most replies are quicker than this; and a handler must not write in the middle of a write.
    soon = threading.Timer(_FAST, explain)
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
    _repair_streams()
    console = console_for("--json" in before_dashes)
    with warnings.catch_warnings(), ended_by_signals() as received:
        warnings.simplefilter("always", KlingWarning)
        _show_warnings(console)
        try:
            _check_text(words)
            return run(parser(words=words).parse_args(words), console)
        except SystemExit as leaving:  # -h
            return int(leaving.code or 0)
        except BrokenPipeError as error:  # the reader of the output is gone
            return exit_code(error)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the end of the line)
            if debug:
                import traceback

                with suppress(OSError):
                    traceback.print_exc()
            code = exit_code(error)
            if isinstance(error, KeyboardInterrupt) and received:
                code = 128 + received[0]  # the code that shells use for it
                for number in received:  # a second one must not cut the answer short
                    signal.signal(number, signal.SIG_IGN)
            return _report(error, console, debug, code)
        finally:
            _settle_streams()


@contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP (its terminal was closed) end a command as Ctrl-C does.

    What runs is named, and nothing half-written stays. Gives the numbers of those that came.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {}
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            before[number] = signal.signal(number, end)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_text(words: Sequence[str]) -> None:
    """Raises UsageError for an argument that is no text: no record and no request can hold it."""
    for word in words:
        try:
            word.encode()
        except UnicodeError:
            shown = word.encode(errors="replace").decode()[:60]
            raise UsageError(f"{shown!r} is no UTF-8 text.") from None


def _settle_streams() -> None:
    """What cannot be written at the end is dropped: Python would make an exit code of it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _repair_streams() -> None:
    """Output that was closed by the caller (``>&-``) goes nowhere, any character can be written."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (until the end)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _report(error: BaseException, console: Console, debug: bool, code: int) -> int:
    """Shows what a command raised; returns the exit code."""
    running = f"What is running: {console.command('jobs')}"
    if isinstance(error, StoppedWaiting):
        console.note(f"\n{describe(error, console.hint)}")
    elif isinstance(error, KeyboardInterrupt):
        console.note(f"\nInterrupted. {running}")
    elif isinstance(error, KlingError | OSError):
        console.note(f"kling: {describe(error, console.hint)}")
    else:
        console.note(f"kling: an error in this program: {type(error).__name__}: {error}")
        if not debug:
            console.note(f"  With --debug it shows where. {running}")
    with suppress(OSError):
        console.result(failure(error, console.hint) | {"exit_code": code})
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
