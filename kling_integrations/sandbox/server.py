"""The sandbox's server: one aiohttp application in a thread and event loop of its own."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from ..core.generation import printable
from .access import own_callers_only
from .faults import ArmedFaults, Fault
from .jobs import GatewayClock, Post, Records, SandboxJob
from .payloads import ERAS, FAILURES, Era
from .responses import error_response
from .routes.account import Account
from .routes.cdn import Cdn
from .routes.control import Control, snapshot
from .routes.generations import Generations
from .routes.models import Models
from .state import Fail, Options, SandboxState, Seconds
from .video.cache import VideoFiles

HOST = "127.0.0.1"
MAX_LOG_LINE = 500  # characters
T = TypeVar("T")


class Sandbox:
    """The gateway on loopback, from `start()` (or ``with``) to `stop()`.

    speed
        Gateway seconds per real second, for the life of jobs; at most 4 decimals. It is part of
        the base URL, by which clients scale their waiting. Delays of faults are real seconds.
    port
        0 takes a free one.
    seed
        Makes ids and durations repeatable; None: new ones each time.
    seconds
        Gateway seconds of a job: a number (``math.inf``: until `finish()`), or a function of
        (model, payload). None: the documented time of the model, with a spread of some percent.
    fail
        How jobs fail: a key of `FAILURES`, or a function of (model, payload) that returns one or
        None. A job whose prompt contains ``[fail:moderation]`` fails so in any case.
    faults
        `Fault` objects or their words, such as ``"poll:503:2"``; see `faults.KINDS`.
    size, fps
        The frame size of a 16:9 video and its frame rate; small ones are encoded in no time.
    era
        A key of `ERAS` or an `Era`: the shape of all payloads. None: by the model's family.
    cdn_host
        The host name in video URLs; "localhost" makes the CDN another host than the gateway.
    logs_show_running
        Whether `/v2/logs` lists jobs that have not ended; the documents suggest that it does not.
    unknown_models
        Accept models that the catalogue does not know (else 404).
    balance
        Sandbox dollars at the start; a submit that costs more than is left gets 403.
    max_body
        Bytes of a request's body; more get 413.
    log
        Called with one line of printable text for each event.

    Keys: any word is accepted, but one that contains "bad" gets 401, and one that contains
    "broke" 403 at a submit.
    """

    def __init__(
        self,
        speed: float = 60.0,
        port: int = 0,
        *,
        seed: int | None = None,
        seconds: Seconds = None,
        fail: Fail = None,
        faults: Iterable[Fault | str] = (),
        size: tuple[int, int] = (640, 360),
        fps: int = 24,
        era: Era | str | None = None,
        cdn_host: str = HOST,
        logs_show_running: bool = False,
        unknown_models: bool = False,
        balance: float = 1_000_000.0,
        max_body: int = 100 * 2**20,
        log: Callable[[str], None] | None = None,
    ) -> None:
        if not 0.0001 <= speed <= 1e9:
            raise ValueError(f"speed is between 0.0001 and a billion, not {speed}")
        if isinstance(fail, str):
            _check_failure(fail)
        self.speed = round(float(speed), 4)
        self.port = port
        self.clock = GatewayClock(self.speed)
        self._wanted_port = port
        self._records = Records()
        rng = random.Random(seed)
        self._faults = ArmedFaults(rng)
        for fault in faults:
            self._faults.arm(fault if isinstance(fault, Fault) else Fault.parse(fault))
        # What a request names must not steer the terminal that shows the log.
        show = (lambda text: log(printable(text)[:MAX_LOG_LINE])) if log else (lambda _: None)
        self._videos = VideoFiles(size, fps, show)
        self._state = SandboxState(
            Options(seconds, fail, _find_era(era), logs_show_running, unknown_models, balance),
            self.clock,
            self._records,
            self._faults,
            self._videos,
            rng,
            show,
        )
        self._cdn_host = cdn_host
        self._max_body = max_body
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None  # holds the port while paused

    # --- start and stop ------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen. Raises OSError when the port is taken."""
        if self._thread is not None:
            raise RuntimeError("this sandbox has been started before")
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()

        def run(loop: asyncio.AbstractEventLoop) -> None:
            asyncio.set_event_loop(loop)
            loop.call_soon(ready.set)
            loop.run_forever()
            loop.close()

        self._thread = threading.Thread(
            target=run, args=(self._loop,), name="kling-sandbox", daemon=True
        )
        self._thread.start()
        ready.wait()
        try:
            self._call(self._open())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Close everything; the records stay readable. Harmless when already stopped."""
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            return
        self._videos.close()
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def pause(self) -> None:
        """Refuse connections and break the open ones, as when the gateway is down.

        The port stays reserved, so that no other process answers on it meanwhile.
        """
        self._call(self._stop_listening())

    def resume(self) -> None:
        """Listen again, on the same port."""
        self._call(self._listen())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None, "the sandbox is not started"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        sock = _bound_socket(self._wanted_port)
        self._reserved = sock
        self.port = sock.getsockname()[1]
        self._state.base_url = self.base_url
        self._state.cdn_origin = f"http://{self._cdn_host}:{self.port}"
        prefix = f"/sandbox/x{self._speed_text}"
        application = web.Application(
            client_max_size=self._max_body,
            middlewares=[own_callers_only(self._cdn_host, self._records)],
        )
        for group in (Generations, Account, Models, Control):
            application.add_routes(group(self._state).routes(prefix))
        application.add_routes(Cdn(self._state).routes())
        application.add_routes([web.route("*", "/{rest:.*}", self._not_found)])
        # Handlers end with their client: a hanging reply must not outlive it.
        self._runner = web.AppRunner(
            application, handler_cancellation=True, access_log=None, keepalive_timeout=75
        )
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        assert self._runner is not None
        assert self._loop is not None
        if self._server is not None:
            return
        make = self._runner.server
        assert make is not None

        def connection() -> asyncio.Protocol:
            with self._records.changed:
                self._records.connections += 1
                self._records.changed.notify_all()
            return make()

        sock = self._reserved or _bound_socket(self.port)
        self._reserved = None
        self._server = await self._loop.create_server(connection, sock=sock, backlog=1024)

    async def _stop_listening(self) -> None:
        assert self._runner is not None
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in self._runner.server.connections if self._runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)  # let the loop close the sockets before the port is bound anew
        self._reserved = _bound_socket(self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if self._runner is not None:
            for connection in self._runner.server.connections if self._runner.server else ():
                connection.force_close()
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()

    async def _not_found(self, request: web.Request) -> web.StreamResponse:
        self._records.count("other")
        hint = f"Cannot {request.method} {request.path}. The sandbox's base URL is {self.base_url}"
        return error_response(request, 404, hint)

    # --- addresses and records -----------------------------------------------------------------

    @property
    def _speed_text(self) -> str:
        return f"{self.speed:.4f}".rstrip("0").rstrip(".")

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT/sandbox/x60``: what AIML_BASE_URL is set to."""
        return f"{self.origin}/sandbox/x{self._speed_text}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point a process at this sandbox."""
        return {"AIML_BASE_URL": self.base_url, "AIML_API_KEY": "sandbox"}

    @property
    def posts(self) -> list[Post]:
        """Every submit that arrived, in order, accepted or not."""
        with self._records.changed:
            return list(self._records.posts)

    @property
    def jobs(self) -> dict[str, SandboxJob]:
        """Accepted generations by id; the jobs are live, the dictionary is a copy."""
        with self._records.changed:
            return dict(self._records.jobs)

    @property
    def paid(self) -> int:
        """How many generations were accepted: at the gateway, each of them costs money."""
        return len(self._records.jobs)

    @property
    def requests(self) -> Counter[str]:
        """Requests so far: submit, poll, download, billing, logs, models, elsewhere, other."""
        with self._records.changed:
            return Counter(self._records.requests)

    @property
    def connections(self) -> int:
        """Connections that were opened so far."""
        return self._records.connections

    @property
    def leaked_keys(self) -> int:
        """Requests that carried an API key to the CDN or to a redirect's target."""
        return self._records.leaked_keys

    @property
    def video_note(self) -> str | None:
        """Why the videos so far were a ready-made clip; None when they are encoded."""
        return self._videos.note

    def snapshot(self) -> dict[str, Any]:
        """The records as JSON, as ``GET {base_url}/_jobs`` returns them."""
        return snapshot(self._state)

    # --- control -------------------------------------------------------------------------------

    def fault(self, moment: str, kind: str, times: int | None = 1, **options: Any) -> Fault:
        """Arm a fault for the next `times` requests of that moment (None: for ever).

        `Fault.hits` counts the requests that it has struck. Kinds and options: `faults.KINDS`.
        Raises ValueError for an unknown moment, kind or option.
        """
        return self._faults.arm(Fault(moment, kind, times, options))

    def clear_faults(self) -> None:
        self._faults.clear()

    def finish(self, generation_id: str | None = None, fail: str | None = None) -> None:
        """End that job (or all that run) now, with success or with that failure."""
        if fail is not None:
            _check_failure(fail)
        with self._records.changed:
            now = self.clock.now()
            jobs = self._records.jobs
            for job in [jobs[generation_id]] if generation_id else list(jobs.values()):
                if job.end > now:
                    job.seconds = now - job.start
                    job.fail = fail if fail is not None else job.fail
            self._records.changed.notify_all()

    def wait_for(self, predicate: Callable[[Sandbox], T], timeout: float = 10.0) -> T:
        """Wait until `predicate(sandbox)` is true and return its result.

        It is called after every request, accepted job, connection and end of a job. `timeout` is
        in real seconds; raises TimeoutError.
        """
        deadline = time.monotonic() + timeout
        with self._records.changed:
            while not (result := predicate(self)):
                left = deadline - time.monotonic()
                if left <= 0 or not self._records.changed.wait(left):
                    if result := predicate(self):
                        return result
                    raise TimeoutError(f"not within {timeout:g} s; seen: {dict(self.requests)}")
            return result


def _check_failure(fail: str) -> None:
    if fail not in FAILURES:
        raise ValueError(f"unknown failure {fail!r}: one of {', '.join(FAILURES)}")


def _find_era(era: Era | str | None) -> Era | None:
    if not isinstance(era, str):
        return era
    if era not in ERAS:
        raise ValueError(f"unknown era {era!r}: one of {', '.join(ERAS)}")
    return ERAS[era]


def _bound_socket(port: int) -> socket.socket:
    """A socket that holds the port and does not listen yet: connections to it are refused."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
