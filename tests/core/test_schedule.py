"""When to ask: against simulated generations, whose truth is written here a second time.

``Truth`` draws finish times and ``limit`` integrates their density, both apart from the belief
of the schedule and from the benchmark (which has more models, more shapes and more runs).
"""

import json
import math
import random
import subprocess
import sys
from bisect import bisect_left
from statistics import fmean, median
from time import perf_counter
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kling_integrations.core import finish_times
from kling_integrations.core.schedule import JITTER, Schedule

TURBO = "klingai/v2.5-turbo/pro/text-to-video"
MASTER = "klingai/v2-master-text-to-video"
# model, duration, true median in seconds, spread of the logarithm
SEED_MODELS = [
    pytest.param(TURBO, 5, 170.0, 0.20, id="v2.5-turbo-t2v"),
    pytest.param("klingai/v2.5-turbo/pro/image-to-video", 5, 140.0, 0.20, id="v2.5-turbo-i2v"),
    pytest.param("klingai/video-v2-6-pro-text-to-video", 5, 152.0, 0.20, id="v2.6-pro-t2v"),
    pytest.param(MASTER, 5, 330.0, 0.07, id="v2-master-5s"),
    pytest.param(MASTER, 10, 750.0, 0.07, id="v2-master-10s"),
]
REFUSED, SLOW = 0.04, 0.05


class Truth(NamedTuple):
    """Finish times: most around the median, 5 % 1.5 to 4 times slower, 4 % refused early."""

    successes: list[float]
    refusals: list[float]

    @classmethod
    def draw(cls, middle, spread, shape="log-normal", jobs=4000, seed=1):
        rng = random.Random(seed)
        weibull = 1.2 / spread
        draws = {
            "log-normal": lambda: rng.lognormvariate(0.0, spread),
            "gamma": lambda: rng.gammavariate(spread**-2, spread**2),
            "weibull": lambda: rng.weibullvariate(1.0, weibull) / math.log(2) ** (1 / weibull),
            "uniform": lambda: 1.0 + 1.73 * spread * rng.uniform(-1.0, 1.0),
            "bimodal": lambda: rng.lognormvariate(0.0, spread / 2) * rng.choice((0.8, 0.8, 1.3)),
        }
        successes, refusals = [], []
        for _ in range(jobs):
            seconds = max(1.0, middle * draws[shape]())
            if rng.random() < SLOW:
                seconds *= rng.uniform(1.5, 4.0)
            if rng.random() < REFUSED:
                refusals.append(rng.uniform(0.0, 30.0))
            else:
                successes.append(seconds)
        return cls(successes, refusals)


class Score(NamedTuple):
    late: float
    requests: float
    refusal: float

    @property
    def product(self):
        return self.late * self.requests


def judged(truth, next_delay):
    """Mean lateness of successes, mean requests of all, mean lateness of refusals."""
    asked, end = [0.0], max(truth.successes)
    while asked[-1] < end:
        asked.append(asked[-1] + next_delay(asked[-1]))
    nth = [bisect_left(asked, seconds) for seconds in truth.successes + truth.refusals]
    late = [asked[n] - seconds for n, seconds in zip(nth, truth.successes, strict=False)]
    refusal = [asked[bisect_left(asked, seconds)] - seconds for seconds in truth.refusals]
    return Score(fmean(late), fmean(nth), fmean(refusal))


def ours(truth, schedule, seed=None):
    rng = None if seed is None else random.Random(seed)
    return judged(truth, lambda elapsed: schedule.next_delay(elapsed, rng))


def fixed_10s(truth):
    return judged(truth, lambda elapsed: 10.0)


def mean_of(scores):
    return Score(*map(fmean, zip(*scores, strict=True)))


def histories(truth, n, how_many, seed=5):
    rng = random.Random(seed)
    return [rng.sample(truth.successes, n) for _ in range(how_many)]


