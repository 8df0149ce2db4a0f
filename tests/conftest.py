"""What belongs to the whole suite: which tests are left out while one works."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# Fixtures of tests that start a command, a compiler or an Airflow task's whole life for real.
PROCESSES = {"shell", "shell_on", "terminal"}


def pytest_configure() -> None:
    # Started in the background of a shell, SIGINT is ignored, by all children too; but what an
    # interrupt does is under test.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as ``thorough`` what takes long by its nature; ``make test`` runs all of it."""
    for item in items:
        room, *rest = item.path.relative_to(HERE).parts
        fixtures = set(getattr(item, "fixturenames", ()))
        pictures = room == "sandbox" and rest[0] == "video"
        if room in ("resilience", "typing") or pictures or fixtures & PROCESSES:
            item.add_marker("thorough")
