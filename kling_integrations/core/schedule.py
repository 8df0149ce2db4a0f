"""When to ask next: know at once, ask rarely.

Why not every ten seconds. With r(t) requests per second at age t, a finish at t is noticed
1/2r(t) seconds late on average, and requests are made as long as the generation runs. With the
density f and the survival S of the finish time, and c the price of one request in seconds of
lateness, the cost is

    ∫ f/(2r) dt + c ∫ r S dt.

It is smallest, at each t by itself, where f/(2r²) = cS, that is

    r(t) = √(h(t) / 2c)        with the hazard h = f/S.

So: hardly any request while a finish is impossible, dense where it is likely, thinning in the
tail, where the hazard of a log-normal falls. Lateness × requests is then ½(∫√(fS) dt)² whatever
c is: the limit for a client that knows f (whole requests move it by a few per cent), while a fixed
interval has E[T]/2. The rate becomes instants by asking again when the integral of r since the
last request reaches one.

The price. A fixed interval of d seconds is d/2 late and makes T/d requests; taking its own rate
of exchange, c = d²/2T, divides what is gained evenly between sooner and quieter than that poll.

Belief can be wrong, so it has bounds: no wait is shorter than ``floor`` nor longer than
``ceiling``, nor longer than 16 s plus two fifths of the age (an early refusal is noticed, and
however wrong the belief, lateness stays a fraction of the time already spent). What the gateway
says goes before what is believed: ``waiting`` honours a Retry-After.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import exp, isfinite, sqrt
from typing import TYPE_CHECKING, Self

from . import finish_times
from .finish_times import Evidence

if TYPE_CHECKING:
    import random

JITTER = 0.1
_FIRST, _GROWTH = 16.0, 0.4
_STEPS = 12  # the integral of the rate over the longest wait, by the midpoint rule


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to ask for one generation. Immutable, six floats, shared by as many as like.

    All in seconds, except ``spread`` (standard deviation of the logarithm) and ``doubt``
    (a probability). Make it with ``expecting`` or ``fixed``. ValueError for numbers that make
    no schedule.
    """

    expected: float
    """Median of the current belief: for an ETA."""
    spread: float
    doubt: float
    floor: float = 2.0
    ceiling: float = 60.0
    pace: float = 10.0
    """The fixed interval whose exchange of lateness for requests is kept, and beaten."""

    def __post_init__(self) -> None:
        positive = (self.expected, self.spread, self.floor, self.ceiling, self.pace)
        if not all(isfinite(number) and number > 0.0 for number in positive):
            raise ValueError(f"A schedule needs finite, positive numbers: {self}")
        if not 0.0 <= self.doubt <= 0.5 or self.floor > self.ceiling:
            raise ValueError(f"A schedule needs doubt in 0…0.5 and floor ≤ ceiling: {self}")

    @classmethod
    def expecting(
        cls,
        model: str | None = None,
        duration: int | None = None,
        finished: Iterable[float] = (),
    ) -> Self:
        """The schedule for a ``model`` (id or alias) and a clip of ``duration`` seconds.

        ``finished``: how many seconds earlier generations of the same model and duration took
        (without their time in a queue), the newest last; ten make the most of it.
        Without any the documented seconds count; without those, or with ``model=None``, almost
        anything is held possible.
        """
        evidence = _documented(model, duration) or finish_times.UNKNOWN
        belief = finish_times.learn(evidence, finished)
        return cls(belief.expected, belief.spread, belief.doubt, ceiling=belief.ceiling)

    @classmethod
    def fixed(cls, interval: float) -> Self:
        """A request every ``interval`` seconds, whatever is known."""
        return cls.expecting(None).every(interval)

    def every(self, interval: float) -> Self:
        """The same expectation, asked for every ``interval`` seconds."""
        return replace(self, floor=float(interval), ceiling=float(interval))

    @classmethod
    def of(cls, numbers: Mapping[str, float]) -> Self:
        """The schedule that gave these ``numbers``."""
        return cls(**{name: float(number) for name, number in numbers.items()})

    def numbers(self) -> dict[str, float]:
        """Plain floats, for JSON and a trigger's kwargs: ``Schedule.of`` takes them back."""
        return asdict(self)

    def next_delay(
        self,
        elapsed: float,
        rng: random.Random | None = None,
        *,
        queued: float = 0.0,
    ) -> float:
        """Seconds from now, ``elapsed`` seconds after the submit, to the next request.

        ``queued``: the seconds after which the generation was last seen in a queue. They are no
        generation time, so the belief starts there. With ``rng`` the delay is up to 10 % longer
        or shorter, so that generations submitted together are not asked for together.
        """
        delay = self._delay(max(elapsed - queued, 0.0))
        return delay * rng.uniform(1.0 - JITTER, 1.0 + JITTER) if rng else delay

    def _delay(self, age: float) -> float:
        longest = max(self.floor, min(self.ceiling, _FIRST + _GROWTH * age))
        if longest == self.floor:
            return longest
        parts = finish_times.mixture(self.expected, self.spread, self.doubt)
        price = self.pace**2 / (2.0 * self.expected)
        step = longest / _STEPS
        due = 0.0
        for number in range(_STEPS):
            rate = sqrt(finish_times.hazard(parts, age + (number + 0.5) * step) / (2.0 * price))
            if due + rate * step >= 1.0:
                return max(self.floor, number * step + (1.0 - due) / rate)
            due += rate * step
        return longest

    def likelihood(self, since: float, elapsed: float) -> float:
        """The chance that what was still running at ``since`` is done at ``elapsed`` seconds.

        Whom to ask first when there is not enough budget for all.
        """
        parts = finish_times.mixture(self.expected, self.spread, self.doubt)
        running = finish_times.survival(parts, since)
        return 1.0 - finish_times.survival(parts, elapsed) / running if running > 0.0 else 1.0

    def progress(self, elapsed: float, *, queued: float = 0.0) -> float:
        """How far along, from 0 to 0.95, for a bar that never runs backwards.

        In step with time until ``expected``, which is four fifths: half of the generations
        take longer. From there ever slower; only a finished generation is finished.
        """
        part = max(elapsed - queued, 0.0) / self.expected
        if part <= 1.0:
            return 0.8 * part
        return 0.95 - 0.15 * exp(-0.8 / 0.15 * (part - 1.0))


def _documented(model: str | None, duration: int | None) -> Evidence | None:
    """The catalogue's seconds, if it knows the model."""
    if model is None:
        return None
    from . import catalog

    try:
        known = catalog.find(model)
    except ValueError:  # an alias that leaves a tier open: any of several models
        return None
    seconds = known.expected_seconds(duration) if known else None
    if known is None or not seconds:
        return None
    # Counted from a sample log that polls every ten seconds: half an interval is missing,
    # and the time of the exchanges.
    return Evidence(seconds * 1.06 if known.seconds_from == "at least" else seconds)