def limit(middle, spread):
    """½(∫√(f·S) dt)², by the midpoint rule, of the log-normal truth above."""

    def normal(age, scale):
        z = math.log(age / (middle * scale)) / spread
        density = math.exp(-z * z / 2) / (age * spread * math.sqrt(2 * math.pi))
        return density, math.erfc(z / math.sqrt(2)) / 2

    scales = [1.5 + 2.5 * (k + 0.5) / 40 for k in range(40)]
    step = middle / 400
    total = 0.0
    for k in range(int(5 * middle / step)):
        age = (k + 0.5) * step
        slow = [normal(age, scale) for scale in scales]
        bulk = normal(age, 1.0)
        mixed = [(1 - SLOW) * bulk[j] + SLOW * fmean(s[j] for s in slow) for j in (0, 1)]
        density = (1 - REFUSED) * mixed[0] + (REFUSED / 30 if age < 30 else 0.0)
        survival = (1 - REFUSED) * mixed[1] + REFUSED * max(0.0, 1 - age / 30)
        total += math.sqrt(density * survival) * step
    return total**2 / 2


# --- What it has to reach -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 3], ids=["exact", "jittered"])
@pytest.mark.parametrize(("model", "duration", "middle", "spread"), SEED_MODELS)
def test_documented_seconds_alone_are_sooner_and_quieter_than_a_fixed_poll(
    model, duration, middle, spread, seed
):
    truth = Truth.draw(middle, spread)
    got, fixed = ours(truth, Schedule.expecting(model, duration), seed), fixed_10s(truth)
    assert got.late <= fixed.late
    assert got.requests <= fixed.requests
    assert got.product <= 0.6 * fixed.product


@pytest.mark.parametrize(("model", "duration", "middle", "spread"), SEED_MODELS)
def test_ten_finishes_bring_it_within_35_percent_of_the_limit(model, duration, middle, spread):
    truth = Truth.draw(middle, spread)
    scores = [
        ours(truth, Schedule.expecting(model, duration, past), seed)
        for seed, past in enumerate(histories(truth, 10, 20))
    ]
    assert mean_of(scores).product <= 1.35 * limit(middle, spread)


def test_an_unknown_model_is_learned_as_well():
    truth = Truth.draw(60.0, 0.15)
    scores = [ours(truth, Schedule.expecting(None, None, h)) for h in histories(truth, 10, 20)]
    assert mean_of(scores).product <= 1.35 * limit(60.0, 0.15)


@pytest.mark.parametrize("finishes", [0, 10])
@pytest.mark.parametrize(("model", "duration", "middle", "spread"), SEED_MODELS)
def test_an_early_refusal_is_noticed_within_fifteen_seconds(
    model, duration, middle, spread, finishes
):
    truth = Truth.draw(middle, spread)
    (past,) = histories(truth, finishes, 1)
    schedule = Schedule.expecting(model, duration, past)
    assert mean_of([ours(truth, schedule, seed) for seed in range(5)]).refusal <= 15.0


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize(("model", "duration", "middle", "_"), SEED_MODELS)
def test_documented_seconds_off_by_two_do_not_hurt(model, duration, middle, _, factor, spread):
    truth = Truth.draw(factor * middle, spread)
    schedule = Schedule.expecting(model, duration)
    got, fixed = mean_of([ours(truth, schedule, s) for s in range(10)]), fixed_10s(truth)
    assert got.late <= 2.0 * fixed.late
    assert got.requests <= 1.5 * fixed.requests


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("middle", [20, 35, 60, 120, 300, 900])
def test_a_model_that_nobody_knows_is_waited_for_about_as_by_a_fixed_poll(middle, spread):
    truth = Truth.draw(middle, spread)
    schedule = Schedule.expecting("somebody/new-model", 5)
    got, fixed = mean_of([ours(truth, schedule, s) for s in range(5)]), fixed_10s(truth)
    assert got.late <= 1.5 * fixed.late
    assert got.requests <= 1.2 * fixed.requests


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("shape", ["gamma", "weibull", "uniform", "bimodal"])
def test_other_shapes_are_waited_for_no_worse_than_by_a_fixed_poll(shape, spread):
    truth = Truth.draw(170.0, spread, shape)
    fixed = fixed_10s(truth)
    documented = ours(truth, Schedule.expecting(TURBO, 5))
    learned = mean_of(
        [ours(truth, Schedule.expecting(TURBO, 5, h)) for h in histories(truth, 10, 10)]
    )
    gain = {0.05: 0.65, 0.2: 0.65, 0.5: 1.05}[spread]  # the wider, the less there is to know
    assert documented.product <= gain * fixed.product
    assert learned.product <= gain * fixed.product


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize(("model", "duration", "middle", "spread"), SEED_MODELS)
def test_a_changed_gateway_is_believed_after_three_generations(
    model, duration, middle, spread, factor
):
    before, after = Truth.draw(middle, spread), Truth.draw(factor * middle, spread, seed=2)
    old, new = histories(before, 10, 10), histories(after, 3, 10, seed=6)
    scores = [
        ours(after, Schedule.expecting(model, duration, o + n), 1)
        for o, n in zip(old, new, strict=True)
    ]
    fixed = fixed_10s(after)
    assert mean_of(scores).late <= 2.0 * fixed.late
    assert mean_of(scores).requests <= 1.5 * fixed.requests


