"""Every difference between the versions of Airflow that are supported (3.0 and up).

What an older version lacks is None or empty here; the modules that use it say what that means.
The form of a connection before 3.2 is drawn by classmethods of the hook, where Airflow looks for
them, and ``BaseTrigger.on_kill`` is not called before 3.3.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow import __version__ as airflow_version
from airflow.exceptions import AirflowOptionalProviderFeatureException
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.sdk import get_current_context
from packaging import version

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
else:
    try:
        from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
    except ImportError:  # before 3.3
        RetryDecision, RetryPolicy = None, object

serialize: Callable[[object], object] | None
"""What Airflow stores the arguments of a trigger with."""
try:
    from airflow.sdk.serde import serialize
except ImportError:  # before 3.2
    serialize = None

FOREVER: dict[str, Any]
"""Arguments with which a value in the task state store never expires."""
try:
    from airflow.sdk.execution_time.context import NEVER_EXPIRE
except ImportError:  # before 3.3
    FOREVER = {}
else:
    FOREVER = {"retention": NEVER_EXPIRE}

CLEAR_DISCARDS_STATE = version.parse(version.parse(airflow_version).base_version) >= version.parse(
    "3.4"
)
"""Whether a clear empties the task state store unless told to keep it (#72100)."""

HAS_TABS = version.parse(version.parse(airflow_version).base_version) >= version.parse("3.1")
"""Whether a plugin may add tabs to the pages of runs and tasks."""

__all__ = [
    "CLEAR_DISCARDS_STATE",
    "FOREVER",
    "HAS_TABS",
    "RetryDecision",
    "RetryPolicy",
    "connection_of",
    "current_context",
    "expanded_names",
    "is_test_run",
    "rendered_fields",
    "serialize",
    "supported",
    "task_state_store",
]


def __getattr__(name: str) -> Any:
    """``HITLOperator``, imported by what asks people only."""
    if name != "HITLOperator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not HAS_TABS:
        raise AirflowOptionalProviderFeatureException(
            "KlingReviewOperator asks people, which Airflow can from 3.1 on "
            f"(this is {airflow_version}). Leave the review out, or upgrade."
        )
    from airflow.providers.standard.operators.hitl import HITLOperator

    return HITLOperator


def task_state_store(context: Context) -> Any:
    """The store that survives the retries of a task; None before 3.3."""
    return context.get("task_state_store")


def current_context() -> Context | None:
    """The context of the task that runs in this process; None outside of a task."""
    try:
        return get_current_context()
    except RuntimeError:
        return None


def connection_of(path: Any) -> str | None:
    """The connection that an ObjectStoragePath names."""
    if hasattr(path, "conn_id"):
        return path.conn_id or None
    return path.storage_options.get("conn_id") or None  # before 3.1


def is_test_run(run_id: str) -> bool:
    """Whether ``airflow tasks test``, ``airflow dags test`` or ``dag.test()`` runs the task."""
    from airflow.sdk.execution_time import task_runner

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    in_process = type(comms).__name__ == "InProcessSupervisorComms"
    return in_process or run_id.startswith("__airflow_temporary_run_")


def expanded_names(task: Any) -> set[str]:
    """The arguments of a mapped task's instance that differ from one instance to the next."""
    mapped: Any = task.dag.task_dict.get(task.task_id) if task.has_dag() else None
    if not hasattr(mapped, "partial_kwargs"):
        return set()
    passed = getattr(task, "_BaseOperator__init_kwargs", {})
    return set(passed) - set(mapped.partial_kwargs)


def supported(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of an operator without those that this Airflow's BaseOperator does not know.

    Logs a warning for each that is left out.
    """
    if "retry_policy" in arguments and not hasattr(BaseOperator, "retry_policy"):
        logging.getLogger(__name__).warning(
            "This Airflow has no retry policies (3.3 has): the task's retries count as they are."
        )
        return {name: value for name, value in arguments.items() if name != "retry_policy"}
    return arguments


def rendered_fields(session: Any, instances: Sequence[Any]) -> dict[Any, Any]:
    """The rendered template fields of task instances of one run, by their ids. One query.

    From 3.4 on they belong to an attempt; those that an earlier version wrote are not read then.
    """
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered
    from sqlalchemy import select

    if hasattr(Rendered, "task_instance_id"):
        of_attempt = Rendered.task_instance_id
        found = select(of_attempt, Rendered.rendered_fields).where(
            of_attempt.in_([ti.id for ti in instances])
        )
        return dict(session.execute(found).all())
    ids = {(ti.task_id, ti.map_index): ti.id for ti in instances}
    query = select(Rendered.task_id, Rendered.map_index, Rendered.rendered_fields).where(
        Rendered.dag_id == instances[0].dag_id,
        Rendered.run_id == instances[0].run_id,
        Rendered.task_id.in_({ti.task_id for ti in instances}),
        Rendered.map_index.in_({ti.map_index for ti in instances}),
    )
    rows = session.execute(query).all()
    return {ids[task, index]: fields for task, index, fields in rows if (task, index) in ids}
