"""What Airflow's database holds of the tasks that make videos: one ``TaskVideo`` each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.providers.common.compat.sdk import conf
from sqlalchemy import exists, func, or_, select

from ...core.batch.results import Result
from .. import version_compat
from ..facts import FACTS_KEY, FAILURE_KEY
from ..get_provider_info import OPERATOR_NAMES
from ..review_record import REVIEW_KEY
from .ownership import is_allowed

PAGE = 50
_RESULT = "return_value"
_KEYS = (_RESULT, FACTS_KEY, FAILURE_KEY, REVIEW_KEY)


@dataclass(slots=True)
class TaskVideo:
    """One task instance. ``made`` is its manifest, ``facts`` what it had said before that."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    try_number: int
    operator: str | None
    label: str | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: Mapping[str, Any] = field(default_factory=dict)
    told: str | None = None
    results: str | None = None
    """Where a table's task was told to write its results."""

    @property
    def is_table(self) -> bool:
        return self.operator == "KlingBatchOperator"

    @property
    def table(self) -> str | None:
        """The JSON Lines beside the results of a table, when this page may open them."""
        if not self.results or not self.is_table:
            return None
        address = self.results.rpartition(".")[0] + ".jsonl"
        return address if is_allowed(address, address, video_roots()) else None

    def path_of(self, row: Result) -> str | None:
        """Where the video of a row is, when this page may open it."""
        folder = f"{self.told.rstrip('/')}/" if self.told else None
        path = row.path
        return path if path and folder and is_allowed(path, folder, video_roots()) else None

    @property
    def known(self) -> Mapping[str, Any]:
        return self.made or self.facts

    @property
    def path(self) -> str | None:
        """Where the video is, when this page may open it."""
        path = self.made.get("path")
        if isinstance(path, str) and is_allowed(path, self.told, video_roots()):
            return path
        return None

    @property
    def maker(self) -> tuple[str, int] | None:
        """Another task of this run that made the video, which this one only reviews."""
        made = self.made
        if (made.get("dag_id"), made.get("run_id")) != (self.dag_id, self.run_id):
            return None
        task_id, index = made.get("task_id"), made.get("map_index")
        if not isinstance(task_id, str) or not isinstance(index, int):
            return None
        return None if (task_id, index) == (self.task_id, self.map_index) else (task_id, index)

    @property
    def name(self) -> str:
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


def video_roots() -> list[str]:
    """Folders that bound what the tab opens; empty: wherever a task was told to save."""
    value = conf.get("kling", "video_roots", fallback="") or ""
    return [root.strip() for root in value.split(",") if root.strip()]


def one(session: Any, dag_id: str, run_id: str, task_id: str, map_index: int) -> TaskVideo | None:
    """The task instance; None where there is none."""
    query = _of(dag_id, run_id).where(
        TaskInstance.task_id == task_id, TaskInstance.map_index == map_index
    )
    found = _filled(
        session, session.scalars(query.order_by(TaskInstance.start_date.desc())).all()[:1]
    )
    return found[0] if found else None


def page(
    session: Any, dag_id: str, run_id: str, *, task_id: str | None = None, number: int = 0
) -> tuple[list[TaskVideo], int]:
    """A page of the run's videos (or of one mapped task's), and how many there are in all."""
    query = _of(dag_id, run_id)
    if task_id is not None:
        query = query.where(TaskInstance.task_id == task_id)
    ours = exists().where(
        XComModel.dag_id == TaskInstance.dag_id,
        XComModel.run_id == TaskInstance.run_id,
        XComModel.task_id == TaskInstance.task_id,
        XComModel.map_index == TaskInstance.map_index,
        XComModel.key.in_((FACTS_KEY, FAILURE_KEY)),
    )
    named = or_(
        TaskInstance.operator.in_(OPERATOR_NAMES),
        TaskInstance.custom_operator_name.in_(OPERATOR_NAMES),
    )
    query = query.where(or_(named, ours))
    total = session.scalar(select(func.count()).select_from(query.subquery()))
    ordered = (
        query.order_by(TaskInstance.task_id, TaskInstance.map_index)
        .offset(number * PAGE)
        .limit(PAGE)
    )
    return _filled(session, session.scalars(ordered).all()), int(total or 0)


def _of(dag_id: str, run_id: str) -> Any:
    return select(TaskInstance).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)


def _filled(session: Any, instances: Sequence[Any]) -> list[TaskVideo]:
    """With XComs and rendered fields of all of them, in a query each."""
    if not instances:
        return []
    dag_id, run_id = instances[0].dag_id, instances[0].run_id
    task_ids = {ti.task_id for ti in instances}
    indexes = {ti.map_index for ti in instances}
    xcoms: dict[tuple[str, int], dict[str, Any]] = {}
    rows = select(XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value).where(
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.task_id.in_(task_ids),
        XComModel.map_index.in_(indexes),
        XComModel.key.in_(_KEYS),
    )
    for task_id, map_index, key, value in session.execute(rows.order_by(XComModel.timestamp)):
        xcoms.setdefault((task_id, map_index), {})[key] = value
    rendered = version_compat.rendered_fields(session, instances)
    fields = {of: found or {} for of, found in rendered.items()}
    return [
        _video(ti, xcoms.get((ti.task_id, ti.map_index), {}), fields.get(ti.id)) for ti in instances
    ]


def _video(ti: Any, xcoms: Mapping[str, Any], rendered: Any) -> TaskVideo:
    """``rendered``: its fields; None where Airflow has deleted them."""
    told = None if rendered is None else rendered.get("output_path") or ""
    results = (rendered or {}).get("results_path")
    state = getattr(ti.state, "value", ti.state)
    made = _mapping(xcoms.get(_RESULT)) or _mapping(xcoms.get(REVIEW_KEY))
    return TaskVideo(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=ti.map_index,
        state=state,
        try_number=ti.try_number,
        operator=ti.custom_operator_name or ti.operator,
        label=ti.rendered_map_index,
        start_date=ti.start_date,
        end_date=ti.end_date,
        made=made if made.get("generation_id") or made.get("results_path") else {},
        facts=_mapping(xcoms.get(FACTS_KEY)),
        failure=_mapping(xcoms.get(FAILURE_KEY)),
        told=told if told is None or isinstance(told, str) else "",
        results=results if isinstance(results, str) else None,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    """An XCom as it lies in the database: JSON, or its text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}