def test_a_shorter_pace_is_sooner_and_beats_its_own_fixed_poll():
    truth = Truth.draw(170.0, 0.2)
    numbers = Schedule.expecting(TURBO, 5).numbers() | {"pace": 5.0}
    got = ours(truth, Schedule.of(numbers))
    five = judged(truth, lambda elapsed: 5.0)
    assert got.late < ours(truth, Schedule.expecting(TURBO, 5)).late
    assert got.product < 0.6 * five.product


# --- What it believes ---------------------------------------------------------------------------


def test_the_documented_seconds_are_expected():
    assert Schedule.expecting(MASTER, 5).expected == pytest.approx(330.0)
    assert Schedule.expecting(MASTER, 10).expected == pytest.approx(750.0)


def test_seconds_counted_from_a_sample_log_are_a_little_too_few():
    assert 160.0 < Schedule.expecting(TURBO, 5).expected < 180.0


def test_an_alias_means_its_model():
    assert Schedule.expecting("v2-master", 5) == Schedule.expecting(MASTER, 5)


@pytest.mark.parametrize("model", [None, "somebody/new-model", "v3", "klingai/image-o1"])
def test_without_a_figure_anything_is_possible_and_waits_are_short(model):
    schedule = Schedule.expecting(model, 5)
    assert schedule.spread > 0.5
    assert max(schedule.next_delay(age) for age in range(0, 2000, 10)) <= 12.0


@pytest.mark.parametrize("n", [5, 10, 20])
def test_the_expectation_moves_to_what_own_generations_took(n):
    past = histories(Truth(Truth.draw(95.0, 0.1, jobs=400).successes, []), n, 1)[0]
    assert Schedule.expecting(TURBO, 5, past).expected == pytest.approx(median(past), rel=0.1)


def test_a_documented_figure_far_from_what_was_seen_is_forgotten():
    past = [60.0, 70.0, 76.0, 81.0, 85.0, 89.0, 94.0, 100.0, 108.0, 120.0]
    middle = math.exp(fmean(map(math.log, past)))
    assert Schedule.expecting(TURBO, 5, past).expected == pytest.approx(middle, rel=0.02)


def test_one_finish_does_not_make_it_sure():
    documented, one = Schedule.expecting(TURBO, 5), Schedule.expecting(TURBO, 5, [120.0])
    many = Schedule.expecting(TURBO, 5, [118.0, 122.0, 119.0, 121.0, 120.0] * 2)
    assert 120.0 < one.expected < documented.expected
    assert many.spread < 0.5 * one.spread


def test_slow_ones_do_not_move_the_expectation():
    usual = [160.0, 165.0, 168.0, 170.0, 171.0, 174.0, 176.0, 180.0]
    clean = Schedule.expecting(TURBO, 5, usual)
    disturbed = Schedule.expecting(TURBO, 5, [*usual, 420.0, 510.0])
    assert disturbed.expected == pytest.approx(clean.expected, rel=0.02)
    assert disturbed.spread < 1.2 * clean.spread


def test_only_the_newest_finishes_count():
    old, new = [300.0] * 40, [100.0, 104.0, 96.0, 99.0, 101.0] * 4
    assert Schedule.expecting(TURBO, 5, old + new) == Schedule.expecting(TURBO, 5, new)


