"""What a batch may cost."""

import random

from kling_integrations.core.batch.budget import Budget


def test_racing_rows_never_commit_more_than_the_limit():
    dice, budget, reserved = random.Random(3), Budget(5.0), []
    for _ in range(2000):
        if dice.random() < 0.6:
            price = dice.choice([0.1, 0.5, 0.7])
            if budget.reserve(price):
                reserved.append(price)
        elif reserved:
            price = reserved.pop(dice.randrange(len(reserved)))
            if dice.random() < 0.3:
                budget.release(price)
            else:
                budget.settle(price, dice.choice([price, None, price / 2]))
        assert budget.spent + budget.reserved <= 5.0 + 1e-6


def test_ten_dimes_fit_into_a_dollar():
    budget = Budget(1.0)
    assert all(budget.reserve(0.1) for _ in range(10))
    assert not budget.reserve(0.1)


def test_what_was_cheaper_than_expected_makes_room():
    budget = Budget(1.0)
    assert budget.reserve(1.0)
    assert not budget.reserve(0.5)
    budget.settle(1.0, 0.4)
    assert budget.reserve(0.6)


def test_what_an_earlier_run_paid_counts():
    budget = Budget(1.0)
    budget.hold(0.8)
    assert not budget.reserve(0.3)


def test_an_unknown_price_fits_only_without_a_limit():
    assert not Budget(100.0).reserve(None)
    assert Budget().reserve(None)
