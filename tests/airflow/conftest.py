"""One attempt of a task after the other, with the sandbox as the gateway and no Airflow running.

What surrounds an attempt (its context, the task state store, the trip of a trigger through JSON)
is stood in for; tests/integration/airflow runs the same through a real scheduler and triggerer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Before the first import of airflow, which makes its home and reads its settings then.
_home = tempfile.TemporaryDirectory(prefix="kling-airflow-unit-")
os.environ["AIRFLOW_HOME"] = _home.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"

from airflow.providers.common.compat.sdk import TaskDeferred  # noqa: E402

from kling_integrations import KlingClient, VideoRequest  # noqa: E402
from kling_integrations.airflow import KlingVideoOperator  # noqa: E402
from kling_integrations.sandbox import Sandbox  # noqa: E402

CONNECTION = "AIRFLOW_CONN_KLING_DEFAULT"
RACCOON = "A cheerful white raccoon"


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``connect(sandbox, key=…)`` sets the default connection."""

    def to(sandbox: Sandbox, key: str = "sandbox") -> None:
        connection = {"conn_type": "kling", "password": key, "host": sandbox.base_url}
        monkeypatch.setenv(CONNECTION, json.dumps(connection))

    return to


@pytest.fixture
def logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    """What was logged so far: newer Airflows log by structlog to the terminal, older ones not."""
    caplog.set_level(logging.DEBUG)
    lines: list[str] = []

    def all_of_it() -> str:
        lines.append("".join(capfd.readouterr()))
        return "".join(lines) or caplog.text

    return all_of_it


class Gateway(Sandbox):
    """A generation takes 60 of its seconds, a twentieth of one here, and ends well: as set."""

    seconds: float = 60
    fails: str | None = None

    def __init__(self, speed: float = 1200) -> None:
        super().__init__(
            speed=speed,
            seconds=lambda model, payload: self.seconds,
            fail=lambda model, payload: self.fails,
            size=(160, 90),
            fps=4,
            seed=1,
        )


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worker's own records, of each test alone."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("KLING_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What matters is that a failed write is repeated, not how long one waits between."""
    monkeypatch.setattr("kling_integrations.airflow.durable._PAUSES", (0.01, 0.02))


@pytest.fixture
def slower_sandbox(connect: Callable[..., None]) -> Iterator[Gateway]:
    """For what is looked up in the log over several attempts.

    A clock that runs 1200 times too fast is out of the log's window after a second of a busy test.
    """
    with Gateway(speed=300) as gateway:
        gateway.seconds = 15
        connect(gateway)
        yield gateway


@pytest.fixture
def sandbox(connect: Callable[..., None]) -> Iterator[Gateway]:
    with Gateway() as gateway:
        connect(gateway)
        yield gateway