def test_senseless_seconds_are_passed_over():
    good = [150.0, 160.0, 170.0]
    odd = [0.0, -3.0, math.nan, math.inf]
    assert Schedule.expecting(TURBO, 5, odd + good) == Schedule.expecting(TURBO, 5, good)


@given(age=st.floats(1.0, 5000.0), expected=st.floats(10.0, 1000.0), spread=st.floats(0.03, 1.0))
def test_the_hazard_is_what_the_survival_loses(age, expected, spread):
    parts = finish_times.mixture(expected, spread, 0.09)
    step = 1e-5 * age
    before = finish_times.survival(parts, age - step)
    after = finish_times.survival(parts, age + step)
    assume(after > 1e-9)
    hazard = finish_times.hazard(parts, age)
    lost = (before - after) / (2 * step) / finish_times.survival(parts, age)
    assert hazard == pytest.approx(lost, rel=1e-2, abs=1e-7)


def test_the_parts_of_the_belief_add_up_to_one():
    assert sum(p.weight for p in finish_times.mixture(170.0, 0.2, 0.09)) == pytest.approx(1.0)


# --- What it answers ----------------------------------------------------------------------------

seconds = st.floats(0.0, 1e12) | st.sampled_from([0.0, 5e-324, 1e300, math.inf])
schedules = st.builds(
    Schedule,
    expected=st.floats(1.0, 1e5),
    spread=st.floats(0.03, 2.0),
    doubt=st.floats(0.0, 0.5),
    floor=st.floats(0.5, 5.0),
    ceiling=st.floats(5.0, 300.0),
    pace=st.floats(1.0, 60.0),
) | st.builds(
    Schedule.expecting,
    st.sampled_from([None, TURBO, MASTER]),
    st.sampled_from([None, 5, 10]),
    st.lists(st.floats(0.5, 1e5), max_size=25),
)


@given(schedule=schedules, elapsed=seconds)
def test_every_wait_is_between_floor_and_ceiling(schedule, elapsed):
    delay = schedule.next_delay(elapsed)
    assert schedule.floor <= delay <= schedule.ceiling
    assert delay == schedule.next_delay(elapsed)


@given(schedule=schedules, elapsed=seconds, seed=st.integers())
def test_jitter_is_at_most_a_tenth(schedule, elapsed, seed):
    exact, got = schedule.next_delay(elapsed), schedule.next_delay(elapsed, random.Random(seed))
    assert abs(got - exact) <= JITTER * exact * (1 + 1e-9)


@given(schedule=schedules, elapsed=seconds)
def test_lateness_stays_a_fraction_of_the_time_already_spent(schedule, elapsed):
    assert schedule.next_delay(elapsed) <= max(schedule.floor, 16.0 + 0.4 * elapsed)


@given(schedule=schedules)
def test_its_numbers_travel_as_json_and_come_back_exactly(schedule):
    numbers = json.loads(json.dumps(schedule.numbers()))
    assert all(type(number) is float for number in numbers.values())
    assert Schedule.of(numbers) == Schedule(**numbers) == schedule


@given(schedule=schedules, ages=st.lists(seconds, min_size=2, max_size=20))
def test_progress_never_runs_backwards_nor_says_finished(schedule, ages):
    shown = [schedule.progress(age) for age in sorted(ages)]
    assert shown == sorted(shown)
    assert shown[0] >= 0.0
    assert shown[-1] <= 0.95


def test_progress_keeps_step_with_the_expectation():
    schedule = Schedule.expecting(MASTER, 5)
    assert schedule.progress(0.0) == 0.0
    assert schedule.progress(165.0) == pytest.approx(0.4)
    assert schedule.progress(330.0) == pytest.approx(0.8)
    assert 0.9 < schedule.progress(660.0) < 0.95


@given(schedule=schedules, since=seconds, longer=st.lists(seconds, min_size=2, max_size=9))
def test_the_likelihood_of_being_done_grows_with_time(schedule, since, longer):
    chances = [schedule.likelihood(since, since + more) for more in sorted(longer)]
    assert all(0.0 <= chance <= 1.0 for chance in chances)
    assert chances == sorted(chances)


