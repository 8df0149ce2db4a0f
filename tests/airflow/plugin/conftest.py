"""Airflow's tables in memory, with runs that have made videos, and users who may see some of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from fastapi import HTTPException
from starlette.testclient import TestClient

from kling_integrations.airflow.version_compat import HAS_TABS

collect_ignore = [] if HAS_TABS else ["test_app.py", "test_tables.py"]

MP4 = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 40
NOW = datetime(2026, 11, 1, tzinfo=UTC)


class Database:
    """``add`` makes a task instance of a run, with its XComs and rendered fields."""

    def __init__(self) -> None:
        from airflow.models import import_all_models, xcom
        from airflow.models.dagrun import DagRun
        from airflow.models.renderedtifields import RenderedTaskInstanceFields
        from airflow.models.taskinstance import TaskInstance
        from sqlalchemy.orm import Session
        from sqlalchemy.pool import StaticPool

        import_all_models()
        self.engine = sa.create_engine(
            "sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool
        )
        # From 3.4 on XComs belong to an attempt, and XComModel is a view of them.
        values = getattr(xcom, "XComModelV2", xcom.XComModel)
        self.tables = [
            model.__table__ for model in (TaskInstance, values, RenderedTaskInstanceFields)
        ]
        TaskInstance.metadata.create_all(self.engine)
        for dag_id, run_id in (("films", "r1"), ("films", "r2"), ("dogs", "r1")):
            self.insert(
                DagRun.__table__,
                dag_id=dag_id,
                run_id=run_id,
                run_type="manual",
                run_after=NOW,
                state="running",
                span_status="not_started",
                log_template_id=None,
            )
        self.session_of = lambda: Session(self.engine)

    @contextmanager
    def session(self, scoped: bool = True) -> Iterator[Any]:
        with self.session_of() as session:
            yield session

    def insert(self, table: Any, **values: Any) -> None:
        known = {name: value for name, value in values.items() if name in table.c}
        with self.engine.begin() as connection:  # a column that this Airflow lacks is left out
            connection.execute(table.insert().values(**known))

    def add(
        self,
        task_id: str = "video",
        *,
        dag_id: str = "films",
        run_id: str = "r1",
        map_index: int = -1,
        state: str | None = "success",
        operator: str = "KlingVideoOperator",
        told: str | None = None,
        results: str | None = None,
        **xcoms: Any,
    ) -> None:
        instances, values, rendered = self.tables
        key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        attempt = uuid4()
        self.insert(
            instances,
            id=attempt,
            **key,
            region_index=map_index,
            state=state,
            try_number=1,
            operator=operator,
            pool="default_pool",
            pool_slots=1,
            span_status="not_started",
            start_date=NOW,
        )
        of_attempt = {"task_instance_id": attempt} if "task_instance_id" in values.c else {}
        for name, value in xcoms.items():
            self.insert(
                values,
                dag_run_id=hash((dag_id, run_id)) % 10**6,
                **key,
                **of_attempt,
                key=name,
                value=json.dumps(value),
                timestamp=NOW,
            )
        if told is not None:
            self.insert(
                rendered,
                **key,
                **of_attempt,
                rendered_fields={"output_path": told, "results_path": results},
            )


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    database = Database()
    monkeypatch.setattr("kling_integrations.airflow.plugin.app.create_session", database.session)
    return database


class Users:
    """Ada sees all DAGs, Bob sees ``dogs`` and of ``films`` no XComs, a third may see nothing."""

    async def get_user_from_token(self, token: str) -> Any:
        if token not in ("ada", "bob", "eve"):
            raise HTTPException(403, "Invalid token")
        return SimpleNamespace(name=token)

    def is_authorized_dag(
        self, *, method: str, user: Any, access_entity: Any, details: Any
    ) -> bool:
        assert method == "GET"
        if user.name == "bob":
            return details.id == "dogs" or access_entity.name != "XCOM"
        return bool(user.name == "ada")


@pytest.fixture
def browser(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TestClient]:
    """``browser(user)``: a browser with that user's session, or without one."""
    from airflow.api_fastapi.core_api import security
    from airflow.models.dag import DagModel

    monkeypatch.setattr(security, "get_auth_manager", Users)
    monkeypatch.setattr(DagModel, "get_team_name", lambda dag_id: None, raising=False)
    from kling_integrations.airflow.plugin.app import make_app

    def open_as(user: str | None = "ada") -> TestClient:
        headers = {"Authorization": f"Bearer {user}"} if user else {}
        return TestClient(make_app(), headers=headers)

    return open_as


@pytest.fixture
def saved(database: Database, tmp_path: Path) -> Callable[..., Path]:
    """``saved(**instance)``: a task instance whose video is on disk; returns the file."""

    def save(name: str = "a.mp4", **instance: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(MP4)
        made = {
            "generation_id": f"id-of-{name}",
            "status": "completed",
            "path": str(path),
            "size": len(MP4),
            "sha256": "ab" * 32,
            "prompt": "A fox <b>in</b> the snow",
            "model": "klingai/v2.5-turbo/pro/text-to-video",
            "parameters": {"duration": 5, "image": {"task_id": "draw", "path": "/pictures/a.png"}},
            "usd": 0.5,
            "elapsed_seconds": 105.0,
            "noticed_within_seconds": 4.0,
            "polls": 3,
        }
        database.add(**{"told": str(path), "return_value": made, **instance})
        return path

    return save
