"""How a batch is run, for all who run one."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..waiting import DEFAULT_TIMEOUT, Patience
from .learned import Learned
from .plan import Wishes
from .saving import Saver

PATIENCE = Patience(rate_limit=0.0)
"""For the client of a batch: a 429 comes back at once, because the window learns from it."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a batch is run. ``timeout``: seconds that each row is waited for.

    ``save`` puts a finished video where it belongs; None: into the folder of the wishes.
    ``learned`` is what an earlier round of the same batch found out.
    """

    at_once: int = 10
    timeout: float = DEFAULT_TIMEOUT
    wishes: Wishes = field(default_factory=Wishes)
    save: Saver | None = None
    learned: Learned = field(default_factory=Learned)


class GoesOnError(Exception):
    """A row's generation runs, and something else waits for it."""
