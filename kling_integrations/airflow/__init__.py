"""Kling videos from Airflow: an operator, a sensor and a trigger that never pay twice.

Every name loads when it is first used: DAG files are parsed again and again, and the provider's
entry point is read by every component.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decorators import kling_task
    from .hooks import KlingHook
    from .links import KlingVideoLink
    from .operators import KlingVideoOperator
    from .retry_policy import KlingRetryPolicy
    from .review import KlingReviewOperator
    from .sensors import KlingVideoSensor
    from .triggers import KlingVideoTrigger

_MODULE_OF = {
    "KlingHook": "hooks",
    "KlingRetryPolicy": "retry_policy",
    "KlingReviewOperator": "review",
    "KlingVideoLink": "links",
    "KlingVideoOperator": "operators",
    "KlingVideoSensor": "sensors",
    "KlingVideoTrigger": "triggers",
    "kling_task": "decorators",
}

__all__ = [
    "KlingHook",
    "KlingRetryPolicy",
    "KlingReviewOperator",
    "KlingVideoLink",
    "KlingVideoOperator",
    "KlingVideoSensor",
    "KlingVideoTrigger",
    "kling_task",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
