"""One real Airflow (scheduler, DAG processor, triggerer, API server) for all of these tests."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from demo.airflow_demo import LocalAirflow  # noqa: E402
from kling_integrations.sandbox import Sandbox  # noqa: E402


@pytest.fixture(scope="session")
def gateway() -> Iterator[Sandbox]:
    """Generations run until the test ends them."""
    with Sandbox(speed=20, seconds=math.inf, size=(160, 90), fps=4) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def airflow(
    gateway: Sandbox, out: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    connection = {"conn_type": "kling", "password": "sandbox-secret-key", "host": gateway.base_url}
    settings = {
        "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
        "KLING_E2E_OUT": str(out),
        "KLING_HOME": str(tmp_path_factory.mktemp("home")),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        # Read where the OpenLineage provider is installed.
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {
                "type": "file",
                "log_file_path": str(tmp_path_factory.mktemp("lineage") / "event"),
                "append": False,
            }
        ),
    }
    home = tmp_path_factory.mktemp("airflow")
    with LocalAirflow(Path(__file__).parent / "dags", home=home, settings=settings) as running:
        yield running
