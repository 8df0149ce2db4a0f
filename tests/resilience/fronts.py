"""One face for every front door: make a video, save it, say how that ended."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kling_integrations import (
    AsyncKlingClient,
    DownloadError,
    GenerationFailedError,
    GenerationNotFoundError,
    KlingClient,
    KlingError,
    Ledger,
    SubmissionUncertainError,
    VideoRequest,
    WaitTimeoutError,
)
from kling_integrations.core.errors import (
    AuthenticationError,
    InsufficientCreditsError,
    InvalidRequestError,
    RateLimitedError,
    ServerError,
)
from kling_integrations.sandbox import Sandbox

KEY = "sandbox-k3y-that-nobody-may-see"  # one of the words that are sent to a sandbox
MODEL = "klingai/v2.5-turbo/pro/text-to-video"

DONE = "done"
VERDICTS: dict[type[BaseException], str] = {
    SubmissionUncertainError: "uncertain",
    InvalidRequestError: "refused",
    AuthenticationError: "refused",
    InsufficientCreditsError: "refused",
    GenerationNotFoundError: "not found",
    GenerationFailedError: "failed",
    WaitTimeoutError: "timeout",
    DownloadError: "not saved",
    RateLimitedError: "trouble",
    ServerError: "trouble",
}
EXIT_CODES = {
    DONE: 0,
    "failed": 1,
    "refused": 2,
    "timeout": 3,
    "not found": 4,
    "not saved": 4,
    "trouble": 4,
    "uncertain": 5,
}


@dataclass
class Ending:
    """How one call ended. ``told`` is everything that it showed, wrote to a log or returned."""

    verdict: str
    told: str = ""
    ids: tuple[str, ...] = ()  # generation id and client request id that the user was given


@dataclass
class Wish:
    """One video that somebody wants, and the world in which they ask for it."""

    sandbox: Sandbox
    home: Path  # KLING_HOME
    target: Path
    prompt: str
    timeout: float = 3600.0  # gateway seconds
    submitted: str = ""  # a generation that something else submitted (for the sensor)

    @property
    def request(self) -> VideoRequest:
        return VideoRequest(model=MODEL, prompt=self.prompt)


def verdict_of(error: BaseException) -> str:
    """The word for an error; a class that nobody expects is spelled out."""
    words = (VERDICTS[kind] for kind in type(error).__mro__ if kind in VERDICTS)
    return next(words, f"{type(error).__name__}: {error}"[:200])


def ended(error: BaseException) -> Ending:
    named = (getattr(error, "generation_id", None), getattr(error, "client_request_id", None))
    shown = str(error) + "".join(traceback.format_exception(error, chain=True))
    # What a traceback shows of our own frames is their source; of the exceptions, their words.
    return Ending(verdict_of(error), shown, tuple(filter(None, named)))


class Front:
    """A front door; made anew for each cell of the matrix, so that it may remember its session."""

    name = ""
    submits = True

    def __init__(self, wish: Wish) -> None:
        self.wish = wish

    def call(self) -> Ending:
        """What a user does to get the video; the same again is what they do after a failure."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class Sync(Front):
    name = "sync"

    def call(self) -> Ending:
        wish = self.wish
        try:
            with KlingClient(KEY, wish.sandbox.base_url, ledger=Ledger()) as client:
                done = client.generate(wish.request, timeout=wish.timeout)
                saved = client.save(done, wish.target)
        except KlingError as error:
            return ended(error)
        return Ending(DONE, f"{done!r} {saved!r}", (done.id,))


class Async(Front):
    name = "async"

    def call(self) -> Ending:
        wish = self.wish

        async def work() -> Ending:
            async with AsyncKlingClient(KEY, wish.sandbox.base_url, ledger=Ledger()) as client:
                done = await client.generate(wish.request, timeout=wish.timeout)
                saved = await client.save(done, wish.target)
                return Ending(DONE, f"{done!r} {saved!r}", (done.id,))

        try:
            return asyncio.run(work())
        except KlingError as error:
            return ended(error)


