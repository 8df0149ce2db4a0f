"""When a generation finishes: a mixture of log-normals, and how finished ones teach it.

Four things can happen to a generation, and each is one log-normal part of the belief:

* it is refused in its first half minute (moderation, an unreadable image);
* it takes about as long as generations of its model and duration usually do (the bulk);
* it is caught in a slow hour, and takes two or three times as long;
* what is known is wrong and it is done in half the time, as much as the ``doubt`` says.

All times are in seconds. Numbers without a source are assumptions: how the durations of video
generations are distributed is not published, so they were chosen to be safe for many shapes
(``benchmarks/schedule.py`` shows what they cost under each).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import erfc, exp, fsum, inf, isfinite, log, pi, sqrt
from typing import NamedTuple

_SQRT_2 = sqrt(2.0)
_SQRT_2PI = sqrt(2.0 * pi)

NEWEST = 20
"""So many finished generations are looked at; older ones tell of an older gateway."""
ENOUGH = 10
"""So many make the caution that goes with a mere prior unnecessary."""

TYPICAL_SPREAD = 0.15
"""Standard deviation of log(seconds) within one model and duration, before any was seen."""
_SPREAD_WORTH = 2.0  # finishes
_NARROWEST, _WIDEST = 0.03, 1.0


class Part(NamedTuple):
    """A log-normal: its share of the generations, median in seconds, deviation of the log."""

    weight: float
    median: float
    spread: float


EARLY = Part(0.04, 12.0, 0.8)
"""Refusals: about 4 % of generations, nearly all of them within half a minute."""
SLOW = Part(0.05, 2.1, 0.6)
"""The slow tail; its median is in multiples of the expectation."""
HASTY = Part(0.0, 0.5, 0.2)
"""Done in half the time; its weight is the doubt, its median in multiples as well."""


class Evidence(NamedTuple):
    """What is known about the bulk before the first own generation has finished."""

    expected: float  # median, in seconds
    spread: float = TYPICAL_SPREAD  # of single generations around the median, in the log
    trust: float = 0.18  # standard deviation of the (log of the) median itself
    doubt: float = 0.09  # chance that the figure is about twice the truth
    ceiling: float = 30.0  # longest wait between two requests, in seconds


UNKNOWN = Evidence(200.0, trust=0.6, doubt=0.0, ceiling=12.0)
"""No figure at all: 200 s is the middle of the documented ones, which go from 78 to 750 s."""


class Belief(NamedTuple):
    """What to expect of the next generation; ``mixture`` makes the distribution of it."""

    expected: float  # median of the bulk, in seconds
    spread: float  # predictive: it holds the uncertainty of the median, too
    doubt: float
    ceiling: float


# More doubt would notice sooner that a gateway became twice as fast, and cost requests for good.
_LEARNED_DOUBT, _LEARNED_CEILING = 0.01, 90.0


def mixture(expected: float, spread: float, doubt: float) -> tuple[Part, ...]:
    """The belief as its parts; the weights add up to one."""
    bulk = 1.0 - EARLY.weight - SLOW.weight - doubt
    return (
        EARLY,
        Part(bulk, expected, spread),
        Part(SLOW.weight, SLOW.median * expected, SLOW.spread),
        Part(doubt, HASTY.median * expected, HASTY.spread),
    )


def survival(parts: Iterable[Part], age: float) -> float:
    """The chance that a generation takes longer than ``age`` seconds."""
    if age <= 0.0:
        return 1.0
    now = log(age)
    return sum(w * 0.5 * erfc((now - log(m)) / (s * _SQRT_2)) for w, m, s in parts)


def hazard(parts: Iterable[Part], age: float) -> float:
    """Finishes per second at ``age``, among the generations that have not finished until then.

    0.0 where the numbers end (at 0 s, and billions of seconds beyond the slowest part).
    """
    if age <= 0.0 or age == inf:
        return 0.0
    density = left = 0.0
    now = log(age)
    for weight, median, spread in parts:
        z = (now - log(median)) / spread
        density += weight * exp(-0.5 * z * z) / spread
        left += weight * erfc(z / _SQRT_2)
    return density / (_SQRT_2PI * age * 0.5 * left) if left > 0.0 else 0.0


def learn(evidence: Evidence, finished: Iterable[float]) -> Belief:
    """The belief after own generations took ``finished`` seconds, the newest last.

    The bulk is separated from the slow tail by expectation maximisation on the logs, started from
    median and median deviation, so that an outlier weighs what it is likely to be worth. With
    few finishes the median stays near the evidence, weighed by precision (the further the
    finishes are from it, the less it counts), and the spread near the typical one.
    """
    logs = [log(s) for s in list(finished)[-NEWEST:] if isfinite(s) and s > 0.0]
    prior, variance = log(evidence.expected), evidence.trust**2
    count = len(logs)
    if not count:
        spread = sqrt(evidence.spread**2 + variance)
        return Belief(evidence.expected, spread, evidence.doubt, evidence.ceiling)

    def shrunk(deviation: float, worth: float) -> float:
        own = log(min(max(deviation, _NARROWEST), _WIDEST))
        typical = log(evidence.spread)
        return exp((worth * own + _SPREAD_WORTH * typical) / (worth + _SPREAD_WORTH))

    centre = _median(logs)
    spread = shrunk(1.4826 * _median([abs(x - centre) for x in logs]), count - 1.0)
    total = float(count)
    for _ in range(6):
        shares = [_share_of_bulk(x - centre, spread) for x in logs]
        total = fsum(shares)
        centre = fsum(w * x for w, x in zip(shares, logs, strict=True)) / total
        squares = fsum(w * (x - centre) ** 2 for w, x in zip(shares, logs, strict=True))
        freedom = max(total - 1.0, 0.0)
        spread = shrunk(sqrt(squares / freedom), freedom) if freedom else evidence.spread

    own_precision = total / spread**2
    prior_precision = 1.0 / (variance + (centre - prior) ** 2)
    precision = own_precision + prior_precision
    seen = min(1.0, count / ENOUGH)
    return Belief(
        expected=exp((own_precision * centre + prior_precision * prior) / precision),
        spread=sqrt(spread**2 + 1.0 / precision),
        doubt=evidence.doubt + seen * (_LEARNED_DOUBT - evidence.doubt),
        ceiling=evidence.ceiling + seen * (_LEARNED_CEILING - evidence.ceiling),
    )


def _share_of_bulk(distance: float, spread: float) -> float:
    """How likely a finish at this log-distance from the centre is no slow one."""
    bulk = (1.0 - SLOW.weight) * exp(-0.5 * (distance / spread) ** 2) / spread
    z = (distance - log(SLOW.median)) / SLOW.spread
    slow = SLOW.weight * exp(-0.5 * z * z) / SLOW.spread if distance > 0.0 else 0.0
    return bulk / (bulk + slow) if bulk + slow > 0.0 else 1.0


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2.0