class Store:
    """The task state store: JSON values by key."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.rows[key]) if key in self.rows else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.rows[key] = json.dumps(value)


class Events:
    """``outlet_events``: an accessor per outlet."""

    def __init__(self) -> None:
        self._of: dict[str, Any] = {}

    def __getitem__(self, outlet: Any) -> Any:
        added: list[Any] = []
        fresh = SimpleNamespace(
            extra={}, added=added, add=lambda asset, extra: added.append((asset, extra))
        )
        return self._of.setdefault(outlet.name, fresh)


_runs = itertools.count()


class Task:
    """The attempts of one task instance: ``make`` gives its operator anew each time."""

    def __init__(
        self,
        make: Callable[[], Any],
        store: Any = "new",
        retries: int = 0,
        *,
        run_id: str | None = None,
        map_index: int = -1,
        task_id: str = "video",
    ) -> None:
        self.make = make
        self.task_id = task_id
        self.store = Store() if store == "new" else store
        self.retries = self.max_tries = retries
        self.run_id = run_id or f"run-{next(_runs)}"
        self.map_index = map_index
        self.tries = 0
        self.id = ""
        self.xcom: dict[str, Any] = {}
        self.outlet_events = Events()
        self.trigger: Any = None
        self.dag_run = SimpleNamespace(run_after=datetime.now(UTC), clear_number=0)
        self.first_reschedule: datetime | None = None

    def context(self) -> dict[str, Any]:
        ti = SimpleNamespace(
            id=self.id,
            dag_id="dag",
            run_id=self.run_id,
            task_id=self.task_id,
            map_index=self.map_index,
            task=SimpleNamespace(retries=self.retries),
            max_tries=self.max_tries,
            try_number=self.tries,
            start_date=self.started,
            xcom_pull=lambda *, key, **which: self.xcom.get(key),
            xcom_push=lambda key, value: self.xcom.update({key: json.loads(json.dumps(value))}),
            get_first_reschedule_date=lambda context: self.first_reschedule,
        )
        context = {"ti": ti, "dag_run": self.dag_run, "outlet_events": self.outlet_events}
        if self.store is not None:
            context["task_state_store"] = self.store
        return context

    def start(self) -> Any:
        """An attempt up to its end or its deferral, which is returned then."""
        self.tries += 1
        self.id = uuid.uuid4().hex  # Airflow gives each try another one
        self.xcom.clear()  # as Airflow does at the start of an attempt
        self.started = datetime.now(UTC)
        try:
            return self.make().execute(self.context())
        except TaskDeferred as deferred:
            return self.deferred_again(deferred)

    def deferred_again(self, deferred: TaskDeferred) -> TaskDeferred:
        """The way to the triggerer: through JSON and a new instance."""
        self.deferred = deferred
        path, kwargs = deferred.trigger.serialize()
        module, _, name = path.rpartition(".")
        self.trigger = getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))
        return deferred

    def resume(self, event: Any = None) -> Any:
        """The triggerer's part (unless its ``event`` is given), then the worker's again."""
        event = event or asyncio.run(events_of(self.trigger))[0]
        self.event = json.loads(json.dumps(event))
        return self.make().resume_execution(
            self.deferred.method_name, {"event": self.event}, self.context()
        )

    def run(self) -> Any:
        """A whole attempt."""
        result = self.start()
        return self.resume() if isinstance(result, TaskDeferred) else result

    def clear(self, *, discards: bool = False) -> None:
        """As Airflow does when a user clears the task; from 3.4 on it ``discards`` the state."""
        self.max_tries = self.tries + self.retries
        self.dag_run.clear_number += 1
        if discards and self.store is not None:
            self.store.rows.clear()

    def lose_record(self) -> None:
        """All that was kept is gone: another worker's disk, a folder that renders differently."""
        if self.store is not None:
            self.store.rows.clear()
        shutil.rmtree(Path(self.make().output_path).parent / ".kling")


async def events_of(trigger: Any) -> list[Any]:
    return [event.payload async for event in trigger.run()]


@pytest.fixture
def task() -> Callable[..., Task]:
    return Task


@pytest.fixture(params=[False, True], ids=["worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def operator(tmp_path: Path, deferrable: bool) -> Any:
    """``operator(**changes)`` makes a maker of operators that save to ``tmp_path``."""

    def configure(**changes: Any) -> Any:
        options = {
            "task_id": "video",
            "prompt": RACCOON,
            "output_path": str(tmp_path / "video.mp4"),
            "deferrable": deferrable,
            **changes,
        }
        return lambda: KlingVideoOperator(**options)

    return configure


@pytest.fixture
def endless(sandbox: Gateway) -> None:
    """Before ``submitted``: it runs until ``sandbox.finish()``."""
    sandbox.seconds = 1e9


@pytest.fixture
def submitted(sandbox: Gateway) -> str:
    """The id of a generation that runs."""
    with KlingClient(api_key="sandbox", base_url=sandbox.base_url) as client:
        return client.submit(VideoRequest(prompt="A fox")).id