class Shell(Front):
    name = "shell"

    def call(self) -> Ending:
        from kling_integrations import cli

        wish = self.wish
        words = ["generate", "--json", "-m", MODEL, "--out", str(wish.target)]
        words += ["--timeout", f"{wish.timeout:g}", wish.prompt]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(words)
        told = json.loads(out.getvalue())
        verdict = DONE
        if error := told.get("error"):
            kinds = {kind.__name__: word for kind, word in VERDICTS.items()}
            kinds["LinkExpiredError"] = kinds["DownloadError"]
            verdict = kinds.get(error["type"], f"{error['type']}: {error['message']}")
        if EXIT_CODES.get(verdict) != code:
            verdict += f" with exit code {code}"
        named = (told.get("generation_id"), told.get("client_request_id"))
        return Ending(verdict, out.getvalue() + err.getvalue(), tuple(filter(None, named)))


class Cell(Front):
    name = "cell"

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        self.shell = _ipython()
        self.shell.run_line_magic("load_ext", "kling_integrations")

    def call(self) -> Ending:
        wish = self.wish
        code = f"%%kling {MODEL} --timeout {wish.timeout:g} -f {wish.target}\n{wish.prompt}"
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            result = self.shell.run_cell(code)
        error = result.error_before_exec or result.error_in_exec
        if error is None:
            return Ending(DONE, out.getvalue(), tuple(self.wish.sandbox.jobs))
        ending = ended(error)
        told = out.getvalue() + "\n".join(getattr(error, "_render_traceback_", list)())
        return Ending(ending.verdict, told, ending.ids)

    def close(self) -> None:
        self.shell.run_line_magic("unload_ext", "kling_integrations")


def _ipython() -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    if not InteractiveShell.initialized():
        config = Config()
        config.HistoryManager.enabled = False
        return InteractiveShell.instance(config=config)
    return InteractiveShell.instance()


class _Airflow(Front):
    """An attempt of a task without a scheduler: context and task state store are stood in for."""

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        _airflow_home()
        connection = {"conn_type": "kling", "password": KEY, "host": wish.sandbox.base_url}
        os.environ["AIRFLOW_CONN_KLING_DEFAULT"] = json.dumps(connection)
        self.rows: dict[str, str] = {}
        self.xcom: dict[str, Any] = {}

    def close(self) -> None:
        os.environ.pop("AIRFLOW_CONN_KLING_DEFAULT", None)

    def make(self) -> Any:
        raise NotImplementedError

    def call(self) -> Ending:
        from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

        context = self._context()
        event: Any = None
        trigger = ""
        try:
            try:
                made = self.make().execute(context)
            except TaskDeferred as deferred:
                # Through JSON and a new instance, as between a worker and the triggerer.
                path, kwargs = deferred.trigger.serialize()
                trigger = json.dumps(kwargs)
                module, _, name = path.rpartition(".")
                waiting = getattr(import_module(module), name)(**json.loads(trigger))
                event = json.loads(json.dumps(asyncio.run(_first(waiting.run()))))
                made = self.make().resume_execution(deferred.method_name, {"event": event}, context)
        except AirflowException as error:
            cause = getattr(error, "error", None)
            ending = ended(cause if isinstance(cause, KlingError) else error)
            ids = {*ending.ids, *filter(None, [self.xcom.get("generation_id")])}
            return Ending(ending.verdict, f"{error} {self._kept(event, trigger)}", tuple(ids))
        return Ending(DONE, json.dumps(made) + self._kept(event, trigger), (made["generation_id"],))

    def _kept(self, event: Any, trigger: str) -> str:
        """All that Airflow stores in its database."""
        return json.dumps([self.xcom, self.rows, event, trigger])

    def _context(self) -> dict[str, Any]:
        ti = SimpleNamespace(
            dag_id="dag",
            run_id=str(self.wish.target),
            task_id="video",
            map_index=-1,
            max_tries=0,
            try_number=1,
            start_date=datetime.now(UTC),
            xcom_push=lambda key, value: self.xcom.update({key: json.loads(json.dumps(value))}),
            get_first_reschedule_date=lambda context: None,
        )
        rows = self.rows
        store = SimpleNamespace(
            get=lambda key, default=None: json.loads(rows[key]) if key in rows else default,
            set=lambda key, value, **_: rows.update({key: json.dumps(value)}),
        )
        return {"ti": ti, "outlet_events": {}, "task_state_store": store}


