"""Redis and PostgreSQL as processes of the tests, and Airflow on them: Celery, two triggerers."""

from __future__ import annotations

import getpass
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from demo.airflow_demo import COMPONENTS, LocalAirflow, _free_port  # noqa: E402
from kling_integrations.sandbox import Sandbox  # noqa: E402

WORKER = ["celery", "worker", "--concurrency", "2", "--skip-serve-logs"]
CLUSTER = {
    **{name: COMPONENTS[name] for name in ("api-server", "scheduler", "dag-processor")},
    "triggerer-1": COMPONENTS["triggerer"],
    "triggerer-2": COMPONENTS["triggerer"],
    "worker-1": [*WORKER, "-H", "worker-1@%h"],
    "worker-2": [*WORKER, "-H", "worker-2@%h"],
}


def _postgres_tools() -> Path | None:
    """The folder with the commands of a PostgreSQL server, newest first."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("initdb"):
        folders.append(Path(found).parent)
    needed = ("initdb", "postgres", "pg_isready", "createdb")
    return next((f for f in folders if all((f / name).exists() for name in needed)), None)


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    port = _free_port()
    folder = tmp_path_factory.mktemp("redis")
    process = subprocess.Popen(
        [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The user, host and name of a database of PostgreSQL."""
    tools = _postgres_tools()
    if tools is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path("/tmp") / f"kling-postgres-{os.getpid()}"
    folder.mkdir(mode=0o700)
    # PostgreSQL refuses to run as root; its package brings a user.
    root = os.geteuid() == 0
    user = "postgres" if root else getpass.getuser()
    prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if root else []
    if root:
        shutil.chown(folder, "postgres", "postgres")
    data, port = folder / "data", _free_port()
    where = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([*prefix, str(tools / "initdb"), "-D", str(data), "-A", "trust"], **where)
    process = subprocess.Popen(
        [
            *prefix,
            *(str(tools / "postgres"), "-D", str(data), "-p", str(port)),
            *("-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    at = ["-h", "127.0.0.1", "-p", str(port), "-U", user]
    try:
        deadline = time.monotonic() + 30
        ready = [str(tools / "pg_isready"), *at]
        while subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.2)
        subprocess.run([str(tools / "createdb"), *at, "airflow"], **where)
        yield f"{user}@127.0.0.1:{port}/airflow"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def gateway() -> Iterator[Sandbox]:
    with Sandbox(speed=20, seconds=math.inf, size=(160, 90), fps=4) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def airflow(
    gateway: Sandbox, out: Path, redis: str, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    for module, package in (
        ("airflow.providers.celery", "apache-airflow-providers-celery"),
        ("psycopg2", "psycopg2-binary"),
        ("redis", "redis"),
    ):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{package} is not installed")
    connection = {"conn_type": "kling", "password": "sandbox", "host": gateway.base_url}
    settings = {
        "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
        "KLING_E2E_OUT": str(out),
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": redis,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{database}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
        # A worker that was killed is missed after seconds, not after five minutes.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    }
    home = tmp_path_factory.mktemp("airflow")
    dags = ROOT / "tests" / "integration" / "airflow" / "dags"
    with LocalAirflow(dags, home=home, settings=settings, components=CLUSTER) as running:
        yield running
