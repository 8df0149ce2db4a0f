"""What a batch may cost in all: reserved before each POST, settled by what the gateway says.

No I/O. One event loop asks, so of rows that race for the last dollars only those that fit get a
reservation: the sum of what is spent and what is reserved never exceeds the limit.
"""

from __future__ import annotations

_ROUNDING = 1e-9  # USD: sums of prices are no exact decimals


class Budget:
    """USD of one batch. ``limit`` None: as much as it costs, which is counted all the same.

    ``spent``: what counts against the limit before anything else, see ``plan.committed``.
    """

    def __init__(self, limit: float | None = None, spent: float = 0.0) -> None:
        self.limit = limit
        self.spent = spent
        self.reserved = 0.0

    def reserve(self, usd: float | None) -> bool:
        """Whether so much more may be submitted; it is reserved then.

        ``usd`` None, a price that is unknown, fits only where there is no limit.
        """
        if self.limit is not None and (
            usd is None or self.spent + self.reserved + usd > self.limit + _ROUNDING
        ):
            return False
        self.reserved += usd or 0.0
        return True

    def settle(self, reserved: float | None, actual: float | None) -> None:
        """A reservation ends: it cost ``actual``, or where that is unknown what was expected."""
        self.release(reserved)
        self.spent += (reserved or 0.0) if actual is None else actual

    def release(self, reserved: float | None) -> None:
        """A reservation ends, and nothing was paid."""
        self.reserved = max(0.0, self.reserved - (reserved or 0.0))

    def hold(self, usd: float | None) -> None:
        """Reserves what an earlier run of the same batch has committed to already: it counts."""
        self.reserved += usd or 0.0
