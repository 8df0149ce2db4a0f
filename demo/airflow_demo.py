"""A real Airflow on this machine, for the demo and for the tests.

Scheduler, DAG processor, triggerer and API server as processes of their own on SQLite, in a home
of their own. Only processes that were started here are ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import requests

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = {
    "api-server": ["api-server", "--workers", "1"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
T = TypeVar("T")


class LocalAirflow:
    """An Airflow between ``start`` and ``stop`` (or ``with``), spoken to by its REST API.

    ``settings`` are further environment variables (``AIRFLOW__…``, connections), ``components``
    the processes: a name and the arguments of the ``airflow`` command each.
    """

    def __init__(
        self,
        dags: Path,
        home: Path | None = None,
        settings: Mapping[str, str] | None = None,
        components: Mapping[str, list[str]] = COMPONENTS,
    ) -> None:
        self.components = dict(components)
        self._temporary = None if home else tempfile.mkdtemp(prefix="kling-airflow-")
        self.home = Path(home or self._temporary or "")
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy leads to this very machine
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW_", "AIRFLOW__"))
        }
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            **inherited,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            # Airflow 3.0 signs with none by default, which newer versions of PyJWT refuse.
            "AIRFLOW__API_AUTH__JWT_ISSUER": "kling-demo",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__ENABLE_TRACEMALLOC": "False",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "4",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **(settings or {}),
        }

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> Self:
        """All components, once the database is there. Raises RuntimeError with what they said."""
        self.home.mkdir(parents=True, exist_ok=True)
        migrated = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        if migrated.returncode:
            raise RuntimeError(f"Airflow's database was not made:\n{migrated.stderr[-3000:]}")
        for name in self.components:
            self.run(name)
        try:
            self.until(self._healthy, 180, "Airflow to be healthy")
        except (TimeoutError, RuntimeError) as error:
            tails = "\n".join(f"--- {name}\n{self.said(name)[-1500:]}" for name in self.components)
            self.stop()
            raise RuntimeError(f"Airflow did not start: {error}\n{tails}") from None
        except BaseException:
            self.stop()
            raise
        return self

    def run(self, component: str) -> None:
        with (self.home / f"{component}.log").open("ab") as log:
            self.processes[component] = subprocess.Popen(  # noqa: S603 (words from above)
                [sys.executable, "-m", "airflow", *self.components[component]],
                env=self.environment,
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, to be ended as one
            )

    def end(self, component: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends a component and the processes that it started; SIGKILL when it takes too long."""
        process = self.processes.pop(component, None)
        if process is None:
            return
        _signal_group(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait(15)

    def stop(self) -> None:
        for process in self.processes.values():
            _signal_group(process.pid, signal.SIGTERM)
        for component in list(self.processes):
            self.end(component)
        self._session.close()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def said(self, component: str) -> str:
        return (self.home / f"{component}.log").read_text("utf-8", "replace")

    def _healthy(self) -> bool:
        health = self.get("/api/v2/monitor/health", login=False)
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all(health.get(part, {}).get("status") == "healthy" for part in parts)

    # --- the REST API --------------------------------------------------------------------------

    def call(self, method: str, path: str, login: bool = True, **more: Any) -> Any:
        if login and "Authorization" not in self._session.headers:
            token = self._session.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"
        reply = self._session.request(method, self.url + path, timeout=60, **more)
        if not reply.ok:
            raise RuntimeError(f"{method} {path}: {reply.status_code} {reply.text[:500]}")
        return reply.json() if reply.content else None

    def get(self, path: str, login: bool = True, **more: Any) -> Any:
        return self.call("GET", path, login, **more)

    def call_text(self, path: str, params: Mapping[str, Any]) -> str:
        """A page as its text."""
        self.get("/api/v2/version")  # logs in
        reply = self._session.get(self.url + path, params=params, timeout=60)
        reply.raise_for_status()
        return reply.text

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Starts a run once the DAG is there; returns the run's id."""
        self.until(lambda: self._knows(dag_id), 60, f"the DAG {dag_id}")
        run = self.call(
            "POST",
            f"/api/v2/dags/{dag_id}/dagRuns",
            json={"logical_date": None, "conf": dict(conf or {})},
        )
        return str(run["dag_run_id"])

    def _knows(self, dag_id: str) -> bool:
        dags = self.get("/api/v2/dags", params={"limit": 100})["dags"]
        return any(dag["dag_id"] == dag_id for dag in dags)

    def run_path(self, dag_id: str, run_id: str) -> str:
        return f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        path = f"{self.run_path(dag_id, run_id)}/taskInstances"
        found: list[dict[str, Any]] = self.get(path, params={"limit": 200})["task_instances"]
        return found

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self.get(self.run_path(dag_id, run_id))["state"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        path = f"{self.run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        value = self.get(path, params={"deserialize": "false"})["value"]
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            return value

    def clear(self, dag_id: str, run_id: str, *task_ids: str, **options: Any) -> None:
        """Tasks of a run; ``options`` are further fields of the API's request."""
        self.call(
            "POST",
            f"/api/v2/dags/{dag_id}/clearTaskInstances",
            json={
                "dry_run": False,
                "dag_run_id": run_id,
                "task_ids": list(task_ids),
                "only_failed": False,
                "reset_dag_runs": True,
                **options,
            },
        )

    def clear_run(self, dag_id: str, run_id: str) -> None:
        options = {"dry_run": False, "only_failed": False}
        self.call("POST", f"{self.run_path(dag_id, run_id)}/clear", json=options)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        path = f"{self.run_path(dag_id, run_id)}/taskInstances/{task_id}"
        self.call("PATCH", path, json={"new_state": state})

    def until(self, condition: Callable[[], T], seconds: float, what: str) -> T:
        """What ``condition`` gives once that is true; asked twice a second."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if result := condition():
                    return result
            except (requests.ConnectionError, requests.Timeout, ValueError):
                pass
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended by itself:\n{self.said(name)[-3000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for {what}")
            time.sleep(0.5)

    def finished(self, dag_id: str, run_id: str, seconds: float = 120) -> str:
        """The final state of a run."""
        done = ("success", "failed")

        def state() -> str:
            now = self.run_state(dag_id, run_id)
            return now if now in done else ""

        return self.until(state, seconds, f"{dag_id} to end")


def run_quick_start(base_url: str, output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Runs the quick-start DAG, deferred, against a gateway; returns the task's manifest.

    ``base_url`` is the sandbox's, or the gateway's with ``AIML_API_KEY`` set. Raises RuntimeError
    when the run fails.
    """
    key = os.environ.get("AIML_API_KEY") or "sandbox"
    connection = {"conn_type": "kling", "password": key, "host": base_url}
    settings = {
        "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
        "KLING_DEMO_OUTPUT": str(Path(output_dir).absolute()),
    }
    dag_id, task_id = "kling_quick_start", "make_video"
    with LocalAirflow(ROOT / "dags_examples", settings=settings) as airflow:
        run_id = airflow.trigger(dag_id)
        if airflow.finished(dag_id, run_id, 1200) != "success":
            logs = "\n".join(_logs(airflow.home))
            raise RuntimeError(f"The quick start failed:\n{logs[-4000:]}")
        made: dict[str, Any] = airflow.xcom(dag_id, run_id, task_id)
        return made


def _logs(home: Path) -> list[str]:
    files = sorted((home / "logs").glob("dag_id=*/**/*.log"), key=lambda file: file.stat().st_mtime)
    return [file.read_text("utf-8", "replace") for file in files]


def _signal_group(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, how)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
