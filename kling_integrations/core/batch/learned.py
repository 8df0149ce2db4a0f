"""What a run of a batch learned of its gateway, for the next run to begin with. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Kind = tuple[str, int | None]
"""A model and the seconds of video that are asked of it."""


@dataclass(frozen=True, slots=True)
class Learned:
    """``limit``: generations at once that the gateway takes, None where it refused none.

    ``patience``: how rarely one more is tried, see ``Window``. ``times``: seconds from submit to
    end, the queue apart, of the last generations of each kind.
    """

    limit: int | None = None
    patience: int = 1
    times: Mapping[Kind, Sequence[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        times = [[*kind, [round(each, 1) for each in found]] for kind, found in self.times.items()]
        return {"limit": self.limit, "patience": self.patience, "times": times}

    @classmethod
    def of(cls, stored: object) -> Learned:
        """What ``to_json`` made; nothing for anything else, for it only saves learning it anew."""
        try:
            if not isinstance(stored, Mapping):
                return cls()
            limit = stored["limit"]
            times = {
                (str(model), None if duration is None else int(duration)): [
                    float(each) for each in found if 0.0 <= each < math.inf
                ]
                for model, duration, found in stored["times"]
            }
            return cls(
                None if limit is None else max(1, int(limit)),
                max(1, int(stored["patience"])),
                times,
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return cls()
