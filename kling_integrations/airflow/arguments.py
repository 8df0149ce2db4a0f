"""Arguments of operators, checked when the DAG is read: they raise ValueError."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any


def one_of(name: str, value: str, *words: str) -> str:
    """The value, which is one of two words."""
    if value not in words:
        raise ValueError(f"{name} is {' or '.join(map(json.dumps, words))}.")
    return value


def seconds(timeout: float | timedelta) -> float:
    """A timeout in seconds, which is more than none."""
    length = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if not length > 0:
        raise ValueError("timeout is a positive number of seconds.")
    return length


def check_outlets(task: Any) -> None:
    """An asset's event would come before there is a video."""
    if task.outlets and not task.wait_for_completion:
        raise ValueError(
            "Outlets belong to the sensor that waits, not to wait_for_completion=False."
        )
