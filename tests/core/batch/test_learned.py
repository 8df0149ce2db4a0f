"""What one run of a batch learned and the next begins with."""

import json

import pytest

from kling_integrations.core.batch.learned import Learned


def test_it_survives_storing():
    made = Learned(7, 4, {("a", 5): [170.0, 168.25], ("b", None): []})
    stored = json.loads(json.dumps(made.to_json()))
    assert Learned.of(stored) == Learned(7, 4, {("a", 5): [170.0, 168.2], ("b", None): []})


@pytest.mark.parametrize(
    "stored",
    [None, 7, {}, {"limit": "x", "patience": 1, "times": []}, {"limit": 1, "patience": 1}],
)
def test_what_is_odd_is_learned_anew(stored):
    assert Learned.of(stored) == Learned()
