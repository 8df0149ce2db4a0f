"""Every fault at every moment at every front: one payment, one verdict, the id, nothing left."""

from __future__ import annotations

import pytest
from resilience import matrix

BEYOND = (pytest.mark.slow, pytest.mark.exhaustive)


@pytest.fixture(scope="module")
def sandbox():
    with matrix.world() as running:
        yield running


@pytest.mark.filterwarnings("ignore::kling_integrations.KlingWarning")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.id, marks=() if case.is_default else BEYOND)
        for case in matrix.cases()
    ],
)
def test_nothing_is_paid_twice_and_nothing_is_lost(case, sandbox):
    seen = matrix.run(case, sandbox)
    assert seen.wrong(case.expected) == []
