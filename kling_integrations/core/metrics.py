"""The gateway's live percentiles: how long a model takes at the moment.

Optional (``live_percentiles=True``, or ``KLING_LIVE_PERCENTILES=1``) and never in the way. They
are fetched after a submit, while nothing would be asked for some ten seconds anyway, once in ten
minutes for each model, within TIMEOUT seconds; whatever goes wrong counts as "nothing known" for
as long. Where the user has finished generations of that model and duration, they are not fetched:
those know better. Off by default, because the gateway documents neither which requests of a model
it counts nor tells clips of 5 seconds from clips of 10, and a figure that is off by two costs more
lateness than the documented one saves.

The cache is the process's: Airflow and notebooks make many clients for one gateway.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from . import protocol
from .protocol import Outcome

FRESH = 600.0
"""Seconds for which an answer counts, also one that failed."""
TIMEOUT = 2.0
"""Seconds, of the wall, after which a fetch is given up."""

_lock = threading.Lock()
_known: dict[tuple[str, str], tuple[float, Mapping[str, float]]] = {}


def known(base_url: str, model: str) -> Mapping[str, float]:
    """``{"p50": seconds, …}`` as last fetched; empty when nothing is known or it is stale."""
    with _lock:
        fetched, percentiles = _known.get((base_url, model), (0.0, {}))
        return percentiles if percentiles and time.monotonic() - fetched < FRESH else {}


def claim(base_url: str, model: str) -> bool:
    """Whether the caller shall fetch now. Whoever else asks meanwhile does without."""
    now = time.monotonic()
    with _lock:
        entry = _known.get((base_url, model))
        if entry and now - entry[0] < FRESH:
            return False
        _known[base_url, model] = (now, {})
        return True


def remember(base_url: str, model: str, outcome: Outcome) -> None:
    """What the fetch brought; anything but percentiles is nothing known."""
    percentiles = protocol.read_metrics(outcome, model)
    with _lock:
        _known[base_url, model] = (time.monotonic(), percentiles)


def forget() -> None:
    """An empty cache."""
    with _lock:
        _known.clear()