async def _first(events: Any) -> Any:
    async for event in events:
        return event.payload
    return None


class Operator(_Airflow):
    name = "operator"
    deferrable = False

    def make(self) -> Any:
        from kling_integrations.airflow import KlingVideoOperator

        return KlingVideoOperator(
            task_id="video",
            model=MODEL,
            prompt=self.wish.prompt,
            output_path=str(self.wish.target),
            timeout=self.wish.timeout,
            deferrable=self.deferrable,
        )


class Deferred(Operator):
    name = "trigger"
    deferrable = True


class Sensor(_Airflow):
    name = "sensor"
    submits = False

    def make(self) -> Any:
        from kling_integrations.airflow import KlingVideoSensor

        return KlingVideoSensor(
            task_id="wait",
            generation_id=self.wish.submitted,
            output_path=str(self.wish.target),
            timeout=self.wish.timeout / self.wish.sandbox.speed,  # of a poke: Airflow's own clock
            poke_interval=10,
            deferrable=False,
        )


_AIRFLOW: list[Any] = []


def _airflow_home() -> None:
    """Before the first import of airflow, which makes its home and reads its settings then."""
    if not _AIRFLOW and "AIRFLOW_HOME" not in os.environ:
        _AIRFLOW.append(tempfile.TemporaryDirectory(prefix="kling-hostile-airflow-"))
        os.environ["AIRFLOW_HOME"] = _AIRFLOW[0].name
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"


FRONTS: dict[str, type[Front]] = {
    front.name: front for front in (Sync, Async, Shell, Cell, Operator, Deferred, Sensor)
}


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Every log line of the process, at DEBUG, with its exception's text."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    root = logging.getLogger()
    handler, level = Keep(), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@dataclass
class Limits:
    """Timeouts of one exchange, shortened for faults that hang (real seconds)."""

    exchange: float = 20.0
    patience: float = 3000.0  # of a download, gateway seconds
    undo: list[Callable[[], None]] = field(default_factory=list)

    def __enter__(self) -> Limits:
        from kling_integrations.core.http import aiohttp_transport
        from kling_integrations.core.http import requests_transport as transport
        from kling_integrations.core.storage import download

        sync_exchange, async_exchange = transport.exchange, aiohttp_transport.exchange
        defaults = download.save.__kwdefaults__
        before = dict(defaults)

        def short(session: Any, call: Any, timeout: float, *before: Any) -> Any:
            return sync_exchange(session, call, min(timeout, self.exchange), *before)

        async def short_async(session: Any, call: Any, timeout: float, *before: Any) -> Any:
            return await async_exchange(session, call, min(timeout, self.exchange), *before)

        transport.exchange, aiohttp_transport.exchange = short, short_async
        defaults.update(timeout=self.exchange, patience=self.patience)

        def undo() -> None:
            transport.exchange, aiohttp_transport.exchange = sync_exchange, async_exchange
            defaults.update(before)

        self.undo.append(undo)
        return self

    def __exit__(self, *exc: object) -> None:
        for undo in self.undo:
            undo()


SECRETS = re.compile(rf"{re.escape(KEY)}|ksTime=[0-9a-f]|signature=[0-9a-f]{{6}}")