def test_the_likeliest_to_be_done_is_the_one_whose_time_has_come():
    schedule = Schedule.expecting(MASTER, 5)
    early, now = schedule.likelihood(90.0, 120.0), schedule.likelihood(300.0, 330.0)
    assert now > 10 * early


def test_it_asks_rarely_before_densely_at_and_less_after_the_expectation():
    schedule = Schedule.expecting(MASTER, 5, [330.0, 340.0, 320.0, 335.0, 325.0] * 2)
    before, at, after = (schedule.next_delay(age) for age in (150.0, 330.0, 700.0))
    assert before > 40.0
    assert at < 5.0
    assert 10.0 < after < before


def test_a_gateway_that_became_twice_as_fast_is_noticed_soon_after_ten_finishes():
    schedule = Schedule.expecting(MASTER, 10, [750.0, 760.0, 740.0, 755.0, 745.0] * 2)
    age = 0.0
    while age < 375.0:
        age += schedule.next_delay(age)
    assert age - 375.0 < 60.0
    assert schedule.next_delay(375.0) < 60.0


def test_a_hopeless_wait_is_asked_for_less_and_less():
    schedule = Schedule.expecting(TURBO, 5)
    delays = [schedule.next_delay(170.0 * times) for times in (3, 4, 8, 16, 32)]
    assert delays == sorted(delays)
    assert delays[-1] > 1.5 * delays[0]


def test_time_in_a_queue_is_no_generation_time():
    schedule = Schedule.expecting(TURBO, 5)
    assert schedule.next_delay(700.0, queued=600.0) == schedule.next_delay(100.0)
    assert schedule.progress(700.0, queued=600.0) == schedule.progress(100.0)


def test_an_endless_queue_is_asked_about_at_a_steady_pace():
    schedule = Schedule.expecting(MASTER, 10)
    elapsed = 0.0
    for _ in range(50):
        delay = schedule.next_delay(elapsed, queued=elapsed)
        assert 5.0 <= delay <= 16.0
        elapsed += delay


def test_generations_submitted_together_are_not_asked_for_together():
    schedule, rng = Schedule.expecting(MASTER, 5), random.Random(1)
    waits = [0.0] * 100
    for _ in range(6):
        waits = [elapsed + schedule.next_delay(elapsed, rng) for elapsed in waits]
    busiest = max(sum(1 for w in waits if second <= w < second + 1) for second in range(300))
    assert busiest <= 25


def test_a_fixed_interval_is_kept_whatever_is_known():
    for schedule in (Schedule.fixed(10), Schedule.expecting(MASTER, 5).every(10)):
        assert {schedule.next_delay(age) for age in (0.0, 5.0, 330.0, 1e6)} == {10.0}
        assert Schedule.of(schedule.numbers()) == schedule
        assert 9.0 <= schedule.next_delay(0.0, random.Random(1)) <= 11.0
    assert Schedule.expecting(MASTER, 5).every(10).expected == pytest.approx(330.0)
    assert Schedule.fixed(0.05).next_delay(3.0) == 0.05


@pytest.mark.parametrize("interval", [0.0, -1.0, math.nan, math.inf])
def test_a_senseless_interval_is_refused(interval):
    with pytest.raises(ValueError, match="finite, positive"):
        Schedule.fixed(interval)


@pytest.mark.parametrize(
    "change", [{"spread": 0.0}, {"expected": math.nan}, {"doubt": 0.9}, {"floor": 99.0}]
)
def test_numbers_that_make_no_schedule_are_refused(change):
    with pytest.raises(ValueError, match="schedule"):
        Schedule.of(Schedule.expecting(TURBO, 5).numbers() | change)


def test_a_thousand_waits_cost_next_to_nothing():
    schedule = Schedule.expecting(MASTER, 10, [750.0] * 10)
    ages = [7.5 * k for k in range(200)]
    best = math.inf
    for _ in range(5):
        start = perf_counter()
        for age in ages:
            schedule.next_delay(age)
        best = min(best, (perf_counter() - start) / len(ages))
    assert best < 100e-6


def test_importing_it_is_light():
    code = "import sys, kling_integrations.core.schedule as s; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    heavy = {"numpy", "requests", "aiohttp", "statistics", "random", "json"}
    assert not heavy & set(loaded)
    assert "kling_integrations.core.catalog" not in loaded
